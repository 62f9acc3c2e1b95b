"""Cells of an audio network that takes a patch of samples around each cell."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from streamer.types import CELL, SAMPLE_RATE_HZ, WINDOW_CELLS, Cells, Chunk, Floats, Picture

BATCH = 8
"""Cells that go through the network together, starting at multiples of it. The rounding of a matrix product depends on
its number of rows: with the same cells in the same batches, every chunking gives the same bits."""


class PatchFactory(Protocol):
    """What an extractor of patches needs of its factory."""

    name: str
    shape: tuple[int, ...]
    rate_hz: int
    patch: int  # samples of one patch
    every_cells: int  # so many cells, from a multiple of it on, share a patch; a divisor of BATCH

    def patch_start(self, cell: int) -> int:
        """Position at `rate_hz` of the first sample of the patch of the cells from `cell`; negative at the start."""

    def embed(self, patches: Floats) -> Floats:
        """(B, patch) samples to (B, *shape), B = 8 / every_cells."""


class PatchExtractor:
    """Patch cells of one epoch.

    The epoch is zero-padded at both ends. A cell is not valid if its patch touches a hole in the audio or begins
    after its end, or if its centre lies after the end of the audio.
    """

    def __init__(self, factory: PatchFactory) -> None:
        self._factory = factory
        self._runs: list[tuple[int, Floats]] = []  # contiguous audio that is still needed: (position, samples)
        self._end = 0  # position after the last sample
        self._next = 0  # the next cell to be returned; a multiple of BATCH until the end

    def push(self, item: Chunk | Picture) -> Cells:
        """Process audio at the factory's rate and return the batches of cells that it completes.

        Raises:
            ValueError: the item is a picture, has another rate, or overlaps the previous one.

        """
        if not isinstance(item, Chunk) or item.rate_hz != self._factory.rate_hz:
            raise ValueError(f"{self._factory.name} cells are made from audio at {self._factory.rate_hz} Hz")
        if item.start < self._end:
            raise ValueError(f"audio from {item.start} overlaps audio up to {self._end}")
        if len(item.samples):
            if self._runs and item.start == self._end:
                start, samples = self._runs.pop()
                self._runs.append((start, np.concatenate([samples, item.samples])))
            else:
                self._runs.append((item.start, item.samples))
            self._end = item.end
        stop, last = self._next, BATCH - self._factory.every_cells
        while self._factory.patch_start(stop + last) + self._factory.patch <= self._end:
            stop += BATCH
        return self._give(stop)

    def flush(self, cells: int) -> Cells:
        """Pad the end with zeros and return all remaining cells below `cells`; those after the audio are not valid."""
        return self._give(max(cells, self._next))

    def _give(self, stop: int) -> Cells:
        start, every = self._next, self._factory.every_cells
        values = np.zeros((stop - start, *self._factory.shape), np.float32)
        valid = np.zeros(stop - start, np.bool_)
        for first in range(start, stop, BATCH):
            # The last batch of an epoch is as large as the others: its cells must have the same bits.
            patches = np.zeros((BATCH // every, self._factory.patch), np.float32)
            sharing = [range(cell, min(cell + every, stop)) for cell in range(first, min(first + BATCH, stop), every)]
            known = [self._cut(cells.start, patches[row]) for row, cells in enumerate(sharing)]
            if any(known):
                embedded = self._factory.embed(patches)
                for row in np.flatnonzero(known):
                    heard = [cell - start for cell in sharing[row] if self._centre_is_there(cell)]
                    values[heard], valid[heard] = embedded[row], True
        self._next = stop
        needed = self._factory.patch_start(stop)
        self._runs = [
            (begin, samples) if begin >= needed else (needed, samples[needed - begin :].copy())
            for begin, samples in self._runs
            if begin + len(samples) > needed
        ]
        return Cells(start, values, valid)

    def _cut(self, cell: int, patch: Floats) -> bool:
        """Fill `patch` with the samples of the cells from `cell`; False if some are missing."""
        start = self._factory.patch_start(cell)
        first, last = (
            max(start, 0),
            min(start + self._factory.patch, self._end),
        )  # the padding outside the epoch stays zero
        if start >= self._end or not self._centre_is_there(cell):
            return False
        for begin, samples in self._runs:
            if begin <= first and last <= begin + len(samples):
                patch[first - start : last - start] = samples[first - begin : last - begin]
                return True
        return False

    def _centre_is_there(self, cell: int) -> bool:
        return centre(cell, self._factory.rate_hz) < self._end


def centre(cell: int, rate_hz: int) -> int:
    """Position of a cell's centre at `rate_hz`, to the nearest sample."""
    return at_rate(cell * CELL + CELL // 2, rate_hz)


def paper_hop(rate_hz: int) -> int:
    """Samples between the paper's chunks: 960 ms with an overlap of 900 ms (paper section 4.2)."""
    return rate_hz * 60 // 1000


def paper_start(cell: int, rate_hz: int) -> int:
    """Position of the first sample of the paper's chunk of a cell: cell k has chunk k of 10 s, up to 474 ms off.

    In a longer stream the count restarts with every window's worth of cells; otherwise the chunks would fall behind
    without limit.
    """
    window, chunk = divmod(cell, WINDOW_CELLS)
    return at_rate(window * WINDOW_CELLS * CELL, rate_hz) + chunk * paper_hop(rate_hz)


def at_rate(sample: int, rate_hz: int) -> int:
    """A master-clock position at `rate_hz`, to the nearest sample; in integers, so that nothing drifts."""
    return (2 * sample * rate_hz + SAMPLE_RATE_HZ) // (2 * SAMPLE_RATE_HZ)
