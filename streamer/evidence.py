"""The scores that raised and ended an event, kept so that the event can be explained later."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from streamer.decoding import Decoding
from streamer.types import Bools, CellScores, Floats, NewestScores

OUTSIDE_CELLS = 45
"""Cells of evidence before an onset and after an offset: 3 s."""
INSIDE_CELLS = 151
"""Cells of evidence after an onset and before an offset: 10 s."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The posteriors of consecutive cells around an onset or an offset, and how they were decoded."""

    decoding: Decoding
    start: int  # index of the first cell in the epoch
    scores: Floats  # (n, classes)
    covered: Bools  # (n,)
    newest: NewestScores | None = None  # those that dated the onset, and raised it if it is early; None: neither
    newest_until: int = 0  # they did so for the cells before this one


class ScoreHistory:
    """The posteriors of an epoch's newest cells: `push` them in order, then query the evidence of an event."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._scores: list[CellScores] = []
        self._newest: NewestScores | None = None
        self._margin = max(one.median_cells for one in decoding.per_class) // 2

    def push(self, scores: CellScores) -> None:
        """Accept the next cells. Cells that are too old for any evidence are dropped."""
        self._scores.append(replace(scores, newest=None))
        self._newest = scores.newest
        while len(self._scores) > 1 and self._scores[1].start <= scores.start - 2 * INSIDE_CELLS:
            del self._scores[0]

    def of_onset(self, cell: int, trigger: int, *, early: bool) -> Evidence:
        """From 3 s before the onset at `cell` to the newest cell, at most 10 s after it; just raised at `trigger`."""
        evidence = self._between(cell - OUTSIDE_CELLS, cell + INSIDE_CELLS)
        newest, until = self._newest, trigger + early  # the scores of an early trigger are not final
        if newest is None or cell == until:
            return evidence
        start = max(cell - OUTSIDE_CELLS, newest.start)
        part = slice(start - newest.start, trigger + self._margin + 1 - newest.start)
        return replace(
            evidence, newest=NewestScores(start, newest.scores[part], newest.covered[part]), newest_until=until
        )

    def of_offset(self, cell: int) -> Evidence:
        """From 10 s before the offset at `cell` to the newest cell, at most 3 s after it."""
        return self._between(cell - INSIDE_CELLS, cell + OUTSIDE_CELLS)

    def _between(self, start: int, stop: int) -> Evidence:
        """The evidence of those of these cells that are kept."""
        parts = [one for one in self._scores if one.start + len(one.scores) > start and one.start < stop]
        first = parts[0].start if parts else start
        known = slice(max(start - first, 0), stop - first)
        scores = [one.scores for one in parts] or [np.empty((0, 0), np.float32)]
        covered = [one.covered for one in parts] or [np.empty(0, np.bool_)]
        return Evidence(
            self._decoding, first + known.start, np.concatenate(scores)[known], np.concatenate(covered)[known]
        )
