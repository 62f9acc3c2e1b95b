"""Turns the media of one epoch into the cells of every modality, for both the stream's pipeline and training.

It also decides where an epoch ends, which no single extractor can know.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

from streamer.features.base import Extractor, ExtractorFactory
from streamer.types import CELL, SAMPLE_RATE_HZ, Cells, Chunk, Picture, cells_in


class StageTimer(Protocol):
    """Measures the time of each stage for the core, which reads no clock."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A context around one piece of work of the stage `name` (a modality)."""


class _NoTimer:
    def stage(self, name: str) -> AbstractContextManager[None]:
        del name
        return nullcontext()


@runtime_checkable
class _Sheddable(Protocol):
    """An extractor that can process fewer pictures."""

    stride: int


class Extraction:
    """The extractors of one epoch: `push` media, `flush` once at the end. Not for two threads at once."""

    def __init__(self, factories: Mapping[str, ExtractorFactory], timer: StageTimer | None = None) -> None:
        """`factories`: modality -> what makes its extractor; `timer` measures each modality."""
        self._factories = dict(factories)
        self._extractors: dict[str, Extractor] = {name: factory.new() for name, factory in factories.items()}
        self._timer = timer or _NoTimer()
        self._audio_ends: dict[int, int] = {}  # rate -> position after the last sample
        self._last_picture: int | None = None

    @property
    def begun(self) -> bool:
        """Whether there has been any media."""
        return bool(self._audio_ends) or self._last_picture is not None

    @property
    def cells(self) -> int:
        """Number of cells in the epoch so far: up to the end of its audio or, without audio, to its last picture."""
        if SAMPLE_RATE_HZ in self._audio_ends:
            return cells_in(self._audio_ends[SAMPLE_RATE_HZ])
        for rate_hz, end in self._audio_ends.items():
            return cells_in(end * SAMPLE_RATE_HZ // rate_hz)
        return self.picture_cells

    @property
    def picture_cells(self) -> int:
        """Number of cells up to the one with the last picture; 0 if there was none."""
        return 0 if self._last_picture is None else self._last_picture // CELL + 1

    def push(self, item: Chunk | Picture) -> list[tuple[str, Cells]]:
        """Process the next media, and return (modality, completed cells) of the extractors that want it.

        Media that no extractor wants counts too: audio at `SAMPLE_RATE_HZ` or, without it, at another rate decides
        where the epoch ends.
        """
        if isinstance(item, Picture):
            self._last_picture = item.at
        elif len(item.samples) == 0:
            return []
        else:
            self._audio_ends[item.rate_hz] = item.end
        done: list[tuple[str, Cells]] = []
        for name, extractor in self._extractors.items():
            if self._factories[name].want.takes(item):
                with self._timer.stage(name):
                    done.append((name, extractor.push(item)))
        return done

    def flush(self, cells: int) -> dict[str, Cells]:
        """End the media, and return modality -> all its remaining cells below `cells`."""
        last: dict[str, Cells] = {}
        for name, extractor in self._extractors.items():
            with self._timer.stage(name):
                last[name] = extractor.flush(cells)
        return last

    def shed(self, stride: int) -> None:
        """Process a picture every `stride` cells (1: all, 0: none). Extractors that can't shed ignore it."""
        for extractor in self._extractors.values():
            if isinstance(extractor, _Sheddable):
                extractor.stride = stride
