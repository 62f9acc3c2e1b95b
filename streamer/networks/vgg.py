"""The convolutions that VGGish and VGG16 have in common."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def convolutions(channels: int, blocks: Sequence[Sequence[int]]) -> nn.Sequential:
    """Blocks of 3 x 3 convolutions with ReLUs, each ended by pooling 2 x 2; numbered as torchvision and the ports do.

    Args:
        channels: of the input.
        blocks: of each block, the channels that its convolutions give.

    """
    layers: list[nn.Module] = []
    for block in blocks:
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)
