"""A small corpus, its features, a model, and a report of `earwitness-train evaluate` about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from streamer.bundle import Bundle
from streamer.replay.truth import strong_tsv
from tests.models import seeded_bundle
from tests.train.test_cache import features, make_corpus
from train import cli
from train.data.dataset import Corpus
from train.evaluation.stored import posteriors, predict

SCRIPT = "<script>alert(1)</script>"
"""A class whose name is harmful where it is not escaped."""
IMAGE = "<img src=x onerror=alert(2)>&quot;.flac"
"""A clip with such a name."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `evaluate` needs."""

    corpus: Path
    features: Path
    bundle: Path

    def command(self, report: Path, *more: str) -> list[str]:
        """`evaluate --report`."""
        return [
            "evaluate", str(self.corpus), str(self.features), "--model", str(self.bundle), "--report", str(report),
            "--workers", "1", "--draws", "50", *more,
        ]  # fmt: skip


def prepare(folder: Path, *, harmful: bool = False, clips: int = 5) -> Prepared:
    """A corpus of clips of 6 s with two classes, and a model for it, whose lookahead fits."""
    corpus = make_corpus(
        folder,
        clip_s=6.0,
        clips={"train": 1, "weak": 1, "unlabeled": 1, "validation": 1, "test": clips},
        events={1: 0.5, 2: 0.5},
    )
    classes = ("Cat", "Dog")
    assert features(corpus, folder / "features") == 0
    specs = Corpus.read(corpus).part("test", folder / "features", ["spectral"]).features.specs
    bundle = replace(seeded_bundle(classes=classes, window_cells=90), feature_specs=specs)
    _find(corpus, folder / "features", bundle)
    if harmful:
        classes = (SCRIPT, "Dog")
        for path in [*(corpus / "metadata").iterdir(), corpus / "corpus.json"]:
            path.write_text(path.read_text().replace("Cat", SCRIPT).replace("test_00000.flac", IMAGE))
        (corpus / "audio" / "test" / "test_00000.flac").rename(corpus / "audio" / "test" / IMAGE)
    decoding = replace(bundle.decoding, classes=classes)
    replace(bundle, decoding=decoding).save(folder / "bundle")
    return Prepared(corpus, folder / "features", folder / "bundle")


def _find(corpus: Path, stored: Path, bundle: Bundle) -> None:
    """Make true what the model, which is not trained, finds in all clips but the last: so it finds something."""
    part = Corpus.read(corpus).part("test", stored, bundle.modalities)
    assert part.truth is not None
    found = {name: one.events for name, one in predict(posteriors(bundle.network(), part), bundle.decoding).items()}
    found[part.rows[-1]] = part.truth.events[part.rows[-1]]
    (corpus / "metadata" / "test.tsv").write_text(strong_tsv(found))


def evaluated(folder: Path, *more: str, harmful: bool = False) -> Path:
    """The folder of a report."""
    assert cli.main(prepare(folder, harmful=harmful).command(folder / "report", *more)) == 0
    return folder / "report"
