"""How long to wait before the next try: exponential backoff with full jitter, forgotten after a healthy while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_LATER = 1.2
"""A wait after a refusal is up to so many times its limit: it must not be shorter."""


@dataclass(frozen=True, slots=True)
class BackoffLimits:
    """Limits of the waits, in seconds."""

    first_s: float
    last_s: float
    reset_s: float  # health that clears the memory
    refused_first_s: float  # after a refused user or password
    refused_last_s: float


class Backoff:
    """Waits grow from `first_s` to at most `last_s`; each is drawn evenly from 0 to that limit ("full jitter").

    The jitter keeps the cameras behind one switch from all coming back in the same second. A connection that
    was healthy for `reset_s` clears the memory, so that one stall a day never adds up to a long wait.

    Cameras lock an account after a few wrong passwords, and a wrong one does not get right by itself. So after a
    refusal the waits are at least `refused_first_s`, twice as long each time, up to `refused_last_s`. Only media that
    comes clears that memory.
    """

    def __init__(self, limits: BackoffLimits, uniform: Callable[[float, float], float]) -> None:
        """`uniform(a, b)` draws the jitter, e.g. `random.Random().uniform`."""
        self._limits = limits
        self._uniform = uniform
        self._limit_s = limits.first_s
        self._refused_limit_s = limits.refused_first_s
        self.refusals = 0
        """Tries that were refused since media last came."""

    def lost(self, healthy_s: float, *, refused: bool = False) -> float:
        """The connection is gone after `healthy_s` seconds of health (0 if it never stood): seconds to wait now.

        `refused`: because of the user or the password.
        """
        if healthy_s >= self._limits.reset_s:
            self._limit_s = self._limits.first_s
        if healthy_s > 0:
            self.refusals = 0
            self._refused_limit_s = self._limits.refused_first_s
        if refused:
            self.refusals += 1
            limit_s = self._refused_limit_s
            self._refused_limit_s = min(2.0 * limit_s, self._limits.refused_last_s)
            return self._uniform(limit_s, _LATER * limit_s)
        limit_s = self._limit_s
        self._limit_s = min(2.0 * limit_s, self._limits.last_s)
        return self._uniform(0.0, limit_s)
