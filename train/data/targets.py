"""Annotations as targets on the cell grid."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamer.errors import TruthError
from streamer.timeline import samples
from streamer.types import CELL, Floats


def strong(path: Path, names: Sequence[str], classes: Sequence[str], cells: int) -> Floats:
    """(clips, cells, classes) of 0 and 1: a cell is active when an event covers its centre.

    An event too short to cover a centre is given the cell that holds its middle.

    Raises:
        TruthError: the file can't be read, or names a class that is not in `classes`.

    """
    targets = np.zeros((len(names), cells, len(classes)), np.float32)
    row_of = {name: row for row, name in enumerate(names)}
    for row in _rows(path):
        if row["filename"] in row_of and row["event_label"]:
            onset, offset = samples(float(row["onset"])), samples(float(row["offset"]))
            first, stop = -(-(onset - CELL // 2) // CELL), -(-(offset - CELL // 2) // CELL)
            if stop <= first:
                first = (onset + offset) // 2 // CELL
                stop = first + 1
            targets[row_of[row["filename"]], max(first, 0) : stop, _index(row["event_label"], classes, path)] = 1
    return targets


def weak(path: Path, names: Sequence[str], classes: Sequence[str]) -> Floats:
    """(clips, classes) of 0 and 1 from comma-separated labels.

    Raises:
        TruthError: as for `strong`.

    """
    targets = np.zeros((len(names), len(classes)), np.float32)
    labels: dict[str, list[str]] = defaultdict(list)
    for row in _rows(path):
        labels[row["filename"]] += [label for label in row["event_labels"].split(",") if label]
    for index, name in enumerate(names):
        for label in labels[name]:
            targets[index, _index(label, classes, path)] = 1
    return targets


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        raise TruthError(f"{path}: can't be read: {error.strerror}") from None


def _index(label: str, classes: Sequence[str], path: Path) -> int:
    if label not in classes:
        raise TruthError(f"{path}: has the class {label!r}, the model's are {', '.join(classes)}")
    return classes.index(label)
