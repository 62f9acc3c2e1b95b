"""When an event is raised before its cells are decided, and where it began: both from a run's newest posteriors."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from streamer.filtering import held, median, triggered
from streamer.types import Bools, Floats, NewestScores

BACKDATE_CELLS = 8
"""An onset is at most this much (0.53 s) before the cell that raised the event. (With lookaheads of 4, 8 and 15 cells
any limit from 8 to 60 gives the same event F1 within 0.3 points on 150 clips; a low one keeps onsets from lying far in
the past.)"""

EARLY_CELLS = 5
"""An event is raised early by so many cells in a row, 0.33 s. (With 3 to 7 cells event F1 was the same within 0.4
points on 600 clips; fewer raise more false alarms, more come later.)"""
NOT_EARLY = 1.0
"""The early threshold that no event is raised by."""


def sure_runs(scores: Floats, thresholds: NDArray[np.float64]) -> Bools:
    """Whether `EARLY_CELLS` cells in a row reach the thresholds, (m, columns), by the first of them.

    `scores`: (n, columns), of consecutive cells.
    """
    if len(scores) < EARLY_CELLS:
        return np.zeros((0, scores.shape[1]), np.bool_)
    runs: Bools = sliding_window_view(scores >= thresholds, EARLY_CELLS, axis=0).min(axis=-1)
    return runs


def beginning(
    newest: NewestScores, column: int, thresholds: tuple[float, float], length: int, trigger: int, not_before: int
) -> int:
    """The first cell of the run of active cells in which `trigger` is, by the newest posteriors of one class.

    It is `trigger` itself if they do not have the event there.

    Args:
        newest: of the run of the network that raised the event.
        column: of the class.
        thresholds: for onset and offset.
        length: of the median filter, odd.
        trigger: the cell that raised the event.
        not_before: the first cell that it may be.

    """
    half = length // 2
    if not newest.start <= trigger < newest.stop:
        return trigger
    # The filter is zero-padded at the ends of the epoch only.
    first = max(newest.start + half if newest.start else 0, not_before)
    if first >= trigger:
        return trigger
    rows = held(newest.scores[:, column : column + 1], newest.covered, np.zeros(1, np.float32))
    rows = np.pad(rows, ((half, half), (0, 0)))[first - newest.start : trigger + 1 - newest.start + 2 * half]
    on, off = (np.array([one]) for one in thresholds)
    active = triggered(median(rows, length), on, off, np.zeros(1, np.bool_))[:, 0]
    if not active[-1]:
        return trigger
    quiet = np.flatnonzero(~active)
    return first + (int(quiet[-1]) + 1 if len(quiet) else 0)
