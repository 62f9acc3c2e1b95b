"""The interface of an extractor. To add one, add a file to this folder and a line to `EXTRACTORS`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Protocol

from streamer.types import Cells, Chunk, Picture, Want

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FEATURES_VERSION = 1
"""Increase it when an extractor, or the decoding of its media, gives other values for the same spec: stored features of
another version are not reused."""


class Extractor(Protocol):
    """The state of one modality in one epoch of one stream. `push` and `flush` return cells in order.

    Every cell from 0 on is returned exactly once, whatever the chunking. A cell that can't be computed (a hole in the
    media, no picture) has `valid` False.
    """

    def push(self, item: Chunk | Picture) -> Cells:
        """Process media that the factory wants and return the completed cells."""

    def flush(self, cells: int) -> Cells:
        """End the media and return all remaining cells below `cells`."""


class ExtractorFactory(Protocol):
    """Makes the extractors of a modality; holds what all streams share: parameters, network, weights."""

    name: str  # the modality
    shape: tuple[int, ...]  # of one cell's values
    want: Want  # the media that its extractors need

    def spec(self) -> Mapping[str, Any]:
        """The JSON-able parameters that a bundle stores, including the SHA-256 of the weights."""

    def new(self) -> Extractor:
        """An extractor at the start of an epoch."""


def want_of(factories: Iterable[ExtractorFactory]) -> Want:
    """All the media that the extractors of `factories` need."""
    return reduce(or_, (factory.want for factory in factories), Want())


def stored_fields(spec: DataclassInstance, later: Collection[str]) -> dict[str, Any]:
    """The fields of a spec, as a bundle and a feature store hold them.

    Those that came `later` are left out where they are the default, so that what older versions stored remains valid.
    """
    neutral = {one.name: one.default for one in fields(spec) if one.name in later}
    return {name: value for name, value in asdict(spec).items() if name not in later or value != neutral[name]}
