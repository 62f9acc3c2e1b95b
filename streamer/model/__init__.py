"""The fusion CRNN and the bundles that hold trained ones."""

from __future__ import annotations

from pathlib import Path

from streamer.model.bundle import Bundle, initial_tensors
from streamer.model.crnn import Crnn, Posteriors, linear_pooling

__all__ = ["Bundle", "Crnn", "Posteriors", "default_bundle_path", "initial_tensors", "linear_pooling"]


def default_bundle_path() -> Path:
    """The folder of the model that ships with the package."""
    return Path(__file__).parent.parent / "bundles" / "spectral"
