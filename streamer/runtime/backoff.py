"""How long to wait before the next try: exponential backoff with full jitter, forgotten after a healthy while."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Waits grow from `first_s` to at most `last_s`; each is drawn evenly from 0 to that limit ("full jitter").

    The jitter keeps the cameras behind one switch from all coming back in the same second. A connection that
    was healthy for `reset_s` clears the memory, so that one stall a day never adds up to a long wait.
    """

    def __init__(self, first_s: float, last_s: float, reset_s: float, uniform: Callable[[float, float], float]) -> None:
        """`uniform(a, b)` draws the jitter, e.g. `random.Random().uniform`."""
        self._first_s = first_s
        self._last_s = last_s
        self._reset_s = reset_s
        self._uniform = uniform
        self._limit_s = first_s

    def lost(self, healthy_s: float) -> float:
        """The connection is gone after `healthy_s` seconds of health (0 if it never stood): seconds to wait now."""
        if healthy_s >= self._reset_s:
            self._limit_s = self._first_s
        limit_s = self._limit_s
        self._limit_s = min(2.0 * limit_s, self._last_s)
        return self._uniform(0.0, limit_s)
