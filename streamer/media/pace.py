"""Measures how evenly a live source's media arrives, so that a burst is not mistaken for a backlog, nor the pause
after it for a stall. Reads no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MAX_PATIENCE_S = 120.0
"""The longest pause that is tolerated after a burst."""
_WINDOW_S = 120.0
"""Bursts longer ago than this do not predict the next pause."""
_LOOK_S = 0.25
"""Period over which it is decided whether the reader mostly waits."""
_PAUSE = 1.5
"""How much longer than the longest burst a pause may be: an HLS client that asks for a segment too early asks again
half a segment later (RFC 8216, 6.3.4).
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How the latest media of a source arrived."""

    lead_s: float = 0.0
    """Seconds by which it is early because it came in a burst."""
    patience_s: float = 0.0
    """Seconds without media that are not a stall for this source."""


class Pace:
    """Measures the bursts of one connection: `push` every packet of one track.

    The reader has caught up with the source when it mostly waits for it. What it then reads without waiting was already
    there, however long reading takes: the reader's own delays do not count as the source's.
    """

    def __init__(self, opening_s: float = 0.0) -> None:
        """`opening_s`: how long opening took; media that queued up meanwhile is no burst."""
        self._media_s = -opening_s  # total that arrived
        self._waited_s = 0.0  # in reads, since `_looked_s`
        self._looked_s: float | None = None
        self._due_s = 0.0  # arrival less media time when the reader last caught up
        self._offsets: deque[tuple[int, float, float]] = deque()  # second, least and greatest arrival less media time

    def push(self, now_s: float, waited_s: float, media_s: float) -> None:
        """Record that `media_s` seconds of media arrived at `now_s` (monotonic) after the reader waited `waited_s`."""
        self._waited_s += waited_s
        if self._looked_s is None:
            self._catch_up(now_s)
        elif now_s - self._looked_s >= _LOOK_S:
            if self._waited_s >= (now_s - self._looked_s) / 2:
                self._catch_up(now_s)
            self._looked_s, self._waited_s = now_s, 0.0
        self._note(now_s)
        self._media_s += media_s
        self._note(now_s)

    def arrival(self, now_s: float) -> Arrival:
        """How the latest media arrived, as of `now_s`."""
        if self._looked_s is None:
            return Arrival()
        return Arrival(self._due_s + self._media_s - now_s, min(_PAUSE * self.burst_s, MAX_PATIENCE_S))

    @property
    def burst_s(self) -> float:
        """Length of the longest recent burst in seconds; near 0 for an even source."""
        if not self._offsets:
            return 0.0
        return max(one[2] for one in self._offsets) - min(one[1] for one in self._offsets)

    def _catch_up(self, now_s: float) -> None:
        self._looked_s, self._waited_s = now_s, 0.0
        self._due_s = now_s - self._media_s

    def _note(self, now_s: float) -> None:
        # Measured when it was read, not when it became available: what matters is the pause that the reader sees.
        offset_s, second = now_s - max(self._media_s, 0.0), int(now_s)
        if self._offsets and self._offsets[-1][0] == second:
            _, least_s, greatest_s = self._offsets.pop()
            self._offsets.append((second, min(least_s, offset_s), max(greatest_s, offset_s)))
        else:
            self._offsets.append((second, offset_s, offset_s))
        while self._offsets[0][0] < now_s - _WINDOW_S:
            self._offsets.popleft()
