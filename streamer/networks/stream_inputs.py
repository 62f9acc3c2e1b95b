"""Prepares raw cells for the stream form: the gain of a cell depends on the cells up to it, not on a window's peak."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from streamer.networks.inputs import LOG_FLOOR, PEAK_FLOOR, SpectralInput
from streamer.types import CELL, SAMPLE_RATE_HZ

RELEASE_DB_S = 1.0
"""How fast the gain recovers after a loud sound. A window form, not trained for a running peak, has 46.3 % event F1 on
600 clips with its own gain. With a running peak that starts at silence it has 38.9, 40.4 and 40.8 % at 3, 1 and 0.3
dB/s; with one that starts at the training clips' median peak 43.0, 44.8 and 45.5 %."""


class RunningSpectralInput(SpectralInput):
    """As `SpectralInput`, but in relation to a running peak, which falls by `release_db_s` until a cell exceeds it.

    The peak is computed in float64 and in logarithms, so that it is the same for any division into blocks. It starts at
    `first_peak`, the median over the training clips: at silence, whatever comes first would be as loud as can be.
    """

    first_peak: Tensor

    def __init__(self, mels: int, release_db_s: float = RELEASE_DB_S) -> None:
        """Raises `ValueError` if the release is not above 0."""
        super().__init__(mels)
        self.register_buffer("first_peak", torch.tensor(PEAK_FLOOR))
        if release_db_s <= 0.0:
            raise ValueError(f"release_db_s must be above 0, not {release_db_s}")
        self.release = release_db_s * math.log(10.0) / 20.0 * CELL / SAMPLE_RATE_HZ
        """Nepers per cell."""

    def first(self, clips: int) -> Tensor:
        """The log of the running peak before the first cell, (B,) in float64."""
        return self.first_peak.double().log().expand(clips)

    def peaks(self, magnitudes: Tensor, valid: Tensor, before: Tensor | None = None) -> Tensor:
        """The natural log of the running peak at every cell, (B, T) in float64.

        Args:
            magnitudes: (B, T, 4, mels).
            valid: (B, T).
            before: (B,) in float64, the log of the peak at the cell before; none: `first`.

        """
        audible = magnitudes * valid[:, :, None, None]
        peak = audible.flatten(2).amax(dim=2).double().clamp_min(PEAK_FLOOR).log()
        fallen = self.release * torch.arange(1, peak.shape[1] + 1, dtype=torch.float64, device=peak.device)
        start = (self.first(len(peak)) if before is None else before).to(peak.device)
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
