"""How long to wait before a setting that was given up under load is tried again. It reads no clock."""

from __future__ import annotations

import math


class Patience:
    """The wait doubles each time that a trial did not last, and is short again after one that did."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._wait_s = first_s
        self._tried_s = -math.inf
        self._calm_since_s: float | None = None

    def calm(self, now_s: float) -> bool:
        """There is no lag now; whether that has lasted for long enough to try."""
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        return now_s - self._calm_since_s >= self._wait_s

    def disturbed(self) -> None:
        """There is lag, or no room."""
        self._calm_since_s = None

    def tried(self, now_s: float) -> None:
        """The setting is tried again from now on."""
        self._tried_s = self._calm_since_s = now_s

    def given_up(self, now_s: float) -> None:
        """A setting was given up."""
        lost_again = now_s - self._tried_s < 2 * self._wait_s
        self._wait_s = min(2 * self._wait_s, self._longest_s) if lost_again else self._first_s
