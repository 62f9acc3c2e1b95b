"""The convolutions that VGGish and VGG16 have in common."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def convolutions(channels: int, blocks: Sequence[Sequence[int]]) -> nn.Sequential:
    """Blocks of 3 x 3 convolutions with ReLUs, each followed by 2 x 2 pooling; numbered as in torchvision.

    Args:
        channels: channels of the input.
        blocks: for each block, the output channels of its convolutions.

    """
    layers: list[nn.Module] = []
    for block in blocks:
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)
