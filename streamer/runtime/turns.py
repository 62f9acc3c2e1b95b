"""Which streams get a turn: late ones first, recordings last. Reads no clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

Lane = TypeVar("Lane")

_CALM_S = 0.25
"""While live media is less late than this, recordings may take turns freely."""
_REST = 9
"""Rest after a recording's turn, in multiples of that turn, while live streams are late: recordings get a tenth."""


def urgent(lanes: Sequence[Lane], late_s: Callable[[Lane], float], holds: Callable[[Lane], bool]) -> list[Lane]:
    """The live streams that get a turn now. While one is late, streams whose media came early in a burst wait.

    Streams with empty queues keep their turns, because that is where stalls are detected.
    """
    late = {lane: late_s(lane) for lane in lanes}
    pressed = max(late.values(), default=0.0) >= _CALM_S
    return [lane for lane in lanes if not (pressed and late[lane] == 0.0 and holds(lane))]


class RecordingTurns:
    """Decides when recordings get turns. Live streams come first, because they lose media that waits too long."""

    def __init__(self) -> None:
        self._took_s = 0.0
        self._ended_s = -math.inf
        self._owed_s = 0.0

    def may_begin(self, now_s: float, late_s: float) -> bool:
        """Whether recordings may have a turn now, while live media is up to `late_s` seconds late."""
        return late_s < _CALM_S or now_s - self._ended_s >= _REST * self._took_s

    def ended(self, began_s: float, now_s: float) -> None:
        """Recordings had their turns from `began_s` to `now_s`."""
        self._took_s, self._ended_s = now_s - began_s, now_s
        self._owed_s += self._took_s

    def own_late_s(self, late_s: float) -> float:
        """`late_s` without the delay that recordings caused, for which no live pictures should be shed."""
        self._owed_s = min(self._owed_s, late_s)
        return late_s - self._owed_s
