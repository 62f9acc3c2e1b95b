"""The fusion CRNN of Boes & Van hamme (2021), for any non-empty set of modalities.

Spectral input passes seven convolutions that pool 4 frames x 128 mel bins to one vector of 128 per cell. Each
pretrained embedding passes a dense layer. Their outputs are concatenated on the cell grid and pass two bidirectional
GRU layers and a dense layer with a sigmoid. Linear pooling gives the clip's posteriors. The shapes of the modalities'
cells come from their extractors, the widths of the dense layers from the bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from streamer.networks.dropout import ByteDropout
from streamer.networks.inputs import EmbeddingInput, SpectralInput
from streamer.types import FRAMES_PER_CELL

MELS = 128
"""Mel bins of a spectral cell: seven poolings by two leave one value."""
_WIDTHS: Mapping[str, tuple[int, int]] = {"vggish": (16, 64), "vgg16": (4, 16), "efficientnet_lite0": (4, 16)}
_OTHER_WIDTHS = (16, 64)
"""The widths of a projection, with spectral input and without."""
_FILTERS = (16, 32, 64, 128, 128, 128, 128)
_POOLING = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2))  # (time, mel)
_GRU_SIZE = 128  # per direction (paper section 2.1); a merged network has that of its members together


class Posteriors(NamedTuple):
    """The network's output for a batch of windows."""

    logits: Tensor  # (B, T, classes), before the sigmoid
    cells: Tensor  # (B, T, classes), 0 to 1; zero where no modality is valid
    clip: Tensor  # (B, classes), 0 to 1


@dataclass(frozen=True, slots=True)
class Dropout:
    """Shares of values that are dropped in training."""

    convolutions: float  # after the ReLU of each convolution (paper section 2.1)
    embeddings: float  # after the ReLU of each projected embedding (paper section 3)
    classifier: float  # before the classifier; the paper has none


class Crnn(nn.Module):
    """The network for any non-empty set of modalities.

    At most one modality has cells of (frames, mels), which pass the convolutions. The cells of others are vectors.

    Raises:
        ValueError: no modality, or cells of an unsupported shape.

    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        classes: int,
        widths: Mapping[str, int] | None = None,
        dropout: Dropout | None = None,
        *,
        gru_size: int = _GRU_SIZE,
    ) -> None:
        """`shapes`: modality -> shape of a cell's values; `widths`: vector -> width of its projection."""
        dropout = dropout or Dropout(0.0, 0.0, 0.0)
        super().__init__()
        self.spectral, vectors = checked_shapes(shapes)
        """The modality that passes the convolutions, if there is one."""
        widths = widths or default_widths(shapes)
        self.modalities = (*([self.spectral] if self.spectral else []), *vectors)
        self.spectral_input = SpectralInput(MELS) if self.spectral else None
        self.convolutions = _convolutions(dropout.convolutions) if self.spectral else None
        self.embeddings = nn.ModuleDict(
            {name: EmbeddingInput(shapes[name][0], widths[name], dropout.embeddings) for name in vectors}
        )
        fused = (_FILTERS[-1] if self.spectral else 0) + sum(widths[name] for name in vectors)
        self.gru = nn.GRU(fused, gru_size, num_layers=2, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout.classifier)
        self.classify = nn.Linear(2 * gru_size, classes)

    def forward(self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Posteriors:
        """Posteriors of a batch of windows of T >= 1 cells.

        Args:
            features: modality -> raw cells (B, T, ...): spectral magnitudes (4, 128), or a vector.
            valid: modality -> (B, T) bool, False where a cell could not be computed.

        """
        cells = torch.cat([self._encode(name, features[name], valid[name]) for name in self.modalities], dim=2)
        covered = torch.stack([valid[name] for name in self.modalities]).any(dim=0)  # (B, T)
        context, _ = self.gru(cells)
        logits = self.classify(self.dropout(context)).float()
        posteriors = torch.sigmoid(logits) * covered[:, :, None]
        return Posteriors(logits, posteriors, linear_pooling(posteriors))

    def _encode(self, name: str, features: Tensor, valid: Tensor) -> Tensor:
        if name != self.spectral:
            return self.embeddings[name](features, valid)  # type: ignore[no-any-return]
        assert self.spectral_input is not None
        assert self.convolutions is not None
        frames = self.spectral_input(features, valid)[:, None]  # (B, 1, 4 T, 128)
        if self.channels_last:
            frames = frames.contiguous(memory_format=torch.channels_last)
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.reduced_precision):
            vectors = self.convolutions(frames)
        return vectors.float().squeeze(3).transpose(1, 2) * valid[:, :, None]  # type: ignore[no-any-return]

    reduced_precision = False
    """Run the convolutions in bfloat16, only in training: 2.6 times faster on processors that support it."""
    channels_last = True
    """The memory layout of the convolutions, which changes posteriors only by rounding."""


class PositionalCrnn(nn.Module):
    """The network with inputs by position, for a backend: every modality's cells, then every modality's mask."""

    def __init__(self, network: Crnn) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """`tensors` are in the order of `Crnn.modalities`; returns posteriors (B, T, classes) and (B, classes)."""
        names = self.network.modalities
        features, valid = tensors[: len(names)], tensors[len(names) :]
        out = self.network(dict(zip(names, features, strict=True)), dict(zip(names, valid, strict=True)))
        return out.cells, out.clip


def linear_pooling(cells: Tensor) -> Tensor:
    """Clip posteriors: the cells' posteriors weighted by themselves (paper section 2.1).

    Args:
        cells: (B, T, classes) in float32; masked cells are zero, so they have no weight.

    Returns:
        (B, classes); 0 where all cells are 0.

    """
    return cells.square().sum(dim=1) / cells.sum(dim=1).clamp_min(1e-7)


def checked_shapes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str | None, list[str]]:
    """The modality with cells of (frames, mels), if there is one, and those whose cells are vectors.

    Raises:
        ValueError: no modality, or cells of an unsupported shape.

    """
    spectral = [name for name, shape in shapes.items() if len(shape) > 1]
    vectors = [name for name, shape in shapes.items() if len(shape) == 1]
    known = len(spectral) + len(vectors) == len(shapes) > 0
    if not known or len(spectral) > 1 or any(shapes[name] != (FRAMES_PER_CELL, MELS) for name in spectral):
        raise ValueError(
            f"cells must be vectors, and at most one modality's ({FRAMES_PER_CELL}, {MELS}), not {dict(shapes)}"
        )
    return next(iter(spectral), None), vectors


def default_widths(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The widths of the vectors' projections: the paper's (paper section 3), and VGGish's for other modalities."""
    alone = all(len(shape) == 1 for shape in shapes.values())
    return {name: _WIDTHS.get(name, _OTHER_WIDTHS)[alone] for name, shape in shapes.items() if len(shape) == 1}


def inputs_of(
    tensors: Mapping[str, Tensor], modalities: Iterable[str]
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The shapes and widths of the network that `tensors` belong to.

    Raises:
        ValueError: they lack a modality.

    """
    shapes: dict[str, tuple[int, ...]] = {}
    widths: dict[str, int] = {}
    for name in modalities:
        projection = tensors.get(f"embeddings.{name}.project.weight")
        if projection is not None and projection.ndim == 2:
            widths[name], shapes[name] = projection.shape[0], (projection.shape[1],)
        elif "spectral_input.mean" in tensors:
            shapes[name] = (FRAMES_PER_CELL, *tensors["spectral_input.mean"].shape)
        else:
            raise ValueError(f"there is no input for {name}")
    return shapes, widths


def gru_size_of(tensors: Mapping[str, Tensor]) -> int:
    """The GRU's size per direction in the state of a `Crnn`; that of an unmerged one if it is not one's."""
    weight = tensors.get("gru.weight_hh_l0")
    return weight.shape[1] if weight is not None and weight.ndim == 2 else _GRU_SIZE


def _convolutions(dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for filters, pooling in zip(_FILTERS, _POOLING, strict=True):
        layers += [
            nn.Conv2d(channels, filters, kernel_size=3, padding=1),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            ByteDropout(dropout),
            nn.AvgPool2d(pooling),
        ]
        channels = filters
    return nn.Sequential(*layers)
