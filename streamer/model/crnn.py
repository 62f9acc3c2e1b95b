"""The fusion CRNN of Boes & Van hamme (2021), for any non-empty set of modalities.

Spectral input passes seven convolutions that pool 4 frames x 128 mel bins to one vector of 128 a cell;
each pretrained embedding passes a dense layer; what there is of them is concatenated on the cell grid
and passes two bidirectional GRU layers and a dense layer with a sigmoid. Linear pooling makes the clip's
posteriors. The widths of the dense layers are those that give the paper's parameter counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from streamer.model.inputs import EmbeddingInput, SpectralInput

SPECTRAL = "spectral"
MELS = 128
EMBEDDING_SIZES: Mapping[str, int] = {"vggish": 128, "vgg16": 4096}
_WIDTH_BESIDE_SPECTRAL: Mapping[str, int] = {"vggish": 16, "vgg16": 4}
_WIDTH_WITHOUT_SPECTRAL: Mapping[str, int] = {"vggish": 64, "vgg16": 16}
_FILTERS = (16, 32, 64, 128, 128, 128, 128)
_POOLING = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2))  # (time, mel)
_GRU_SIZE = 128  # per direction


class Posteriors(NamedTuple):
    """What the network says of a batch of windows."""

    logits: Tensor  # (B, T, classes), before the sigmoid
    frames: Tensor  # (B, T, classes), 0 to 1; zero where no modality is valid
    clip: Tensor  # (B, classes), 0 to 1


class Crnn(nn.Module):
    """The network; `modalities` in any order, at least one of `spectral`, `vggish`, `vgg16`.

    Raises:
        ValueError: no modality, or one that is not known.

    """

    def __init__(self, modalities: Iterable[str], classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        wanted = set(modalities)
        known = {SPECTRAL, *EMBEDDING_SIZES}
        if not wanted or wanted - known:
            raise ValueError(f"modalities must be some of {sorted(known)}, not {sorted(wanted)}")
        widths = _WIDTH_BESIDE_SPECTRAL if SPECTRAL in wanted else _WIDTH_WITHOUT_SPECTRAL
        self.modalities = tuple(name for name in (SPECTRAL, *EMBEDDING_SIZES) if name in wanted)
        self.spectral_input = SpectralInput(MELS) if SPECTRAL in wanted else None
        self.convolutions = _convolutions(dropout) if SPECTRAL in wanted else None
        self.embeddings = nn.ModuleDict(
            {name: EmbeddingInput(size, widths[name]) for name, size in EMBEDDING_SIZES.items() if name in wanted}
        )
        fused = (_FILTERS[-1] if SPECTRAL in wanted else 0) + sum(widths[name] for name in self.embeddings)
        self.gru = nn.GRU(fused, _GRU_SIZE, num_layers=2, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(2 * _GRU_SIZE, classes)

    def forward(self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Posteriors:
        """Posteriors of a batch of windows of T >= 1 cells.

        Args:
            features: modality -> raw cells: spectral (B, T, 4, 128) linear magnitudes, vggish
                (B, T, 128), vgg16 (B, T, 4096).
            valid: modality -> (B, T) bool, False where a cell could not be computed.

        """
        cells = torch.cat([self._encode(name, features[name], valid[name]) for name in self.modalities], dim=2)
        covered = torch.stack([valid[name] for name in self.modalities]).any(dim=0)  # (B, T)
        context, _ = self.gru(cells)
        logits = self.classify(self.dropout(context)).float()
        frames = torch.sigmoid(logits) * covered[:, :, None]
        return Posteriors(logits, frames, linear_pooling(frames))

    def _encode(self, name: str, features: Tensor, valid: Tensor) -> Tensor:
        if name != SPECTRAL:
            return self.embeddings[name](features, valid)  # type: ignore[no-any-return]
        assert self.spectral_input is not None
        assert self.convolutions is not None
        pictures = self.spectral_input(features, valid)[:, None]  # (B, 1, 4 T, 128)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.reduced_precision):
            vectors = self.convolutions(pictures.contiguous(memory_format=torch.channels_last))
        return vectors.float().squeeze(3).transpose(1, 2) * valid[:, :, None]  # type: ignore[no-any-return]

    reduced_precision = False
    """Run the convolutions in bfloat16, for training alone: 2.6 times faster where the processor has it."""


class ByteDropout(nn.Module):
    """Dropout whose probability is rounded to 1/256, so that one random byte decides on one value.

    `nn.Dropout` draws a float for each value, which took a third of a training step's time on a CPU.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self._dropped = round(probability * 256)  # of the 256 values of a byte

    def forward(self, values: Tensor) -> Tensor:
        """`values`, of any shape; while training some are zero and the others scaled up to keep the mean."""
        if not self.training or self._dropped == 0:
            return values
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = (words.view(torch.uint8)[: values.numel()] >= self._dropped).to(values.dtype)
        # In the memory order of `values`, so that the product is one pass over both.
        mask = torch.as_strided(kept, values.shape, values.stride()) if _is_dense(values) else kept.view(values.shape)
        return values * mask.mul_(256 / (256 - self._dropped))


def _is_dense(values: Tensor) -> bool:
    return values.is_contiguous() or values.is_contiguous(memory_format=torch.channels_last)


def linear_pooling(frames: Tensor) -> Tensor:
    """Clip posteriors: the frames' posteriors weighted by themselves (paper section 2.1).

    Args:
        frames: (B, T, classes) in float32; masked frames are zero and so weigh nothing.

    Returns:
        (B, classes); 0 where all frames are 0.

    """
    return frames.square().sum(dim=1) / frames.sum(dim=1).clamp_min(1e-7)


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
