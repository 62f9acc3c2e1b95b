"""How loud an event is, and how far it stands out from what was heard before it.

Measured on the mono audio that the model hears, cell by cell, as mean power without a constant offset (DC).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.media.level import FLOOR_DBFS
from streamer.types import CELL, SAMPLE_RATE_HZ, Chunk, Floats

BACKGROUND_CELLS = 151
"""The background is measured over the 10 s before an onset."""
_LEAST_BACKGROUND_CELLS = 15
"""With less than a second before the onset, nothing is said of the background."""
_BACKGROUND_SHARE = 0.1
"""The background is the level that 90 % of its cells exceed: L90, as acoustics uses it (ISO 1996-2). A mean or a
median would count earlier events as background."""


@dataclass(frozen=True, slots=True)
class EventLevel:
    """The level of an event, so far or in all."""

    level_dbfs: float  # mean power of its cells in dB of full scale; -150: digital silence
    over_background_db: float | None  # how far above the background before the onset; None: too little was heard


class CellPowers:
    """The power of an epoch's newest cells: `push` its audio, ask for `level`. Not thread-safe.

    The result does not depend on how the audio is cut into chunks.
    """

    def __init__(self, rate_hz: int, keep_cells: int) -> None:
        """Measures the audio of `rate_hz`. Keeps the `keep_cells` newest cells, and `BACKGROUND_CELLS` before them."""
        self._rate_hz = rate_hz
        self._keep = keep_cells + BACKGROUND_CELLS
        self._base = 0  # cell of the first kept power
        self._powers: NDArray[np.float64] = np.empty(256)
        self._count = 0
        self._pieces: list[Floats] = []  # of the cell that is not complete

    def push(self, chunk: Chunk) -> None:
        """Take in audio; of another rate it is the same sound once more, and is ignored."""
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
        """The level of the cells from `start` to before `stop`; None if no audio of them is known (any more)."""
        power = self._mean(start, stop)
        if power is None:
            return None
        before = self._between(start - BACKGROUND_CELLS, start)
        level_dbfs = _dbfs(power)
        if len(before) < _LEAST_BACKGROUND_CELLS:
            return EventLevel(level_dbfs, None)
        background = float(np.quantile(before, _BACKGROUND_SHARE, method="lower"))
        return EventLevel(level_dbfs, level_dbfs - _dbfs(background))

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
        """The cell after the kept ones is over; without any sample its power is unknown."""
        power = float("nan")
        if self._pieces:
            power = float(np.concatenate(self._pieces).astype(np.float64).var())
            self._pieces = []
        if self._count == len(self._powers):
            self._make_room()
        self._powers[self._count] = power
        self._count += 1

    def _make_room(self) -> None:
        """Forget the oldest beyond what is kept, or take twice the memory."""
        kept = self._powers[max(self._count - self._keep, 0) : self._count]
        self._base += self._count - len(kept)
        self._count = len(kept)
        grown = np.empty(max(2 * len(kept), 256))
        grown[: len(kept)] = kept
        self._powers = grown


def _dbfs(power: float) -> float:
    return max(10 * float(np.log10(power)), FLOOR_DBFS) if power > 0 else FLOOR_DBFS
