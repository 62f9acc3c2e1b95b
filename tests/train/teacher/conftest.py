from __future__ import annotations

from pathlib import Path

import pytest

from streamer.networks.weights import WeightsStore
from tests.train.teacher.made import make_corpus, make_weights, small
from train.data.dataset import Corpus
from train.teacher.training import teach


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `recordings`, `corpus`, `frames` and `run`."""
    return tmp_path_factory.mktemp("teacher")


@pytest.fixture(scope="package")
def source(folder: Path) -> Corpus:
    return make_corpus(folder)


@pytest.fixture(scope="package")
def weights(folder: Path) -> WeightsStore:
    return make_weights(folder / "weights")


@pytest.fixture(scope="package")
def run(folder: Path, source: Corpus, weights: WeightsStore) -> Path:
    """The folder of a teacher."""
    teach(source, folder / "run", small(), weights, folder / "frames")
    return folder / "run"
