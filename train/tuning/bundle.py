"""Tunes the decoding of a bundle that exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.replay.scoring import percent
from train.config import FitConfig
from train.data import cache
from train.data.dataset import Corpus, PartData
from train.evaluation import groups, stored
from train.evaluation.stored import ClipPosteriors
from train.evaluation.streaming import stream_posteriors
from train.lock import only_writer
from train.provenance import known_of
from train.split import check_split
from train.tuning import halves, search
from train.tuning.halves import Outcome
from train.tuning.ledger import Ledger, Material
from train.tuning.merit import Merit, groups_in
from train.tuning.search import Method
from train.tuning.space import MEDIANS

Mode = Literal["clip", "stream"]
LEDGER = "counts.sqlite"


@dataclass(frozen=True, slots=True)
class Session:
    """A bundle and the validation clips that it is tuned on."""

    bundle: Bundle
    corpus: Corpus
    features: Path
    work: Path  # keeps what was counted between commands
    workers: int

    def tuned(
        self, modes: Sequence[Mode], method: Method, trials: int, seed: int, longest_median: int = MEDIANS[1]
    ) -> Bundle:
        """The bundle with tuned decoding, and its validation scores; other scores are dropped, as they no longer hold.

        Raises:
            EarwitnessError: the bundle was trained on the validation clips or another split, features are missing, or
                another command works in the same folder.
            BundleError: the bundle's tensors do not match its network.

        """
        part = self._part()
        assert part.truth is not None
        with only_writer(self.work):
            ways = self._ways(part, modes)
            material = Material(tuple(ways.values()), part.truth, self.bundle.classes)
            with Ledger(material, self.workers, self._ledger(modes)) as ledger:
                merit = Merit(ledger, groups_in(self.corpus.summary, "validation"))
                decoding = search.tune(merit, method, trials=trials, seed=seed, longest_median=longest_median)
        scores: dict[str, Any] = {
            f"validation_{mode}": {
                "command": f"earwitness-train tune --method {method} --mode {'both' if len(modes) > 1 else modes[0]}"
                + (f" --longest-filter {longest_median}" if longest_median < MEDIANS[1] else ""),
                **stored.score(clips, part.truth, decoding).json(),
            }
            for mode, clips in ways.items()
        }
        provenance = msgspec.structs.replace(self.bundle.provenance, decoding="tuned")
        return replace(self.bundle, decoding=decoding, scores=scores, provenance=provenance)

    def compare(self, modes: Sequence[Mode], splits: int, trials: int, seed: int) -> tuple[Outcome, ...]:
        """How the methods do on recordings that they did not see; raises as `tuned`."""
        part = self._part()
        assert part.truth is not None
        fixed = stored.untuned(self.bundle.classes, FitConfig())
        with only_writer(self.work):
            material = Material(tuple(self._ways(part, modes).values()), part.truth, self.bundle.classes)
            tuners: dict[str, halves.Tuner] = {
                "grid": lambda merit: search.tune(merit, "grid"),
                f"optuna {trials}": lambda merit: search.tune(merit, "optuna", trials=trials, seed=seed),
                "untuned": lambda merit: fixed,
            }
            with Ledger(material, self.workers, self._ledger(modes)) as ledger:
                return halves.compare(
                    ledger, groups.of_corpus(self.corpus, part, self.bundle.classes), tuners, splits, seed
                )

    def _part(self) -> PartData:
        known = known_of(self.bundle)
        if self.corpus.summary.trains_on_validation or any(one.get("train_on_validation") for one in known.configs):
            raise EarwitnessError(
                f"{self.bundle.name}: was trained on the validation recordings, so it can't be tuned on them: tune the "
                "model of the phase before, and export this one with --decoding"
            )
        if self.bundle.classes != self.corpus.classes:
            raise EarwitnessError(f"{self.bundle.name} has other classes than {self.corpus.folder}")
        check_split(known, self.corpus.summary)
        part = self.corpus.part("validation", self.features, self.bundle.modalities)
        cache.check_specs(part.features, self.bundle.feature_specs, f"bundle {self.bundle.name}")
        return part

    def _ways(self, part: PartData, modes: Sequence[Mode]) -> dict[Mode, tuple[ClipPosteriors, ...]]:
        ways: dict[Mode, tuple[ClipPosteriors, ...]] = {}
        for mode in modes:
            if mode == "clip":
                ways[mode] = tuple(stored.posteriors(self.bundle.network(), part, progress=True))
            else:
                ways[mode] = tuple(stream_posteriors(self.bundle, part, progress=True))
        return ways

    def _ledger(self, modes: Sequence[Mode]) -> Path:
        return self.work / f"{'-'.join(modes)}-{LEDGER}"


def changes(before: Bundle, after: Bundle) -> str:
    """The decoding of every class before and after, and the validation scores."""
    lines = [f"{'class':28}{'onset':>16}{'offset':>16}{'median':>12}{'tag':>16}"]
    for label, old, new in zip(after.classes, before.decoding.per_class, after.decoding.per_class, strict=True):
        pairs = (
            (f"{old.onset_threshold:g}", f"{new.onset_threshold:g}", 16),
            (f"{old.offset_threshold:g}", f"{new.offset_threshold:g}", 16),
            (f"{old.median_cells}", f"{new.median_cells}", 12),
            (f"{old.tag_threshold:g}", f"{new.tag_threshold:g}", 16),
        )
        cells = [(one if one == two else f"{one} > {two}").rjust(width) for one, two, width in pairs]
        lines.append(f"{label:28}" + "".join(cells))
    for name, scores in after.scores.items():
        macro = ", ".join(f"{kind} {percent(scores[f'{kind}_f1_macro'])}" for kind in ("clip", "segment", "event"))
        lines.append(f"{name}, macro F1: {macro}")
    return "\n".join(lines)
