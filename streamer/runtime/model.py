"""What all streams share of one bundle: its network, and what makes its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamer.bundle import Bundle
from streamer.detect import Detector
from streamer.features.base import ExtractorFactory, want_of
from streamer.types import Want


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A bundle that is ready to be used. Its detector and factories are the worker's alone once streams have it."""

    bundle: Bundle
    factories: Mapping[str, ExtractorFactory]
    detector: Detector

    @classmethod
    def of(cls, bundle: Bundle, factories: Mapping[str, ExtractorFactory]) -> Model:
        """Raises `BundleError` if the bundle's network can't be made."""
        return cls(bundle, factories, Detector(bundle))

    @property
    def want(self) -> Want:
        """The media that it takes."""
        return want_of(self.factories.values())

    @property
    def picture_stages(self) -> frozenset[str]:
        """The modalities that look at pictures."""
        return frozenset(name for name, factory in self.factories.items() if factory.want.pictures)
