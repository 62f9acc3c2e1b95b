"""How long to wait before the next attempt: exponential backoff with full jitter, reset after a healthy period.

A rejected user or password (401 and 403 alike) has longer waits, because cameras lock accounts. FFmpeg spends one login
per attempt, with basic and digest authentication, over RTSP and HTTP (measured through a relay before a real server).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_LATER = 1.2
"""A wait after a refusal is from 1 to so many times its limit: jitter must not shorten it."""


@dataclass(frozen=True, slots=True)
class BackoffLimits:
    """Limits of the waits, in seconds."""

    first_s: float
    last_s: float
    reset_s: float  # healthy time that resets the waits
    refused_first_s: float  # after a rejected user or password
    refused_last_s: float


class Backoff:
    """Waits grow from `first_s` to at most `last_s`; each is drawn uniformly from 0 to that limit ("full jitter").

    Jitter keeps the cameras behind one switch from being reconnected in the same second. A connection that was healthy
    for `reset_s` resets the waits, so that one stall a day never adds up to a long wait.

    Cameras lock an account after a few wrong passwords. So after a refusal the wait is at least `refused_first_s`, and
    doubles up to `refused_last_s`. Only media resets these waits.
    """

    def __init__(self, limits: BackoffLimits, uniform: Callable[[float, float], float]) -> None:
        """`uniform(a, b)` draws the jitter, e.g. `random.Random().uniform`."""
        self.limits = limits
        """May be changed at any time; the next wait follows them."""
        self._uniform = uniform
        self._limit_s = limits.first_s
        self._refused_limit_s = limits.refused_first_s
        self.refusals = 0
        """Attempts that were refused since media last arrived."""

    def lost(self, healthy_s: float, *, refused: bool = False) -> float:
        """Seconds to wait after a connection that was healthy for `healthy_s` (0 if it was never opened).

        `refused`: the source rejected the user or password.
        """
        if healthy_s >= self.limits.reset_s:
            self._limit_s = self.limits.first_s
        if healthy_s > 0:
            self.refusals = 0
            self._refused_limit_s = self.limits.refused_first_s
        if refused:
            self.refusals += 1
            limit_s = min(self._refused_limit_s, self.limits.refused_last_s)
            self._refused_limit_s = min(2.0 * limit_s, self.limits.refused_last_s)
            return self._uniform(limit_s, _LATER * limit_s)
        limit_s = min(self._limit_s, self.limits.last_s)
        self._limit_s = min(2.0 * limit_s, self.limits.last_s)
        return self._uniform(0.0, limit_s)
