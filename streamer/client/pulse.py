"""Detects publishers that have fallen silent. Does no I/O and reads no clock."""

from __future__ import annotations

import math

from streamer.errors import HeartbeatLostError
from streamer.sinks.wire import Head, HeartbeatMessage, Message


class Pulse:
    """When each publisher was last heard, and which ones have fallen silent. Times are monotonic seconds."""

    def __init__(self, where: str, lost_after_s: float | None, now_s: float) -> None:
        """`where`: the endpoints, for error texts. `lost_after_s` None: silence is not an error."""
        self._where = where
        self._lost_after_s = lost_after_s
        self._heard_s: dict[str, float] = {}
        self._interval_s: dict[str, float] = {}
        self._begun_s = now_s

    def push(self, message: Message | Head, now_s: float) -> None:
        """Note that a message of this publisher arrived."""
        self._heard_s[message.publisher] = now_s
        if isinstance(message, HeartbeatMessage):
            self._interval_s[message.publisher] = message.interval_s

    def next_s(self) -> float:
        """When the next publisher counts as lost."""
        if self._lost_after_s is None:
            return math.inf
        if not self._heard_s:
            return self._begun_s + self._lost_after_s
        return min(heard_s + self._patience_s(publisher) for publisher, heard_s in self._heard_s.items())

    def lost(self, now_s: float) -> list[HeartbeatLostError]:
        """The publishers that have fallen silent; each is reported once until it is heard again."""
        if now_s < self.next_s():
            return []
        if not self._heard_s:
            silent_s, self._begun_s = now_s - self._begun_s, now_s
            return [
                HeartbeatLostError(None, f"{self._where}: nothing heard for {silent_s:.0f} s; is a daemon running?")
            ]
        found = []
        for publisher, heard_s in list(self._heard_s.items()):
            if now_s >= heard_s + self._patience_s(publisher):
                del self._heard_s[publisher]  # until it is heard again
                self._begun_s = now_s
                text = f"publisher {publisher}: silent for {now_s - heard_s:.0f} s; is it still running?"
                found.append(HeartbeatLostError(publisher, text))
        return found

    def _patience_s(self, publisher: str) -> float:
        return max(self._lost_after_s or 0.0, 2 * self._interval_s.get(publisher, 0.0))
