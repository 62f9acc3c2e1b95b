"""What an extractor is. Adding one is a file in this folder and a line in `EXTRACTORS`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any, Protocol

from streamer.types import Cells, Chunk, Picture, Want

FEATURES_VERSION = 1
"""Raise it when an extractor, or what decodes media for it, computes other values from the same spec: stored features
of another version are not used again."""


class Extractor(Protocol):
    """The state of one modality in one epoch of one stream: `push` and `flush`, cells come out in order.

    Every cell from 0 on comes out exactly once, whatever the chunking; a cell that could not be
    computed (a hole in the media, no picture) comes out with `valid` False.
    """

    def push(self, item: Chunk | Picture) -> Cells:
        """Process media that the factory wants and return the completed cells."""

    def flush(self, cells: int) -> Cells:
        """End the media and return all remaining cells below `cells`."""


class ExtractorFactory(Protocol):
    """What all streams share of one modality: parameters, networks, weights. Makes extractors."""

    name: str  # the modality
    shape: tuple[int, ...]  # of one cell's values
    want: Want  # the media that its extractors take

    def spec(self) -> Mapping[str, Any]:
        """The JSON-able parameters that a bundle stores, weights' SHA-256 included."""

    def new(self) -> Extractor:
        """An extractor at the start of an epoch."""


def want_of(factories: Iterable[ExtractorFactory]) -> Want:
    """All the media that the extractors of `factories` take."""
    return reduce(or_, (factory.want for factory in factories), Want())
