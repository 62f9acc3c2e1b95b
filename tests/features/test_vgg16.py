"""VGG16: against torchvision, and its weights' files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from streamer.errors import WeightsError
from streamer.features import EXTRACTORS
from streamer.features.pictures import Pictures, PictureSpec
from streamer.networks.backends import TorchNetwork
from streamer.networks.vgg16 import SIZE, network_of
from streamer.networks.weights import WeightsStore
from streamer.types import CELL, Picture, Want
from tests.features.test_pictures import joined

HERE = Path("vgg16.pth")


def test_fc7_is_torchvisions(vgg16_weights: dict[str, Tensor]) -> None:
    assert sum(tensor.numel() for tensor in vgg16_weights.values()) == 138_357_544
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    pixels[1, :, :112] //= 4
    found = Pictures("vgg16", SIZE, PictureSpec(), TorchNetwork(network_of(vgg16_weights, HERE))).embed(pixels)

    with torch.device("meta"):
        theirs = torchvision.models.vgg16()
    theirs.load_state_dict(vgg16_weights, assign=True)
    theirs.eval()
    prepare = torchvision.models.VGG16_Weights.IMAGENET1K_V1.transforms()
    with torch.inference_mode():
        pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        resized = torchvision.transforms.functional.normalize(pictures / 255, prepare.mean, prepare.std)
        fc7 = theirs.classifier[:5](theirs.avgpool(theirs.features(resized)).flatten(1))
    difference = (torch.from_numpy(found) - fc7).abs().max().item()
    print(f"fc7: max abs difference {difference:.1e}, standard deviation {fc7.std():.1f}")
    assert fc7.std() > 0.5
    assert difference < 1e-4


def test_the_full_network_on_cells_from_its_file(vgg16_file: Path) -> None:
    """2 pictures in 10 cells: each is computed once, and what it gives is what it gives alone."""
    made = EXTRACTORS["vgg16"]({"hold_s": 0.5}, WeightsStore(vgg16_file.parent))
    sha256 = hashlib.sha256(vgg16_file.read_bytes()).hexdigest()
    assert isinstance(made, Pictures)
    assert made.spec() == {"hold_s": 0.5, "weights_sha256": sha256}
    assert (made.name, made.shape, made.want) == ("vgg16", (4096,), Want(pictures=True))
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    extractor = made.new()
    parts = [extractor.push(Picture(at, pixels[place])) for place, at in enumerate((2 * CELL, 6 * CELL))]
    cells = joined([*parts, extractor.flush(10)])
    assert cells.valid.tolist() == [False, False, *[True] * 8]
    assert all(np.array_equal(cells.values[2], cells.values[cell]) for cell in range(3, 6))
    assert all(np.array_equal(cells.values[6], cells.values[cell]) for cell in range(7, 10))
    assert np.abs(cells.values[[2, 6]] - made.embed(pixels)).max() < 1e-4
    assert np.abs(cells.values[2] - cells.values[6]).max() > 0.1
    with pytest.raises(WeightsError, match=r"with SHA-256 00000000\.\.\. are needed, but .*vgg16\.pth has"):
        EXTRACTORS["vgg16"]({"weights_sha256": "0" * 64}, WeightsStore(vgg16_file.parent))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"features.0.weight": torch.zeros(64, 1, 3, 3)},
            "'features.0.weight' is [64, 1, 3, 3], expected [64, 3, 3, 3]",
        ),
        ({"classifier.3.bias": None}, "found 31 tensors, without 'classifier.3.bias' [4096]"),
        ({"features.1.running_mean": torch.zeros(64)}, "found 33 tensors, with 'features.1.running_mean' [64]"),
    ],
)
def test_other_weights_are_refused_in_one_line(
    vgg16_weights: dict[str, Tensor], change: dict[str, Tensor | None], expected: str
) -> None:
    tensors = {name: tensor for name, tensor in {**vgg16_weights, **change}.items() if tensor is not None}
    with pytest.raises(WeightsError) as caught:
        network_of(tensors, Path("/somewhere/other.pth"))
    assert expected in str(caught.value)
    assert "/somewhere/other.pth: are not those of torchvision's VGG16" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_the_layer_of_classes_is_enough(vgg16_weights: dict[str, Tensor]) -> None:
    network_of({name: one for name, one in vgg16_weights.items() if not name.startswith("classifier.6")}, HERE)
