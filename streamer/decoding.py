"""The thresholds and filters with which posteriors become events, of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClassDecoding:
    """How one class's posteriors (0 to 1) become events. Raises `ValueError` if a number is out of range."""

    onset_threshold: float  # an event begins at the first filtered posterior that reaches it
    offset_threshold: float  # an event ends before the first one below it; at most `onset_threshold`
    median_cells: int  # length of the median filter, odd; 1: none
    tag_threshold: float = 0.5  # a clip has the class if its clip posterior reaches it

    def __post_init__(self) -> None:
        if not 0.0 < self.offset_threshold <= self.onset_threshold <= 1.0:
            raise ValueError(
                f"thresholds must be 0 < offset_threshold <= onset_threshold <= 1, "
                f"not {self.offset_threshold} and {self.onset_threshold}"
            )
        if not 0.0 < self.tag_threshold <= 1.0:
            raise ValueError(f"tag_threshold must be above 0 and at most 1, not {self.tag_threshold}")
        if self.median_cells < 1 or self.median_cells % 2 == 0:
            raise ValueError(f"median_cells must be odd and at least 1, not {self.median_cells}")


@dataclass(frozen=True, slots=True)
class Decoding:
    """The decoding of every class, in the order of the network's outputs. Raises `ValueError` if they don't match."""

    classes: tuple[str, ...]
    per_class: tuple[ClassDecoding, ...]

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.per_class):
            raise ValueError(f"{len(self.classes)} classes but decoding for {len(self.per_class)}")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must be one or more different names")


@dataclass(frozen=True, slots=True)
class Group:
    """Classes with the same median filter length: they are always decided up to the same cell."""

    median: int
    columns: NDArray[np.intp]
    onset: NDArray[np.float64]
    offset: NDArray[np.float64]


def grouped(decoding: Decoding) -> tuple[Group, ...]:
    """The classes by the length of their filter, the shortest first."""
    groups = []
    for length in sorted({one.median_cells for one in decoding.per_class}):
        columns = [index for index, one in enumerate(decoding.per_class) if one.median_cells == length]
        groups.append(
            Group(
                median=length,
                columns=np.array(columns, np.intp),
                onset=np.array([decoding.per_class[column].onset_threshold for column in columns]),
                offset=np.array([decoding.per_class[column].offset_threshold for column in columns]),
            )
        )
    return tuple(groups)
