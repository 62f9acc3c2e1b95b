"""Stores messages before they are sent, and never stands in their way: what a store can't take now waits, in bounds."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from streamer.errors import StoreError
from streamer.evidence import Evidence
from streamer.sinks.store.recovery import assumed_offset
from streamer.sinks.store.retention import Limits
from streamer.sinks.store.tables import Kept
from streamer.sinks.store.writing import Content, Store
from streamer.sinks.wire import HeartbeatMessage, Message, OffsetMessage

log = logging.getLogger(__name__)

_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 60.0
_STAYS_OPEN = frozenset({"full", "busy"})
"""After other errors the file is opened anew, and so checked."""


@dataclass(frozen=True, slots=True)
class StorePlan:
    """Which store a daemon has."""

    path: Path
    limits: Limits
    longest_event_s: float  # no event is longer
    most_waiting: int = 10_000  # messages that wait at most while the store does not work; beyond, the oldest are lost


class Recorder:
    """Owns a daemon's store, for the publishing thread. A store that fails is tried again, ever more rarely.

    Messages that it could not take go out with `stored_seq` 0 and wait: once the store works they are stored, before
    those that come later.
    """

    def __init__(
        self,
        plan: StorePlan,
        run: str,
        clock_s: Callable[[], float],
        failed: Callable[[StoreError, int], None],
        worked: Callable[[], None],
    ) -> None:
        """Nothing is opened yet.

        Args:
            plan: which store.
            run: this run's name, in its messages.
            clock_s: monotonic seconds.
            failed: hears of each failure, and how many messages more will never be stored.
            worked: hears of each success.

        """
        self._path = plan.path
        self.plan = plan
        """May be changed at any time, but for its path."""
        self._run = run
        self._clock_s = clock_s
        self._failed = failed
        self._worked = worked
        self._store: Store | None = None
        self._retry_s = float("-inf")
        self._wait_s = _FIRST_RETRY_S
        self._waiting: deque[Kept] = deque()
        self._sent_through = 0
        self.catch_up = ""
        """The endpoint that answers what was missed; empty: none."""
        self.failures: Counter[str] = Counter()
        """How often the store failed, by the `StoreError`'s reason."""
        self.removed: Counter[str] = Counter()
        """Messages that were removed: too old (`age`), or too much (`size`)."""

    @property
    def works(self) -> bool:
        """Whether the next message can be stored, as far as is known."""
        return self._store is not None and self._retry_s == float("-inf")

    @property
    def waiting(self) -> int:
        """Messages that are sent but not stored yet."""
        return len(self._waiting)

    def open(self) -> list[OffsetMessage]:
        """Open the store unless that was done or failed a moment ago.

        Returns:
            The offsets of events that were open when an earlier run was killed; to be recorded and sent first.

        """
        if self._store is not None and self._store.moved:
            log.warning("event store %s was moved or removed; a new one begins", self._path)
            self._close_store()
        if self._store is not None or self._clock_s() < self._retry_s:
            return []
        try:
            self._store = Store(self._path, self.plan.limits)
            onsets, alive_utc_s = self._store.unfinished(self._run)
            stored_seq = self._store.newest_seq(self._run)
        except StoreError as error:
            self._broke(error)
            return []
        # A commit whose end was not seen may have been one.
        self._waiting = deque(message for message in self._waiting if message.seq > stored_seq)
        self._sent_through = self._store.through
        self._retry_s = float("-inf")
        log.info(
            "event store %s: %s, id %s, up to number %d%s",
            self._path,
            "new" if self._store.began else "continued",
            self._store.id,
            self._store.through,
            f"; {len(onsets)} events were open in a run that was killed" if onsets else "",
        )
        return [assumed_offset(onset, alive_utc_s, self.plan.longest_event_s, "crash") for onset in onsets]

    def record(self, messages: Sequence[Message]) -> list[Message]:
        """Store what is to be stored of some numbered messages; returns all as they are to be sent.

        A heartbeat says up to which number messages were sent; with it the store is kept within its limits.
        """
        kept = [message for message in messages if isinstance(message, Kept)]
        beats = [message for message in messages if isinstance(message, HeartbeatMessage)]
        stored = self._stored(kept, beats[-1].sent_utc_s if beats else None)
        outgoing: list[Message] = []
        for message in messages:
            if isinstance(message, HeartbeatMessage):
                outgoing.append(self._with_numbers(message))
            else:
                message = stored.get(message.seq, message)
                self._sent_through = max(self._sent_through, message.stored_seq)
                outgoing.append(message)
        return outgoing

    def explain(self, evidence: Sequence[tuple[int, Evidence]]) -> None:
        """Keep what explains onsets and offsets, by the `stored_seq` with which they were sent.

        What was not stored (0), or can't be now, stays unexplained: the events themselves are what must not be lost.
        """
        stored = [(seq, one) for seq, one in evidence if seq]
        if not stored or self._store is None or not self.works:
            return
        try:
            self._store.explain(stored)
        except StoreError as error:
            self._broke(error)

    def content(self) -> Content | None:
        """How much the store holds; None: it does not work."""
        try:
            return self._store.content() if self._store is not None else None
        except StoreError as error:
            self._broke(error)
            return None

    def close(self) -> None:
        """Try once more to store what waits, then close the store. Never raises."""
        if self._waiting and self._store is not None:
            self._retry_s = float("-inf")
            self._stored([], None)
        if self._waiting:
            error = StoreError("other", f"event store {self._path}: did not work again before the end")
            self._failed(error, len(self._waiting))
            self._waiting.clear()
        self._close_store()

    def _stored(self, kept: Sequence[Kept], beat_utc_s: float | None) -> dict[int, Kept]:
        """Store what waits and `kept`; the latter as stored, by `seq`. Empty if the store does not work."""
        if self._store is None or self._clock_s() < self._retry_s:
            self._wait(kept)
            return {}
        if not kept and not self._waiting and beat_utc_s is None:
            return {}
        done: list[Kept] = []
        try:
            if kept or self._waiting:
                done = self._store.append([*self._waiting, *kept])
        except StoreError as error:
            self._broke(error)
            self._wait(kept)
            return {}
        self._waiting.clear()
        if not kept:
            self._sent_through = self._store.through  # what waited was sent before
        self._retry_s = float("-inf")
        if beat_utc_s is not None:
            self._keep_within_limits(self._store, beat_utc_s)
        if self.works:
            self._wait_s = _FIRST_RETRY_S
            self._worked()
        return {message.seq: message for message in done[len(done) - len(kept) :]}

    def _keep_within_limits(self, store: Store, utc_s: float) -> None:
        store.limits = self.plan.limits
        try:
            why, count = store.alive(utc_s)
        except StoreError as error:
            self._broke(error)
            return
        if why:
            self.removed[why] += count

    def _with_numbers(self, beat: HeartbeatMessage) -> HeartbeatMessage:
        if self._store is None:
            return msgspec.structs.replace(beat, catch_up=self.catch_up)
        return msgspec.structs.replace(
            beat, catch_up=self.catch_up, store=self._store.id, stored_through=self._sent_through
        )

    def _wait(self, kept: Sequence[Kept]) -> None:
        self._waiting.extend(kept)
        over = len(self._waiting) - self.plan.most_waiting
        if over > 0:
            for _ in range(over):
                self._waiting.popleft()
            self._failed(StoreError("other", f"event store {self._path}: too many messages wait for it"), over)

    def _broke(self, error: StoreError) -> None:
        self.failures[error.reason] += 1
        self._retry_s = self._clock_s() + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LAST_RETRY_S)
        self._failed(error, 0)
        if error.reason not in _STAYS_OPEN:
            self._close_store()

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
