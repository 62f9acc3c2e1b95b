"""Sheds load when the machine is too slow for its streams: pictures first, in steps; audio last.

`PictureStride` decides how many cells share one picture, from the measured cost of pictures and the worker's lag. It
reads no clock.
"""

from __future__ import annotations

import math

from streamer.runtime.patience import Patience
from streamer.types import CELL, SAMPLE_RATE_HZ

STRIDES = (1, 2, 4, 8, 16, 0)
"""One picture per so many cells, finest first; 0: no pictures."""
CELLS_PER_S = SAMPLE_RATE_HZ / CELL

_BEHIND_S = 1.0
"""Media lag in seconds from which the stride is coarsened."""
_CAUGHT_UP_S = 0.4
"""Media lag in seconds up to which the stride may be refined. Between the two nothing changes."""
_SETTLE_S = 3.0
"""Pause after coarsening, so that it takes effect before the next step."""
_PATIENCE_S = (5.0, 120.0)
"""First and longest time without lag before refining; it doubles each time that a refinement did not last."""
_SAMPLE_S, _SAMPLE_PICTURES = 2.0, 4
"""The least time and number of pictures for one measurement of their cost."""
_ROOM = 0.8
"""A finer stride must fit in this share of the budget, so that it lasts."""


class PictureStride:
    """Adapts the picture rate, one step of `STRIDES` at a time.

    The measured cost of a picture rules out every stride that needs more than `budget` (share of real time) of the
    worker; lag coarsens the stride further. It begins at the coarsest stride that still has pictures, because a
    finer one could delay audio before the cost is known.
    """

    def __init__(self, budget: float) -> None:
        """`budget`: seconds of each second that the worker may spend on pictures."""
        self.budget = budget
        """May be changed at any time."""
        self._step = STRIDES.index(16)
        self._cost_s: float | None = None
        self._since_s: float | None = None
        self._spent_s = 0.0
        self._pictures = 0.0
        self._coarsened_s = -math.inf
        self._patience = Patience(*_PATIENCE_S)

    @property
    def stride(self) -> int:
        """Cells per picture; 0: no pictures."""
        return STRIDES[self._step]

    @property
    def cost_s(self) -> float | None:
        """Measured seconds of work per picture; None before the first measurement."""
        return self._cost_s

    def measured(self, now_s: float, seconds: float, pictures: float) -> None:
        """Record that `pictures` more were pushed and `seconds` spent on pictures; recent measurements weigh more.

        Extractors compute in batches, so a measurement spans several calls.
        """
        if self._since_s is None:
            self._since_s = now_s
        self._spent_s += seconds
        self._pictures += pictures
        if self._pictures < _SAMPLE_PICTURES or now_s - self._since_s < _SAMPLE_S:
            return
        cost_s = self._spent_s / self._pictures
        self._cost_s = cost_s if self._cost_s is None else (self._cost_s + cost_s) / 2
        self._since_s, self._spent_s, self._pictures = now_s, 0.0, 0.0

    def update(self, now_s: float, lag_s: float, streams: int) -> int:
        """The new stride, given the largest lag of a live stream and the number of live `streams` with pictures."""
        if lag_s >= _BEHIND_S:
            self._patience.disturbed()
            if now_s - self._coarsened_s >= _SETTLE_S:
                self._coarsen(now_s)
        elif lag_s <= _CAUGHT_UP_S:
            if self._patience.calm(now_s) and streams and self._fits(self._step - 1, streams, _ROOM):
                self._step -= 1
                self._patience.tried(now_s)
        else:
            self._patience.disturbed()
        while STRIDES[self._step] and not self._fits(self._step, streams, 1.0):
            self._coarsen(now_s)
        return self.stride

    def _coarsen(self, now_s: float) -> None:
        if self._step + 1 < len(STRIDES):
            self._step += 1
        self._patience.given_up(now_s)
        self._coarsened_s = now_s

    def _fits(self, step: int, streams: int, share: float) -> bool:
        if step < 0:
            return False
        if self._cost_s is None:  # unknown yet: only the coarsest may be tried
            return STRIDES[step] == 16
        return self._cost_s * streams * CELLS_PER_S / STRIDES[step] <= share * self.budget
