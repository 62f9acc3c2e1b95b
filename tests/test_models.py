"""A model is named by its name, if it ships, or by its folder."""

from __future__ import annotations

from pathlib import Path

from streamer.bundle import Bundle
from streamer.models import DEFAULT, bundle_path, model_help, shipped


def test_every_shipped_model_is_found_by_its_name_and_in_the_help() -> None:
    assert shipped()[0] == DEFAULT == "spectral"
    for name in shipped():
        assert Bundle.load(bundle_path(name)).network()
        assert name in model_help()
    assert bundle_path(None) == bundle_path("spectral") == bundle_path(Path("spectral"))


def test_a_folder_of_the_same_name_is_named_by_a_path() -> None:
    assert bundle_path("./spectral") == Path("./spectral") != bundle_path("spectral")
    assert bundle_path("models/mine") == Path("models/mine")
