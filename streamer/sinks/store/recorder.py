"""Stores messages before they are sent. A failing store never delays them: they wait in a bounded queue."""

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
from streamer.sinks.store.tables import Storable
from streamer.sinks.store.writing import Content, Store
from streamer.sinks.wire import HeartbeatMessage, Message, OffsetMessage

log = logging.getLogger(__name__)

_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 60.0
_STAYS_OPEN = frozenset({"full", "busy"})
"""After any other error the file is reopened, and thereby checked."""


@dataclass(frozen=True, slots=True)
class StorePlan:
    """A daemon's store: where it is, and its limits."""

    path: Path
    limits: Limits
    longest_event_s: float  # maximum duration of an event
    max_waiting: int = 10_000  # messages that wait while the store fails; beyond this the oldest are never stored


class Recorder:
    """Owns a daemon's store; used by the publishing thread. A failing store is retried with exponential backoff.

    Messages that can't be stored are sent with `stored_seq` 0 and wait. When the store works again, they are stored
    before all later messages.
    """

    def __init__(
        self,
        plan: StorePlan,
        run: str,
        clock_s: Callable[[], float],
        failed: Callable[[StoreError, int], None],
        worked: Callable[[], None],
    ) -> None:
        """Does not open the store: `open` does.

        Args:
            plan: the store.
            run: the `run` of this daemon's messages.
            clock_s: monotonic seconds.
            failed: called after each failure, with the number of messages that will therefore never be stored.
            worked: called after each success.

        """
        self._path = plan.path
        self.plan = plan
        """May be replaced at any time by one with the same path."""
        self._run = run
        self._clock_s = clock_s
        self._failed = failed
        self._worked = worked
        self._store: Store | None = None
        self._retry_s = float("-inf")
        self._wait_s = _FIRST_RETRY_S
        self._waiting: deque[Storable] = deque()
        self._sent_through = 0
        self.catch_up = ""
        """The catch-up endpoint; empty: none."""
        self.failures: Counter[str] = Counter()
        """Number of failures by the reason of the `StoreError`."""
        self.removed: Counter[str] = Counter()
        """Number of removed messages by limit: `age` or `size`."""

    @property
    def works(self) -> bool:
        """Whether the store is open and its last operation succeeded."""
        return self._store is not None and self._retry_s == float("-inf")

    @property
    def waiting(self) -> int:
        """Number of messages that were sent but are not stored yet."""
        return len(self._waiting)

    def open(self) -> list[OffsetMessage]:
        """Open the store, unless it is open or its next retry is not due.

        Returns:
            Offsets for the events that were open when an earlier run was killed. Record and send them first.

        """
        if self._store is not None and self._store.moved:
            log.warning("event store %s was moved or removed; a new one is created", self._path)
            self._close_store()
        if self._store is not None or self._clock_s() < self._retry_s:
            return []
        try:
            self._store = Store(self._path, self.plan.limits)
            onsets, alive_utc_s = self._store.unfinished(self._run)
            stored_seq = self._store.newest_seq(self._run)
        except StoreError as error:
            self._note_failure(error)
            return []
        # A commit that returned an error may still have succeeded: do not store its messages twice.
        self._waiting = deque(message for message in self._waiting if message.seq > stored_seq)
        self._sent_through = self._store.through
        self._retry_s = float("-inf")
        log.info(
            "event store %s: %s, id %s, newest stored_seq %d%s",
            self._path,
            "new" if self._store.is_new else "continued",
            self._store.id,
            self._store.through,
            f"; events left open by a run that was killed: {len(onsets)}" if onsets else "",
        )
        return [assumed_offset(onset, alive_utc_s, self.plan.longest_event_s, "crash") for onset in onsets]

    def record(self, messages: Sequence[Message]) -> list[Message]:
        """Store the onsets, offsets and statuses among numbered messages; returns all messages, ready to be sent.

        A heartbeat gets the number through which messages were sent, and also triggers a check of the store's limits.
        """
        kept = [message for message in messages if isinstance(message, Storable)]
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
        """Store the evidence of onsets and offsets, by the `stored_seq` with which they were sent.

        Evidence of a message that was not stored (0) is dropped, and so is evidence that can't be stored now: only
        messages are retried.
        """
        stored = [(seq, one) for seq, one in evidence if seq]
        if not stored or self._store is None or not self.works:
            return
        try:
            self._store.explain(stored)
        except StoreError as error:
            self._note_failure(error)

    def content(self) -> Content | None:
        """The store's content in numbers; None: it can't be read."""
        try:
            return self._store.content() if self._store is not None else None
        except StoreError as error:
            self._note_failure(error)
            return None

    def close(self) -> None:
        """Try once more to store the waiting messages, then close the store. Never raises."""
        if self._waiting and self._store is not None:
            self._retry_s = float("-inf")
            self._stored([], None)
        if self._waiting:
            error = StoreError("other", f"event store {self._path}: it still failed at shutdown")
            self._failed(error, len(self._waiting))
            self._waiting.clear()
        self._close_store()

    def _stored(self, kept: Sequence[Storable], beat_utc_s: float | None) -> dict[int, Storable]:
        """Store the waiting messages and `kept`; returns the latter as stored, by `seq`. Empty if the store fails."""
        if self._store is None or self._clock_s() < self._retry_s:
            self._wait(kept)
            return {}
        if not kept and not self._waiting and beat_utc_s is None:
            return {}
        done: list[Storable] = []
        try:
            if kept or self._waiting:
                done = self._store.append([*self._waiting, *kept])
        except StoreError as error:
            self._note_failure(error)
            self._wait(kept)
            return {}
        self._waiting.clear()
        if not kept:
            self._sent_through = self._store.through  # the waiting messages were sent earlier
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
            self._note_failure(error)
            return
        if why:
            self.removed[why] += count

    def _with_numbers(self, beat: HeartbeatMessage) -> HeartbeatMessage:
        if self._store is None:
            return msgspec.structs.replace(beat, catch_up=self.catch_up)
        return msgspec.structs.replace(
            beat, catch_up=self.catch_up, store=self._store.id, stored_through=self._sent_through
        )

    def _wait(self, kept: Sequence[Storable]) -> None:
        self._waiting.extend(kept)
        over = len(self._waiting) - self.plan.max_waiting
        if over > 0:
            for _ in range(over):
                self._waiting.popleft()
            self._failed(
                StoreError("other", f"event store {self._path}: the queue of messages waiting for it is full"), over
            )

    def _note_failure(self, error: StoreError) -> None:
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
