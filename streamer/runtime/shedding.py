"""What gives way when the machine is too slow for its streams: pictures first, in steps; audio last.

`PictureStride` decides of how many cells one gets its picture looked at. It is told what pictures cost and how far
behind the worker is, and reads no clock.
"""

from __future__ import annotations

import math

from streamer.types import CELL, SAMPLE_RATE_HZ

STRIDES = (1, 2, 4, 8, 16, 0)
"""Of how many cells one gets a picture, finest first; 0: none at all."""
CELLS_PER_S = SAMPLE_RATE_HZ / CELL

_BEHIND_S = 1.0
"""Media lag at which a step is given up at once."""
_CAUGHT_UP_S = 0.4
"""Media lag below which there may be room. Between the two nothing changes."""
_SETTLE_S = 3.0
"""After giving up a step, wait this long for it to tell before giving up another."""
_PATIENCE_S = (5.0, 120.0)
"""A step is won back after so long without lag; the wait doubles each time that a step won back was lost again."""
_SAMPLE_S, _SAMPLE_PICTURES = 2.0, 4
"""What a measurement of the cost of a picture takes at least."""
_ROOM = 0.8
"""A finer step must fit in this share of the budget, or it would be lost again at once."""


class PictureStride:
    """Additive increase, multiplicative decrease of the picture rate, with a limit known in advance.

    The measured cost of a picture rules out every stride whose pictures would need more than `budget` (share of real
    time) of the worker; lag coarsens beyond that, one step of `STRIDES` at a time. It begins at the coarsest
    stride that still has pictures, because a fine one could hold up audio before its cost is known.
    """

    def __init__(self, budget: float) -> None:
        """`budget`: seconds of pictures that the worker may compute in a second."""
        self._budget = budget
        self._step = STRIDES.index(16)
        self._cost_s: float | None = None
        self._since_s: float | None = None
        self._spent_s = 0.0
        self._pictures = 0.0
        self._coarsened_s = -math.inf
        self._calm_since_s: float | None = None
        self._patience_s = _PATIENCE_S[0]
        self._refined_s = -math.inf

    @property
    def stride(self) -> int:
        """One picture in so many cells; 0: none."""
        return STRIDES[self._step]

    @property
    def cost_s(self) -> float | None:
        """Measured seconds of work for one picture; None before the first."""
        return self._cost_s

    def measured(self, now_s: float, seconds: float, pictures: float) -> None:
        """`pictures` more were taken in, and `seconds` spent on pictures; newer measurements count for more.

        Extractors compute in batches, so that single calls say nothing: it takes some pictures and some time.
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
        """The stride from now on, given the worst live stream's lag and how many live `streams` have pictures."""
        if lag_s >= _BEHIND_S:
            self._calm_since_s = None
            if now_s - self._coarsened_s >= _SETTLE_S:
                self._coarsen(now_s)
        elif lag_s <= _CAUGHT_UP_S:
            if self._calm_since_s is None:
                self._calm_since_s = now_s
            patient = now_s - self._calm_since_s >= self._patience_s
            if patient and streams and self._fits(self._step - 1, streams, _ROOM):
                self._step -= 1
                self._refined_s = self._calm_since_s = now_s
        else:
            self._calm_since_s = None
        while STRIDES[self._step] and not self._fits(self._step, streams, 1.0):
            self._coarsen(now_s)
        return self.stride

    def _coarsen(self, now_s: float) -> None:
        if self._step + 1 < len(STRIDES):
            self._step += 1
        lost_again = now_s - self._refined_s < 2 * self._patience_s
        self._patience_s = min(2 * self._patience_s, _PATIENCE_S[1]) if lost_again else _PATIENCE_S[0]
        self._coarsened_s = now_s

    def _fits(self, step: int, streams: int, share: float) -> bool:
        if step < 0:
            return False
        if self._cost_s is None:  # not known yet: only the coarsest may be tried
            return STRIDES[step] == 16
        return self._cost_s * streams * CELLS_PER_S / STRIDES[step] <= share * self._budget
