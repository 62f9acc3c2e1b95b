"""How much of a stream's last minute was processed."""

from __future__ import annotations

from collections import deque

_COVERAGE_S = 60.0


class RecentCoverage:
    """The share of the last minute for which media was processed; time without a connection counts as none."""

    def __init__(self) -> None:
        self._parts: deque[tuple[float, float, float]] = deque()  # when, seconds, of which covered
        self._began_s: float | None = None

    def push(self, now_s: float, seconds: float, covered_s: float) -> None:
        """`seconds` of stream time became known at `now_s`, `covered_s` of them with media."""
        if self._began_s is None:
            self._began_s = now_s
        self._parts.append((now_s, seconds, covered_s))

    def ratio(self, now_s: float, slack_s: float | None = None) -> float:
        """0 to 1; 0 while nothing is known.

        A live stream's minute lasts a minute, whatever was pushed: time that is due and not yet known counts as not
        covered, once it exceeds `slack_s`. None: a recording, whose time passes only as it is processed.
        """
        while self._parts and self._parts[0][0] < now_s - _COVERAGE_S:
            self._parts.popleft()
        if self._began_s is None:
            return 0.0
        known_s = sum(part[1] for part in self._parts)
        due_s = 0.0 if slack_s is None else min(_COVERAGE_S, now_s - self._began_s) - slack_s
        total_s = max(known_s, due_s)
        return sum(part[2] for part in self._parts) / total_s if total_s > 0 else 0.0
