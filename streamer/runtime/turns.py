"""Which streams have their turns: what is late first, recordings last. It reads no clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

Lane = TypeVar("Lane")

_CALM_S = 0.25
"""Live media that is less late than this does not suffer from a recording's turn."""
_REST = 9
"""If live streams are late all the time, recordings still have one tenth of it: they go on, if slowly."""


def urgent(lanes: Sequence[Lane], late_s: Callable[[Lane], float], holds: Callable[[Lane], bool]) -> list[Lane]:
    """The live streams that have their turns now: while one is late, those whose media is not even due wait.

    That is the media of a burst, which came early. Streams that hold nothing keep their turns: silence is seen there.
    """
    late = {lane: late_s(lane) for lane in lanes}
    pressed = max(late.values(), default=0.0) >= _CALM_S
    return [lane for lane in lanes if not (pressed and late[lane] == 0.0 and holds(lane))]


class RecordingTurns:
    """Live streams come first: a recording can wait for the model, a live stream loses what waits for too long."""

    def __init__(self) -> None:
        self._took_s = 0.0
        self._ended_s = -math.inf
        self._owed_s = 0.0

    def may_begin(self, now_s: float, late_s: float) -> bool:
        """Whether recordings may have a turn now, while the worst live stream's media is `late_s` late."""
        return late_s < _CALM_S or now_s - self._ended_s >= _REST * self._took_s

    def ended(self, began_s: float, now_s: float) -> None:
        """Recordings have had their turns from `began_s` to now."""
        self._took_s, self._ended_s = now_s - began_s, now_s
        self._owed_s += self._took_s

    def own_late_s(self, late_s: float) -> float:
        """How late live media is by its own fault: what recordings held it up by is no reason to look at less of it."""
        self._owed_s = min(self._owed_s, late_s)
        return late_s - self._owed_s
