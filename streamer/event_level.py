"""The level of an event, and how far it exceeds the background before the event.

Measured on the mono audio that the model receives, per cell, as mean power without the DC component.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.media.level import dbfs
from streamer.types import CELL, SAMPLE_RATE_HZ, Chunk, Floats

BACKGROUND_CELLS = 151
"""The background is measured over the 10 s before an onset."""
_LEAST_BACKGROUND_CELLS = 15
"""With less than 1 s of audio before the onset the background is unknown."""
_BACKGROUND_SHARE = 0.1
"""The background is the level that 90 % of its cells exceed: L90, as defined in acoustics (ISO 1996-2). A mean or
median would include earlier events in the background."""


@dataclass(frozen=True, slots=True)
class EventLevel:
    """The level of an event: up to now, or of the whole event."""

    level_dbfs: float  # mean power of its cells in dB of full scale; -150: digital silence
    over_background_db: float | None  # above the background before the onset; None: unknown


class CellPowers:
    """The power of an epoch's newest cells: `push` its audio, then query `level`. Not thread-safe.

    The result does not depend on how the audio is divided into chunks.
    """

    def __init__(self, rate_hz: int, keep_cells: int) -> None:
        """Measure the audio at `rate_hz`. Keep the `keep_cells` newest cells, and `BACKGROUND_CELLS` before them."""
        self._rate_hz = rate_hz
        self._keep = keep_cells + BACKGROUND_CELLS
        self._base = 0  # index of the first kept cell
        self._powers: NDArray[np.float64] = np.empty(256)
        self._count = 0
        self._pieces: list[Floats] = []  # of the incomplete cell

    def push(self, chunk: Chunk) -> None:
        """Accept audio. Chunks at another rate contain the same sound resampled, and are ignored."""
        if chunk.rate_hz != self._rate_hz:
            return
        position, samples = chunk.start, chunk.samples
        while len(samples):
            while position >= self._end(self._base + self._count):
                self._complete()
            taken = samples[: self._end(self._base + self._count) - position]
            self._pieces.append(taken)
            position, samples = position + len(taken), samples[len(taken) :]
        if position == self._end(self._base + self._count):
            self._complete()

    def level(self, start: int, stop: int) -> EventLevel | None:
        """The level of the cells from `start` to before `stop`; None if none of them has audio or is kept."""
        power = self._mean(start, stop)
        if power is None:
            return None
        before = self._between(start - BACKGROUND_CELLS, start)
        level_dbfs = dbfs(math.sqrt(power))
        if len(before) < _LEAST_BACKGROUND_CELLS:
            return EventLevel(level_dbfs, None)
        background = float(np.quantile(before, _BACKGROUND_SHARE, method="lower"))
        return EventLevel(level_dbfs, level_dbfs - dbfs(math.sqrt(background)))

    def _mean(self, start: int, stop: int) -> float | None:
        powers = self._between(start, stop)
        return float(powers.mean()) if len(powers) else None

    def _between(self, start: int, stop: int) -> NDArray[np.float64]:
        """The known powers of these cells."""
        first, last = max(start - self._base, 0), min(stop - self._base, self._count)
        powers = self._powers[first : max(last, first)]
        return powers[~np.isnan(powers)]

    def _end(self, cell: int) -> int:
        """The first sample after `cell`, at the audio's rate."""
        return -(-(cell + 1) * CELL * self._rate_hz // SAMPLE_RATE_HZ)

    def _complete(self) -> None:
        """Finish the current cell. Without any samples its power is unknown (NaN)."""
        power = float("nan")
        if self._pieces:
            power = float(np.concatenate(self._pieces).astype(np.float64).var())
            self._pieces = []
        if self._count == len(self._powers):
            self._make_room()
        self._powers[self._count] = power
        self._count += 1

    def _make_room(self) -> None:
        """Drop the oldest cells that need not be kept; double the array if that frees too little."""
        kept = self._powers[max(self._count - self._keep, 0) : self._count]
        self._base += self._count - len(kept)
        self._count = len(kept)
        grown = np.empty(max(2 * len(kept), 256))
        grown[: len(kept)] = kept
        self._powers = grown
