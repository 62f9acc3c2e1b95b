"""Sheds load by answering less often: fewer windows a second, each deciding more cells. No cell is lost by it.

It reads no clock.
"""

from __future__ import annotations

import math

from streamer.runtime.patience import Patience

STRETCHES = (1, 2, 4, 8)
"""Factors on the configured hop, finest first."""

_BEHIND_S = 1.5
"""Media lag in seconds from which the hop is stretched. Pictures give way before, at 1 s."""
_CAUGHT_UP_S = 0.5
"""Media lag in seconds up to which the hop may be shortened again."""
_SETTLE_S = 2.0
"""Pause after a change, so that it takes effect before the next one."""
_PATIENCE_S = (10.0, 300.0)
"""First and longest time without lag before shortening; it doubles each time that this did not last."""
_ROOM = 0.8
"""The worker's share of real time up to which a shorter hop is expected to last."""


class HopStretch:
    """Adapts the factor on the hop of live streams, one step of `STRETCHES` at a time, to the worker's lag."""

    def __init__(self) -> None:
        self._step = 0
        self._changed_s = -math.inf
        self._patience = Patience(*_PATIENCE_S)
        self._lag_s = 0.0

    @property
    def factor(self) -> int:
        """The factor on the hop."""
        return STRETCHES[self._step]

    def update(self, now_s: float, lag_s: float, busy: float, windows: float, most: int) -> int:
        """The new factor.

        `lag_s` is the largest lag of a live stream, `busy` the share of the time since the last call in which the
        worker worked, and `windows` the share in which it scored windows, which half the hop would double. `most` is
        the largest factor at which every cell still fits into a window.
        """
        catching_up = lag_s < self._lag_s
        self._lag_s = lag_s
        if lag_s >= _BEHIND_S:
            self._patience.disturbed()
            if not catching_up and now_s - self._changed_s >= _SETTLE_S and self._step + 1 < len(STRETCHES):
                self._step += 1
                self._changed_s = now_s
                self._patience.given_up(now_s)
        elif lag_s > _CAUGHT_UP_S or busy + windows > _ROOM:
            self._patience.disturbed()
        elif self._patience.calm(now_s) and self._step:
            self._step -= 1
            self._changed_s = now_s
            self._patience.tried(now_s)
        while self._step and STRETCHES[self._step] > most:
            self._step -= 1
        return self.factor
