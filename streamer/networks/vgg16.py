"""VGG16's network up to its second dense layer, fc7: pictures to 4096 values.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (ICLR 2015), as in
torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from streamer.networks.vgg import convolutions
from streamer.networks.weights import fitted
from streamer.types import PICTURE_SIDE

SIZE = 4096
"""Values of fc7."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB values from 0 to 1, as in torchvision's VGG16_Weights.IMAGENET1K_V1.transforms()."""
_LAST = "classifier.6."
"""The last layer, with ImageNet's 1000 classes, which is not needed."""


class Vgg16Network(nn.Module):
    """VGG16 up to fc7, with torchvision's preprocessing of pictures. Its tensors have torchvision's names.

    It does not use torchvision, which takes two seconds to import.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = convolutions(3, ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3))
        self.classifier = nn.Sequential(
            nn.Linear(512 * (PICTURE_SIDE // 32) ** 2, SIZE),
            nn.ReLU(inplace=True),
            nn.Dropout(),  # has no effect here, but keeps torchvision's numbering
            nn.Linear(SIZE, SIZE),
            nn.ReLU(inplace=True),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 224, 224, 3) RGB bytes to (B, 4096), not negative."""
        pictures = (pixels.to(torch.float32) / 255 - torch.tensor(_MEAN)) / torch.tensor(_STD)
        # torchvision's average pooling to 7 x 7 has no effect on pictures of this size.
        fc7: Tensor = self.classifier(self.features(pictures.permute(0, 3, 1, 2)).flatten(1))
        return fc7


def network_of(tensors: Mapping[str, Tensor], where: Path) -> Vgg16Network:
    """The network with the tensors of a checkpoint that has torchvision's names; the last layer may be missing.

    Raises:
        WeightsError: they are not VGG16's; says what was expected and what was found in `where`.

    """
    with torch.device("meta"):  # needs no memory, and draws no random weights
        network = Vgg16Network()
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    own = fitted(tensors, expected, "torchvision's VGG16", where, lambda name: name.startswith(_LAST))
    network.load_state_dict(own, assign=True)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
