"""The publishing thread: owns the sinks, and says by the clock how the streams are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from streamer.errors import SinkError
from streamer.runtime.board import Board
from streamer.runtime.metrics import Metrics
from streamer.runtime.outbox import Outbox, Outgoing
from streamer.runtime.reporter import Reporter
from streamer.sinks.base import Fanout, Numberer, Sink
from streamer.sinks.wire import OnsetMessage

_POLL_S = 0.05
_HEARTBEAT_EVERY_S = 5.0
_STATUS_EVERY_S = 10.0


@runtime_checkable
class Overflowing(Protocol):
    """A sink whose readers each have a queue, and that counts how often one ran full."""

    overflows: int


class Publisher(threading.Thread):
    """Sends what is in `outbox` to every sink; in between it sends heartbeats and each stream's status.

    Ends when the outbox is closed and empty. `failed(sink's name, error)` hears of what a sink could not take. An
    unexpected exception is handed to `crashed`, and the thread ends.
    """

    def __init__(
        self,
        outbox: Outbox,
        numberer: Numberer,
        sinks: Sequence[Sink],
        failed: Callable[[str, SinkError], None],
        board: Board,
        reporter: Reporter,
        metrics: Metrics,
        crashed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="publisher", daemon=True)
        self._outbox = outbox
        self._sinks = sinks
        self._fanout = Fanout(numberer, sinks, failed)
        self._overflows = 0
        self._board = board
        self._reporter = reporter
        self._metrics = metrics
        self._crashed = crashed
        self._began_s = time.monotonic()
        self._told: dict[str, tuple[int, float]] = {}  # stream -> changes then, when (monotonic)
        self._beat_s = float("-inf")

    def run(self) -> None:
        """Send until the outbox is closed and empty, then close the sinks."""
        try:
            while not self._outbox.finished:
                self._by_the_clock(time.monotonic())
                for outgoing in self._outbox.take(_POLL_S):
                    self._send(outgoing)
                self._fanout.poll(0.0)
                self._count_overflows()
            self._by_the_clock(time.monotonic())
            for view in self._board.views():
                if view.state not in ("ended", "failed"):
                    self._send(Outgoing(self._reporter.status(view, stopped=True)))
        except BaseException as error:
            self._crashed(error)
        finally:
            self._fanout.close()

    def _count_overflows(self) -> None:
        overflows = sum(sink.overflows for sink in self._sinks if isinstance(sink, Overflowing))
        self._metrics.overflowed(overflows - self._overflows)
        self._overflows = overflows

    def _by_the_clock(self, now_s: float) -> None:
        for view in self._board.views():
            changes = self._board.changes(view.name)
            before, at_s = self._told.get(view.name, (-1, 0.0))
            if changes != before or now_s - at_s >= _STATUS_EVERY_S:
                self._told[view.name] = (changes, now_s)
                self._send(Outgoing(self._reporter.status(self._board.view(view.name))))
        if now_s - self._beat_s >= _HEARTBEAT_EVERY_S:
            self._beat_s = now_s
            uptime_s = now_s - self._began_s
            self._send(Outgoing(self._reporter.heartbeat(self._board.views(), _HEARTBEAT_EVERY_S, uptime_s)))

    def _send(self, outgoing: Outgoing) -> None:
        began_s = time.perf_counter()
        message = self._fanout.send(outgoing.message)
        self._metrics.stage("publish", time.perf_counter() - began_s)
        if isinstance(message, OnsetMessage):
            arrived_s = outgoing.onset_arrival_utc_s
            latency_s = None if arrived_s is None else message.sent_utc_s - arrived_s
            self._metrics.onset(message.stream, message.label, latency_s)
