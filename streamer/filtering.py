"""The array operations of event decoding: holding scores over holes, the median filter, the threshold pair."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from streamer.types import Bools, Floats


def filtered(scores: Floats, covered: Bools, median_cells: int) -> Floats:
    """The filtered posteriors (n, classes) that `EventTracker` compares with the thresholds, for consecutive cells.

    `scores` (n, classes) and `covered` (n,) are those of the cells. A cell whose filter reaches beyond them is NaN.
    """
    out = np.full(scores.shape, np.nan, np.float32)
    half = median_cells // 2
    if len(scores) >= median_cells:
        rows = held(scores, covered, np.zeros(scores.shape[1], np.float32))
        out[half : len(scores) - half] = median(rows, median_cells)
    return out


def held(scores: Floats, covered: Bools, before: Floats) -> Floats:
    """`scores` (n, classes) with each uncovered row replaced by the last covered one before it, or by `before`."""
    if covered.all():
        return scores
    rows = np.concatenate((before[None], scores))
    newest = np.maximum.accumulate(np.where(covered, np.arange(1, len(scores) + 1), 0))
    return rows[newest]


def median(rows: Floats, length: int) -> Floats:
    """Running medians over `length` (odd) rows of (n + length - 1, classes): (n, classes), without interpolation."""
    if length == 1:
        return rows
    half = length // 2
    medians: Floats = np.partition(sliding_window_view(rows, length, axis=0), half, axis=-1)[..., half]
    return medians


def triggered(scores: Floats, onset: NDArray[np.float64], offset: NDArray[np.float64], was: Bools) -> Bools:
    """Hysteresis: active from a row that reaches `onset` until one below `offset`; `was` is the state before."""
    says_on = scores >= onset
    says = np.concatenate((np.ones((1, len(was)), bool), says_on | (scores < offset)))
    newest = np.maximum.accumulate(np.where(says, np.arange(len(says))[:, None], 0), axis=0)
    return np.take_along_axis(np.concatenate((was[None], says_on)), newest, axis=0)[1:]
