"""One run of an experiment, in a process of its own: train, score, and write the result."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from streamer.bundle import Bundle
from streamer.decoding import Decoding
from streamer.errors import EarwitnessError
from streamer.networks.forms import FusionNetwork
from streamer.replay.scoring import ClipCounts, count
from train import loop
from train.checkpoint import BEST
from train.config import FitConfig
from train.data.dataset import Corpus, PartData
from train.evaluation import groups, stored
from train.evaluation.stored import ClipPosteriors
from train.evaluation.streaming import stream_posteriors
from train.experiment import result
from train.experiment.config import Mode, ScoringConfig
from train.export import load_network
from train.files import replace
from train.tuning import search
from train.tuning.ledger import Ledger, Material
from train.tuning.merit import Merit, groups_in

OUTPUT, FAILED, PROGRESS = "output.txt", "failed.txt", "progress.json"
"""What a run prints; why it failed, in one line; how far it is."""
_TELL_S = 2.0
_MEASURED_STEPS = 200
WARM_UP_STEPS = 2
"""The first steps of a process allocate memory and tune kernels."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a process needs to carry out a run. It can be pickled, so the process may be on another machine."""

    row: str
    seed: int
    settings: FitConfig
    scoring: ScoringConfig
    corpus: Path
    features: Path
    folder: Path


class Progress(msgspec.Struct, frozen=True):
    """`progress.json`: how far a run is."""

    step: int
    steps: int
    step_s: float | None  # median seconds of the newest steps; None: too few yet
    seconds: float  # of work in this run, over all starts


def read_progress(folder: Path) -> Progress | None:
    """How far the run in `folder` is; None if it has not begun, or was killed while it wrote that."""
    try:
        return msgspec.json.decode((folder / PROGRESS).read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError):
        return None


@dataclass(slots=True)
class StepClock:
    """Measures training steps, and tells how far they are."""

    folder: Path
    steps: int
    before_s: float  # seconds of work of earlier starts
    _started_s: float = field(default_factory=time.monotonic)
    _last_s: float | None = None
    _told_s: float = 0.0
    _skip: int = WARM_UP_STEPS
    _durations_s: deque[float] = field(default_factory=lambda: deque(maxlen=_MEASURED_STEPS))

    def __call__(self, step: int) -> None:
        """A step is done. The median is not moved by the few after which the network was validated or saved."""
        now_s = time.monotonic()
        if self._last_s is not None:
            if self._skip:
                self._skip -= 1
            else:
                self._durations_s.append(now_s - self._last_s)
        self._last_s = now_s
        if now_s - self._told_s >= _TELL_S or step == self.steps:
            self._told_s = now_s
            self.tell(step)

    @property
    def step_s(self) -> float | None:
        """Median seconds of a step; None if none was measured."""
        return median(self._durations_s) if self._durations_s else None

    @property
    def seconds(self) -> float:
        """Of work in this run, over all starts."""
        return self.before_s + time.monotonic() - self._started_s

    def tell(self, step: int) -> None:
        """Write `progress.json` atomically."""
        replace(self.folder / PROGRESS, msgspec.json.encode(Progress(step, self.steps, self.step_s, self.seconds)))


def perform(job: Job) -> None:
    """Train the run, or resume it, score it and write its result; what it prints goes to `output.txt`.

    If it fails, `failed.txt` says why, and the process ends with exit code 1.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    _print_to(job.folder / OUTPUT)
    (job.folder / FAILED).unlink(missing_ok=True)
    try:
        _perform(job)
    except (EarwitnessError, OSError) as error:
        (job.folder / FAILED).write_text(" ".join(str(error).split()) + "\n")
        sys.exit(1)


def time_steps(job: Job, clock: StepClock) -> None:
    """Train as many steps as `clock` is to measure, and leave only its `progress.json`; errors as in `perform`."""
    job.folder.mkdir(parents=True, exist_ok=True)
    _print_to(job.folder / OUTPUT)

    def tick(step: int) -> None:
        clock(step)
        if step == clock.steps:
            raise _Measured

    try:
        loop.fit(Corpus.read(job.corpus), job.features, job.folder, job.settings, progress=tick)
    except _Measured:
        pass
    except (EarwitnessError, OSError) as error:
        (job.folder / FAILED).write_text(" ".join(str(error).split()) + "\n")
        sys.exit(1)


class _Measured(Exception):  # noqa: N818
    """Ends training: enough steps were measured."""


def _perform(job: Job) -> None:
    earlier = read_progress(job.folder)
    clock = StepClock(job.folder, job.settings.steps, earlier.seconds if earlier else 0.0)
    corpus = Corpus.read(job.corpus)
    loop.fit(corpus, job.features, job.folder, job.settings, progress=clock)
    modalities = job.settings.modalities
    network, step = load_network(
        job.folder / BEST, len(corpus.classes), modalities, job.settings.network, job.settings.stream
    )
    parts = {part: corpus.part(part, job.features, modalities) for part in _parts(job.scoring)}
    scorer = _Scorer(network, corpus, parts, job)
    decoding = scorer.decoding()
    keys = [(part, mode) for part in parts for mode in scorer.modes(part)]
    counted = {f"{part}/{mode}": scorer.counts(part, mode, decoding) for part, mode in keys}
    done = result.Result(
        row=job.row,
        seed=job.seed,
        settings=job.settings.model_dump(mode="json"),
        scoring=job.scoring.model_dump(mode="json"),
        step=step,
        step_s=clock.step_s if clock.step_s is not None else earlier.step_s if earlier else None,
        seconds=clock.seconds,
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        decoding={
            label: {
                "onset_threshold": one.onset_threshold,
                "offset_threshold": one.offset_threshold,
                "median_cells": one.median_cells,
                "tag_threshold": one.tag_threshold,
            }
            for label, one in zip(decoding.classes, decoding.per_class, strict=True)
        },
        scores={key: one.report().json() for key, one in counted.items()},
    )
    clock.tell(job.settings.steps)
    result.write(
        job.folder,
        done,
        counted,
        {part: groups.of_corpus(corpus, data, corpus.classes) for part, data in parts.items()},
    )


PartName = Literal["validation", "test"]


def _parts(scoring: ScoringConfig) -> tuple[PartName, ...]:
    """Validation scores select runs, whatever part is compared."""
    return ("validation",) if scoring.part == "validation" else ("validation", "test")


@dataclass(frozen=True, slots=True)
class _Scorer:
    """Scores a trained network on parts of a corpus."""

    network: FusionNetwork
    corpus: Corpus
    parts: Mapping[PartName, PartData]
    job: Job

    def modes(self, part: PartName) -> tuple[Mode, ...]:
        """The modes in which a part is scored."""
        scoring = self.job.scoring
        return scoring.modes if part == scoring.part else (scoring.selects_by,)

    def decoding(self) -> Decoding:
        """Untuned, or tuned on the validation clips in the modes in which they are compared."""
        plain = stored.untuned(self.corpus.classes, self.job.settings)
        if self.job.scoring.decoding == "untuned":
            return plain
        validation = self.parts["validation"]
        assert validation.truth is not None
        ways = tuple(tuple(self._posteriors("validation", mode, plain)) for mode in self.job.scoring.modes)
        with Ledger(Material(ways, validation.truth, self.corpus.classes), workers=1) as ledger:
            return search.tune(Merit(ledger, groups_in(self.corpus.summary, "validation")))

    def counts(self, part: PartName, mode: Mode, decoding: Decoding) -> ClipCounts:
        """The counts of every clip of a part."""
        truth = self.parts[part].truth
        assert truth is not None
        clips = self._posteriors(part, mode, decoding)
        durations_s = {clip.name: clip.duration_s for clip in clips}
        return count(truth, stored.predict(clips, decoding), decoding.classes, durations_s)

    def _posteriors(self, part: PartName, mode: Mode, decoding: Decoding) -> list[ClipPosteriors]:
        data, settings = self.parts[part], self.job.settings
        if mode == "clip":
            return stored.posteriors(self.network, data)
        specs = {name: spec for name, spec in data.features.specs.items() if name in settings.modalities}
        return stream_posteriors(
            Bundle("run", specs, decoding, self.network.state_dict(), stream=settings.stream), data
        )


def _print_to(path: Path) -> None:
    """Send what this process and its children print to a file: several runs on one terminal can't be read."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
