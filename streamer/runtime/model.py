"""A loaded bundle, which all streams share: its network and its feature extractors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamer.bundle import Bundle
from streamer.detect import Detector
from streamer.features.base import ExtractorFactory, want_of
from streamer.types import Want


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A bundle that is ready for use. Once streams have it, only the worker may use its detector and factories."""

    bundle: Bundle
    factories: Mapping[str, ExtractorFactory]
    detector: Detector

    @classmethod
    def of(cls, bundle: Bundle, factories: Mapping[str, ExtractorFactory]) -> Model:
        """Raises `BundleError` if the bundle's network can't be made."""
        return cls(bundle, factories, Detector(bundle))

    @property
    def want(self) -> Want:
        """The media that the model needs."""
        return want_of(self.factories.values())

    @property
    def picture_stages(self) -> frozenset[str]:
        """The modalities that use pictures."""
        return frozenset(name for name, factory in self.factories.items() if factory.want.pictures)
