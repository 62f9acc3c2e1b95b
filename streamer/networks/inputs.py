"""Prepares a window's raw cells for the network's layers: peak gain, log, standardisation, masks.

It is part of the network, so that a model gets the same input in training and in the daemon.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamer.networks.dropout import ByteDropout

LOG_FLOOR = 1e-5
"""Added to the magnitudes of a window that peaks at 1: a range of 100 dB."""
PEAK_FLOOR = 0.5
"""Lower peaks are not raised to 1, because silence would become noise. A full-scale sine peaks near 550, so this is
about -60 dBFS."""


class SpectralInput(nn.Module):
    """Peak gain of the window, log, and the standardisation of each mel bin.

    Shape: (B, T, 4, mels) linear magnitudes and (B, T) valid -> (B, 4 T, mels); frames of cells that
    are not valid are zero, the mean of the training data.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(mels))
        self.register_buffer("std", torch.ones(mels))

    def log(self, magnitudes: Tensor, valid: Tensor) -> Tensor:
        """Natural log of the magnitudes after the window's peak gain, (B, T, 4, mels)."""
        audible = magnitudes * valid[:, :, None, None]
        peak = audible.amax(dim=(1, 2, 3), keepdim=True).clamp_min(PEAK_FLOOR)
        return torch.log(audible / peak + LOG_FLOOR)

    def forward(self, magnitudes: Tensor, valid: Tensor) -> Tensor:
        """See the class."""
        standard = (self.log(magnitudes, valid) - self.mean) / self.std
        return (standard * valid[:, :, None, None]).flatten(1, 2)


class EmbeddingInput(nn.Module):
    """Standardisation of a pretrained network's vectors, and their projection (paper section 3).

    Shape: (B, T, size) and (B, T) valid -> (B, T, width); cells that are not valid are zero.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.project = nn.Linear(size, width)
        self.dropout = ByteDropout(dropout)

    def forward(self, vectors: Tensor, valid: Tensor) -> Tensor:
        """See the class."""
        projected = self.dropout(torch.relu(self.project((vectors - self.mean) / self.std)))
        return projected * valid[:, :, None]  # type: ignore[no-any-return]
