"""The extractors: one file each, one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamer.features import efficientnet_lite0, mn04, spectral, vgg16, vggish
from streamer.features.base import ExtractorFactory
from streamer.networks.weights import WeightsStore

SPECTRAL = spectral.Spectral.name
"""The one modality whose cells are magnitudes of (frames, mels); those of the others are embeddings, vectors."""
EXTRACTORS: dict[str, Callable[[Mapping[str, Any], WeightsStore], ExtractorFactory]] = {
    SPECTRAL: spectral.factory,
    "vggish": vggish.factory,
    "vgg16": vgg16.factory,
    "mn04": mn04.factory,
    "mn04_scores": mn04.scores_factory,
    "efficientnet_lite0": efficientnet_lite0.factory,
}
"""Modality -> the function that makes its factory from a bundle's spec and the weights."""
