"""The publishing thread: owns the sinks, and sends heartbeats and statuses at regular intervals."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from streamer.errors import SinkError, SinkGoneError, StoreError
from streamer.runtime.board import Board
from streamer.runtime.metrics import Metrics
from streamer.runtime.outages import Outages
from streamer.runtime.outbox import Outbox, Outgoing
from streamer.runtime.reporter import Reporter
from streamer.sinks.base import Fanout, Numberer, Sink
from streamer.sinks.catch_up import CatchUp
from streamer.sinks.store.recorder import Recorder, StorePlan
from streamer.sinks.store.recovery import assumed_offset
from streamer.sinks.wire import OffsetMessage, OnsetMessage

log = logging.getLogger(__name__)

_POLL_S = 0.05
_HEARTBEAT_EVERY_S = 5.0
_STATUS_EVERY_S = 10.0
_MEASURE_EVERY_S = 1.0
"""How often the store is measured."""
_LOG_OVERFLOWS_EVERY_S = 60.0
"""Slow subscribers are logged at most this often."""


@runtime_checkable
class Overflowing(Protocol):
    """A sink with a queue for each subscriber, which counts how often one overflowed."""

    overflows: int


@runtime_checkable
class Guarded(Protocol):
    """A sink that subscribers connect to, and that refuses unauthorized ones."""

    refused: Mapping[str, int]
    """Refused connections, by reason."""


class Publisher(threading.Thread):
    """Stores each message of `outbox` and sends it to every sink, with heartbeats and each stream's status in between.

    Ends when the outbox is closed and empty, or when the last sink is gone. Messages that a sink loses are counted
    and logged. An unexpected exception is passed to `crashed`, and the thread ends.
    """

    def __init__(
        self,
        outbox: Outbox,
        numberer: Numberer,
        sinks: Sequence[Sink],
        board: Board,
        reporter: Reporter,
        metrics: Metrics,
        crashed: Callable[[BaseException], None],
        store: StorePlan | None = None,
        catch_up: CatchUp | None = None,
    ) -> None:
        super().__init__(name="publisher", daemon=True)
        self._outbox = outbox
        self._sinks = sinks
        self._outages = Outages(time.monotonic)
        self._recorder: Recorder | None = None
        if store is not None:
            self._recorder = Recorder(store, numberer.run, time.monotonic, self._store_failed, self._store_worked)
            self._recorder.catch_up = catch_up.endpoint if catch_up is not None else ""
        self._catch_up = catch_up
        self._caught_up = 0
        self._requests: Counter[str] = Counter()
        record = self._recorder.record if self._recorder else list
        self._fanout = Fanout(numberer, sinks, self._sink_failed, self._outages.worked, record)
        self._overflows = self._overflows_logged = 0
        self._overflows_logged_s = float("-inf")
        self._refused: Counter[str] = Counter()
        self._lost = 0
        self._board = board
        self.reporter = reporter
        """Makes statuses and heartbeats; may be replaced at any time."""
        self._metrics = metrics
        self._crashed = crashed
        self._reopen_asked = threading.Event()
        self._began_s = time.monotonic()
        self._reported: dict[str, tuple[int, float]] = {}
        """Stream -> its count of changes at its last status, and when that was sent (monotonic)."""
        self._sent_beat_s = self._measured_s = float("-inf")
        self._open_events: dict[tuple[str, str], tuple[OnsetMessage, float]] = {}
        """Stream and class -> the onset that still lacks its offset, and when it was sent (monotonic)."""
        self.beat_s = time.monotonic()
        """When the thread last did any work (monotonic seconds)."""

    @property
    def no_sink_left(self) -> bool:
        """Whether there were sinks and all of them are gone for good."""
        return self._fanout.all_gone

    def reopen(self) -> None:
        """Ask every sink to reopen its file, as after log rotation; returns at once. May be called from any thread."""
        self._reopen_asked.set()

    def limit_store(self, plan: StorePlan | None) -> None:
        """Change the store's limits, from the next heartbeat on. May be called from any thread."""
        if self._recorder is not None and plan is not None:
            self._recorder.plan = plan

    def run(self) -> None:
        """Send until the outbox is closed and empty, then close the sinks."""
        if self._catch_up is not None:
            self._catch_up.start()
        try:
            while not self._outbox.finished and not self.no_sink_left:
                self._open_store()
                self._by_the_clock(time.monotonic())
                self._send(*self._outbox.take(_POLL_S))
                if self._reopen_asked.is_set():
                    self._reopen_asked.clear()
                    self._fanout.reopen()
                    log.info("reopened outputs: %s", ", ".join(self._fanout.names) or "none")
                self._fanout.poll(0.0)
                self._count_losses(time.monotonic())
            self._by_the_clock(time.monotonic())
            self._end_events(time.monotonic())
            for view in self._board.views():
                if view.state not in ("ended", "failed"):
                    self._send(Outgoing(self.reporter.status(view, stopped=True)))
            self._close_store()
            self._outages.close()
        except BaseException as error:
            self._crashed(error)
        finally:
            if self._catch_up is not None:
                self._catch_up.close()
            self._fanout.close()

    def _end_events(self, now_s: float) -> None:
        """Send the missing offsets of events that the worker did not close in time at shutdown."""
        if self._open_events:
            log.warning(
                "the model did not finish in time; closing its open events (%d) without it", len(self._open_events)
            )
        for onset, sent_s in list(self._open_events.values()):
            offset = assumed_offset(onset, onset.sent_utc_s + now_s - sent_s, float("inf"), "shutdown")
            self._send(Outgoing(offset))

    def _open_store(self) -> None:
        """Open the store unless it is open, and send the offsets of events that an earlier run left open."""
        if self._recorder is not None:
            self._send(*map(Outgoing, self._recorder.open()))

    def _close_store(self) -> None:
        if self._recorder is not None:
            self._recorder.close()

    def _store_failed(self, error: StoreError, lost: int) -> None:
        self._metrics.store_failed(error.reason)
        self._outages.failed("store", f"{error} (live messages are still sent)", lost)

    def _store_worked(self) -> None:
        self._outages.worked("store")

    def _sink_failed(self, sink: str, error: SinkError) -> None:
        self._metrics.sink_error(sink)
        if isinstance(error, SinkGoneError):
            left = self._fanout.names
            log.error(
                "%s: %s; %s", sink, error, f"still publishing to {', '.join(left)}" if left else "no sink is left"
            )
        else:
            self._outages.failed(sink, str(error))

    def _count_losses(self, now_s: float) -> None:
        """Count messages lost to slow subscribers and in the outbox, and refused connections."""
        overflows = sum(sink.overflows for sink in self._sinks if isinstance(sink, Overflowing))
        self._metrics.overflowed(overflows - self._overflows)
        self._overflows = overflows
        for sink in self._sinks:
            for reason, count in sink.refused.items() if isinstance(sink, Guarded) else ():
                self._metrics.refused("zmq", reason, count - self._refused[reason])
                self._refused[reason] = count
        if overflows != self._overflows_logged and now_s - self._overflows_logged_s >= _LOG_OVERFLOWS_EVERY_S:
            log.warning(
                "a subscriber is too slow and misses messages, others do not; its queue ran full %d more times",
                overflows - self._overflows_logged,
            )
            self._overflows_logged, self._overflows_logged_s = overflows, now_s
        lost = self._outbox.lost
        if lost != self._lost:
            why = "messages arrive faster than the sinks take them; dropping the oldest, tags and scores first"
            self._outages.failed("queue of messages", why, lost - self._lost)
            self._lost = lost
        else:
            self._outages.worked("queue of messages")

    def _count_requests(self, catch_up: CatchUp) -> None:
        """Count the catch-up requests by their results."""
        catch_up.check()
        for result, count in catch_up.results.items():
            self._metrics.caught_up(result, count - self._requests[result])
            self._requests[result] = count
        messages = catch_up.messages
        self._metrics.caught_up_messages(messages - self._caught_up)
        self._caught_up = messages

    def _by_the_clock(self, now_s: float) -> None:
        self.beat_s = now_s
        streams = self._board.snapshot()
        self._reported = {view.name: self._reported.get(view.name, (-1, 0.0)) for view, _ in streams}
        for view, changes in streams:
            before, at_s = self._reported[view.name]
            if changes != before or now_s - at_s >= _STATUS_EVERY_S:
                self._reported[view.name] = (changes, now_s)
                self._send(Outgoing(self.reporter.status(view)))
        if now_s - self._sent_beat_s >= _HEARTBEAT_EVERY_S:
            self._sent_beat_s = now_s
            uptime_s = now_s - self._began_s
            self._send(Outgoing(self.reporter.heartbeat(self._board.views(), _HEARTBEAT_EVERY_S, uptime_s)))
        if self._recorder is not None and now_s - self._measured_s >= _MEASURE_EVERY_S:
            self._measured_s = now_s
            self._metrics.store(self._recorder.works, self._recorder.waiting, self._recorder.content())
            for why, count in self._recorder.removed.items():
                self._metrics.store_removed(why, count)
            self._recorder.removed.clear()
        if self._catch_up is not None:
            self._count_requests(self._catch_up)

    def _send(self, *outgoing: Outgoing) -> None:
        """Send messages, storing them in one commit, because each commit waits for the disk."""
        began_s = time.perf_counter()
        sent = self._fanout.send([one.message for one in outgoing])
        took_s = time.perf_counter() - began_s
        self.beat_s = time.monotonic()
        for one, message in zip(outgoing, sent, strict=True):
            self._metrics.stage("publish", took_s / len(outgoing))
            if isinstance(message, OffsetMessage):
                self._open_events.pop((message.stream, message.label), None)
            if isinstance(message, OnsetMessage):
                self._open_events[message.stream, message.label] = message, self.beat_s
                arrived_s = one.onset_arrival_utc_s
                latency_s = None if arrived_s is None else message.sent_utc_s - arrived_s
                self._metrics.onset(message.stream, message.label, latency_s)
        if self._recorder is not None:
            self._recorder.explain(
                [
                    (message.stored_seq, one.evidence)
                    for one, message in zip(outgoing, sent, strict=True)
                    if one.evidence is not None and isinstance(message, (OnsetMessage, OffsetMessage))
                ]
            )
