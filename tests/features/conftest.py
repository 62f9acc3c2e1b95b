"""Full-size weights, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.weights import vgg16_tensors, vggish_tensors


@pytest.fixture(scope="session")
def vggish_weights() -> dict[str, Tensor]:
    return vggish_tensors(1)


@pytest.fixture(scope="session")
def vgg16_weights() -> dict[str, Tensor]:
    return vgg16_tensors(2)


@pytest.fixture(scope="session")
def vggish_file(vggish_weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    torch.save(vggish_weights, path)
    return path


@pytest.fixture(scope="session")
def vgg16_file(vgg16_weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.pth"
    torch.save(vgg16_weights, path, _use_new_zipfile_serialization=False)  # as torchvision's published file is
    return path
