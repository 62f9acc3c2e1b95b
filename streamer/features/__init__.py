"""The extractors: one file each, one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamer.features import spectral, vgg16, vggish
from streamer.features.base import ExtractorFactory
from streamer.networks.weights import WeightsStore

EXTRACTORS: dict[str, Callable[[Mapping[str, Any], WeightsStore], ExtractorFactory]] = {
    "spectral": spectral.factory,
    "vggish": vggish.factory,
    "vgg16": vgg16.factory,
}
"""Modality -> the function that makes its factory from a bundle's spec and the weights."""
