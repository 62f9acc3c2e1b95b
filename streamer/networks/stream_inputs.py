"""Prepares raw cells for the stream form: the gain of a cell depends on the cells up to it, not on a window's peak."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from streamer.networks.inputs import LOG_FLOOR, PEAK_FLOOR, SpectralInput
from streamer.types import CELL, SAMPLE_RATE_HZ

RELEASE_DB_S = 3.0
"""How fast the gain recovers after a loud sound. The window form forgets a peak after 10 s; here it has lost 30 dB."""


class RunningSpectralInput(SpectralInput):
    """As `SpectralInput`, but in relation to a running peak, which falls by `release_db_s` until a cell exceeds it.

    The peak is computed in float64 and in logarithms, so that it is the same for any division into blocks.
    """

    def __init__(self, mels: int, release_db_s: float = RELEASE_DB_S) -> None:
        """Raises `ValueError` if the release is not above 0."""
        super().__init__(mels)
        if release_db_s <= 0.0:
            raise ValueError(f"release_db_s must be above 0, not {release_db_s}")
        self.release = release_db_s * math.log(10.0) / 20.0 * CELL / SAMPLE_RATE_HZ
        """Nepers per cell."""

    @staticmethod
    def silence(clips: int) -> Tensor:
        """The running peak before the first cell, (B,)."""
        return torch.full((clips,), math.log(PEAK_FLOOR), dtype=torch.float64)

    def peaks(self, magnitudes: Tensor, valid: Tensor, before: Tensor | None = None) -> Tensor:
        """The natural log of the running peak at every cell, (B, T) in float64.

        Args:
            magnitudes: (B, T, 4, mels).
            valid: (B, T).
            before: (B,) in float64, the peak at the cell before; none: `silence`.

        """
        audible = magnitudes * valid[:, :, None, None]
        peak = audible.flatten(2).amax(dim=2).double().clamp_min(PEAK_FLOOR).log()
        fallen = self.release * torch.arange(1, peak.shape[1] + 1, dtype=torch.float64, device=peak.device)
        start = (self.silence(len(peak)) if before is None else before).to(peak.device)
        highest = torch.cummax(peak + fallen, dim=1).values if peak.shape[1] else peak
        return torch.maximum(highest, start[:, None]) - fallen

    def standard(self, magnitudes: Tensor, valid: Tensor, peaks: Tensor) -> Tensor:
        """(B, 4 T, mels) as `SpectralInput`'s, in relation to `peaks` (B, T)."""
        standard = (self._log(magnitudes, valid, peaks) - self.mean) / self.std
        return (standard * valid[:, :, None, None]).flatten(1, 2)

    def log(self, magnitudes: Tensor, valid: Tensor) -> Tensor:
        """Natural log of the magnitudes of whole clips in relation to the running peak, (B, T, 4, mels)."""
        return self._log(magnitudes, valid, self.peaks(magnitudes, valid))

    def _log(self, magnitudes: Tensor, valid: Tensor, peaks: Tensor) -> Tensor:
        gain = torch.exp(-peaks).float()
        return torch.log(magnitudes * (gain * valid)[:, :, None, None] + LOG_FLOOR)

    def forward(self, magnitudes: Tensor, valid: Tensor) -> Tensor:
        """See the class."""
        return self.standard(magnitudes, valid, self.peaks(magnitudes, valid))
