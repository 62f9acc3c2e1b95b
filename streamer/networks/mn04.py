"""EfficientAT's mn04_as: 0.96 s of log-mel frames to 384 pooled values and the log-odds of AudioSet's 527 classes.

Schmid, Koutini and Widmer, "Efficient large-scale audio tagging via Transformer-to-CNN knowledge distillation" (ICASSP
2023): the MobileNetV3-Large of Howard et al., "Searching for MobileNetV3" (ICCV 2019), table 1, at width 0.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from streamer.networks.mobile import convolution, load_folded

MELS = 128
SIZE = 384
"""Values after the pooling."""
CLASSES = 527
"""AudioSet's classes, in the order of its class_labels_indices.csv."""

_HIDDEN = 512
_STEM = 8
# Kernel, expanded channels, output channels, squeeze and excitation, hard swish, stride: table 1's times 0.4, in
# multiples of 8.
_BLOCKS = (
    (3, 8, 8, False, False, 1),
    (3, 24, 16, False, False, 2),
    (3, 32, 16, False, False, 1),
    (5, 32, 16, True, False, 2),
    (5, 48, 16, True, False, 1),
    (5, 48, 16, True, False, 1),
    (3, 96, 32, False, True, 2),
    (3, 80, 32, False, True, 1),
    (3, 72, 32, False, True, 1),
    (3, 72, 32, False, True, 1),
    (3, 192, 48, True, True, 1),
    (3, 272, 48, True, True, 1),
    (5, 272, 64, True, True, 2),
    (5, 384, 64, True, True, 1),
    (5, 384, 64, True, True, 1),
)


class _Excitation(nn.Module):
    """Weighs each channel by all channels' means over the whole input: so a patch has to go through alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        squeezed = max(8, (quarter + 4) // 8 * 8)
        squeezed += 8 if squeezed < 0.9 * quarter else 0  # rounding may not take more than a tenth (the paper's rule)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, maps: Tensor) -> Tensor:
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(maps.mean(dim=(2, 3))))))
        return maps * weights[:, :, None, None]


class _Block(nn.Module):
    """An inverted residual: expand, filter each channel, excite, project."""

    def __init__(
        self, channels: int, kernel: int, expanded: int, width: int, excited: bool, swish: bool, stride: int
    ) -> None:
        super().__init__()
        after = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != channels:
            layers.append(convolution(channels, expanded, after=after()))
        layers.append(convolution(expanded, expanded, kernel, stride=stride, depthwise=True, after=after()))
        if excited:
            layers.append(_Excitation(expanded))
        layers.append(convolution(expanded, width, after=None))
        self.block = nn.Sequential(*layers)
        self._residual = stride == 1 and channels == width

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.block(maps)
        return maps + out if self._residual else out


class Mn04Network(nn.Module):
    """The network. Its tensors have EfficientAT's names, but for the batch norms, which are folded."""

    def __init__(self) -> None:
        super().__init__()
        widths = [_STEM, *(block[2] for block in _BLOCKS)]
        blocks = [
            _Block(channels, kernel, expanded, width, excited, swish, stride)
            for (channels, width), (kernel, expanded, _, excited, swish, stride) in zip(
                pairwise(widths), _BLOCKS, strict=True
            )
        ]
        self.features = nn.Sequential(
            convolution(1, _STEM, 3, stride=2, after=nn.Hardswish()),
            *blocks,
            convolution(widths[-1], SIZE, after=nn.Hardswish()),
        )
        self.classifier = nn.Sequential(
            nn.Identity(),  # the pooling and the flattening are in `forward`, but keep their numbers
            nn.Identity(),
            nn.Linear(SIZE, _HIDDEN),
            nn.Hardswish(),
            nn.Identity(),  # dropout
            nn.Linear(_HIDDEN, CLASSES),
        )

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 128, frames) log-mel frames to (B, 384) pooled values and (B, 527) log-odds."""
        pooled: Tensor = self.features(log_mel[:, None]).mean(dim=(2, 3))
        return pooled, self.classifier(pooled)


def network_of(tensors: Mapping[str, Tensor], where: Path) -> Mn04Network:
    """The network with the tensors of a checkpoint of EfficientAT.

    Raises:
        WeightsError: they are not mn04_as's; says what was expected and what was found in `where`.

    """
    with torch.device("meta"):  # needs no memory, and draws no random weights
        network = Mn04Network()
    # EfficientAT can also excite along time and frequency, side by side.
    renamed = {name.replace(".conc_se_layers.0.", "."): tensor for name, tensor in tensors.items()}
    load_folded(network, renamed, "EfficientAT's mn04_as", where)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
