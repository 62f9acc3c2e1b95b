"""Computes the features of clips in worker processes, and measures what a few of them take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import EarwitnessError
from streamer.features.base import ExtractorFactory
from streamer.types import Bools
from train.data.clip import clip_cells
from train.data.hashes import media_sha256
from train.data.store import Number, Numbers, narrowed
from train.workers import pool

READING = ""
"""Stands for reading a clip, among the modalities that time is spent on."""


@dataclass(frozen=True, slots=True)
class Job:
    """A clip, and the modalities that are to be computed."""

    path: Path
    sha256: str
    modalities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Computed:
    """The features of a clip, as they are stored, and the time that they took."""

    values: Mapping[str, Numbers]  # modality -> (cells, ...)
    valid: Mapping[str, Bools]  # modality -> (cells,)
    cells: int
    picture_cells: int
    seconds: Mapping[str, float]  # modality, or READING, -> processing time
    warm: bool  # the worker had computed another clip before: the first one takes longer


@contextmanager
def computing(
    workers: int, factories: Callable[[], Mapping[str, ExtractorFactory]], numbers: Mapping[str, Number]
) -> Iterator[Callable[[Sequence[Job]], Iterator[Computed | str]]]:
    """Worker processes, as a function from jobs to their results, in the same order; a string says what went wrong.

    Args:
        workers: number of processes.
        factories: makes the extractors, in each process.
        numbers: modality -> type of its stored numbers.

    Raises:
        EarwitnessError: a worker was killed.

    """
    with pool(workers, _begin, (factories, numbers)) as processes:
        yield lambda jobs: _each(processes, jobs)


def _each(processes: ProcessPoolExecutor, jobs: Sequence[Job]) -> Iterator[Computed | str]:
    return processes.map(_compute, jobs)


class _Worker:
    """State of a worker process: networks are loaded once per process, not once per clip."""

    factories: Mapping[str, ExtractorFactory]
    numbers: Mapping[str, Number]
    warm = False


def _begin(factories: Callable[[], Mapping[str, ExtractorFactory]], numbers: Mapping[str, Number]) -> None:
    _Worker.factories, _Worker.numbers = factories(), numbers


class _Stopwatch:
    """Adds up the time of each modality. See `StageTimer`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] += time.monotonic() - started


def _compute(job: Job) -> Computed | str:
    started, watch = time.monotonic(), _Stopwatch()
    try:
        clip = clip_cells(job.path, {name: _Worker.factories[name] for name in job.modalities}, watch)
        if media_sha256(job.path) != job.sha256:
            return f"{job.path}: changed while it was being read: run the command again"
    except EarwitnessError as error:
        return str(error)
    values: dict[str, Numbers] = {}
    for name, one in clip.values.items():
        try:
            values[name] = narrowed(one, _Worker.numbers[name])
        except ValueError as error:
            return f"{job.path}: its {name} {error}: is it very loud, or damaged?"
    whole = time.monotonic() - started
    seconds = {**watch.seconds, READING: whole - sum(watch.seconds.values())}
    warm, _Worker.warm = _Worker.warm, True
    return Computed(values, clip.valid, clip.cells, clip.picture_cells, seconds, warm)
