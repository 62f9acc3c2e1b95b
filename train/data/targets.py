"""Annotations as targets on the cell grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamer.replay.truth import Truth
from streamer.timeline import samples
from streamer.types import CELL, Floats


def strong(truth: Truth, rows: Sequence[str], classes: Sequence[str], cells: int) -> Floats:
    """(clips, cells, classes) of 0 and 1: a cell is active when an event covers its centre.

    An event too short to cover a centre activates the cell that contains its middle.

    Args:
        truth: annotations with times.
        rows: each clip's name in the truth.
        classes: in the order of the model's outputs; the truth has no others (`Truth.check_classes`).
        cells: of the longest clip.

    """
    targets = np.zeros((len(rows), cells, len(classes)), np.float32)
    for index, row in enumerate(rows):
        for event in truth.events[row]:
            onset, offset = samples(event.onset_s), samples(event.offset_s)
            first, stop = -(-(onset - CELL // 2) // CELL), -(-(offset - CELL // 2) // CELL)
            if stop <= first:
                first = (onset + offset) // 2 // CELL
                stop = first + 1
            targets[index, max(first, 0) : stop, classes.index(event.label)] = 1
    return targets


def weak(truth: Truth, rows: Sequence[str], classes: Sequence[str]) -> Floats:
    """(clips, classes) of 0 and 1: whether each class occurs anywhere in the clip. Arguments as for `strong`."""
    targets = np.zeros((len(rows), len(classes)), np.float32)
    for index, row in enumerate(rows):
        for label in truth.tags[row]:
            targets[index, classes.index(label)] = 1
    return targets
