"""How evenly a live source's media comes: what arrives in bursts must not be taken for a backlog, nor its pauses for a
stall. Reads no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MAX_PATIENCE_S = 120.0
"""The longest pause that any burst excuses."""
_WINDOW_S = 120.0
"""What was longer ago says nothing of the next pause."""
_LOOK_S = 0.25
"""How long reading is looked at before it is said whether the reader mostly waits."""
_PAUSE = 1.5
"""A pause may be that much longer than the longest burst: an HLS client that asks for a segment a moment too early asks
again half a segment later (RFC 8216, 6.3.4).
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How the newest media of a source came."""

    lead_s: float = 0.0
    """Seconds by which it is here before it is due: it came in a burst, and an even source would have it later."""
    patience_s: float = 0.0
    """Seconds of silence that are no stall with this source."""


class Pace:
    """What the arrival of one connection's media says of the source: `push` for every packet of one track.

    A source has been caught up with when the reader mostly waits for it. What is read at once after that has been there
    already, however long it takes to read it: the reader's own waiting is not held against the source.
    """

    def __init__(self, opening_s: float = 0.0) -> None:
        """`opening_s`: how long opening took; what an even source sent meanwhile comes at once, and is no burst."""
        self._media_s = -opening_s  # the sum of what came
        self._waited_s = 0.0  # in reads, since `_looked_s`
        self._looked_s: float | None = None
        self._due_s = 0.0  # when the media at the last catching up was there, less its place: how `_media_s` runs
        self._offsets: deque[tuple[int, float, float]] = deque()  # second, least and greatest arrival less media time

    def push(self, now_s: float, waited_s: float, media_s: float) -> None:
        """`media_s` more seconds of media came at `now_s` (monotonic), for which the reader waited `waited_s`."""
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
        """How the newest media came, seen at `now_s`."""
        if self._looked_s is None:
            return Arrival()
        return Arrival(self._due_s + self._media_s - now_s, min(_PAUSE * self.burst_s, MAX_PATIENCE_S))

    @property
    def burst_s(self) -> float:
        """Seconds of media that came at once at most, lately; near 0 for an even source."""
        if not self._offsets:
            return 0.0
        return max(one[2] for one in self._offsets) - min(one[1] for one in self._offsets)

    def _catch_up(self, now_s: float) -> None:
        self._looked_s, self._waited_s = now_s, 0.0
        self._due_s = now_s - self._media_s

    def _note(self, now_s: float) -> None:
        # By when it was read, not by when it may have been there: the pause as the reader sees it is what is asked for.
        offset_s, second = now_s - max(self._media_s, 0.0), int(now_s)
        if self._offsets and self._offsets[-1][0] == second:
            _, least_s, greatest_s = self._offsets.pop()
            self._offsets.append((second, min(least_s, offset_s), max(greatest_s, offset_s)))
        else:
            self._offsets.append((second, offset_s, offset_s))
        while self._offsets[0][0] < now_s - _WINDOW_S:
            self._offsets.popleft()
