"""Makes the parts of one stream: its queue, its lane in the worker, its reader and the reader's watchdog."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from streamer.media.liveness import descriptor_of
from streamer.media.source import open_media
from streamer.pipeline import StreamPipeline
from streamer.runtime.backoff import Backoff, BackoffLimits
from streamer.runtime.board import Board
from streamer.runtime.intake import Intake
from streamer.runtime.lane import Lane
from streamer.runtime.metrics import Metrics
from streamer.runtime.model import Model
from streamer.runtime.plan import StreamPlan
from streamer.runtime.processes import Processes
from streamer.runtime.reader import Reader, Source
from streamer.runtime.shedding import CELLS_PER_S
from streamer.runtime.sources import MediaOpener
from streamer.runtime.stopwatch import Stopwatch
from streamer.runtime.watchdog import NewReader, Watchdog
from streamer.windows import StreamSettings

log = logging.getLogger(__name__)

_RETIRE_S = 5.0
"""How long the reader of a removed stream may take to end."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream's parts; the docstring of each names the threads that may use it."""

    name: str
    intake: Intake
    lane: Lane
    watchdog: Watchdog
    backoff: Backoff


@dataclass(frozen=True, slots=True)
class Streams:
    """Makes and changes streams. Only the supervisor's thread may use it."""

    board: Board
    metrics: Metrics
    stopwatch: Stopwatch
    wake: Callable[[], None]
    crashed: Callable[[BaseException], None]
    new_id: Callable[[], str]
    processes: Processes

    def new(self, plan: StreamPlan, model: Model, settings: StreamSettings, limits: BackoffLimits) -> Stream:
        """A stream whose reader is not started yet. It must already be on the board and in the metrics."""
        name = plan.source.name
        intake = Intake(
            limit_s=plan.queue_s,
            picture_limit=_pictures(plan.queue_s),
            clock_s=time.monotonic,
            dropped=lambda reason, count: self.metrics.dropped(name, reason, count),
            wake=self.wake,
        )
        pipeline = self.pipeline(name, model, settings, 0)
        lane = Lane(name, intake, pipeline, model, plan.stall_s, time.monotonic)
        backoff = Backoff(limits, random.Random().uniform)
        new_reader = self._new_reader(plan.source, model, intake, backoff)
        watchdog = Watchdog(plan.source, plan.watchdog_s, intake, self.board, self.metrics, new_reader)
        return Stream(name, intake, lane, watchdog, backoff)

    def pipeline(self, name: str, model: Model, settings: StreamSettings, epoch: int) -> StreamPipeline:
        """A pipeline of `model` for the stream `name`, which begins with the epoch `epoch`."""
        bundle = model.bundle
        return StreamPipeline(
            name,
            model.factories,
            bundle.decoding,
            bundle.window_cells,
            settings,
            self.new_id,
            self.stopwatch,
            epoch=epoch,
            carried=bundle.carried,
        )

    def limit(self, stream: Stream, plan: StreamPlan) -> None:
        """Change the limits of reader and queue; the connection is kept."""
        stream.watchdog.patience_s = plan.watchdog_s
        stream.intake.limit(plan.queue_s, _pictures(plan.queue_s))

    def reconnect(self, stream: Stream, source: Source, model: Model) -> None:
        """Replace the reader by one that reads `source` for `model`."""
        self.board.moved(stream.name, source.address.shown)
        new_reader = self._new_reader(source, model, stream.intake, stream.backoff)
        stream.watchdog.change(source, new_reader, time.monotonic())

    def _new_reader(self, source: Source, model: Model, intake: Intake, backoff: Backoff) -> NewReader:
        # Another process does not have our descriptors, such as standard input; reading them here can't hang.
        opener: MediaOpener = self.processes.open if descriptor_of(source.address) is None else open_media
        made = partial(Reader, source, model.want, intake, self.board, self.metrics, backoff, self.crashed)
        return partial(made, open_source=opener)


class Retired:
    """The readers of removed streams, until they have ended. Only the supervisor's thread may use it."""

    def __init__(self) -> None:
        self._leaving: list[tuple[str, Reader, float]] = []  # stream, reader, deadline (monotonic)
        self.stuck = 0
        """Readers that did not end."""

    @property
    def readers(self) -> list[Reader]:
        """Those that have not ended yet."""
        return [reader for _, reader, _ in self._leaving]

    def add(self, stream: Stream, now_s: float) -> None:
        """End the stream's readers; what they still read is discarded."""
        stream.watchdog.reader.stop()
        stream.intake.attach()
        self._leaving += [(stream.name, reader, now_s + _RETIRE_S) for reader in stream.watchdog.readers]

    def check(self, now_s: float) -> None:
        """Forget the readers that have ended; abandon and count those that are past their deadline."""
        self._leaving = [one for one in self._leaving if one[1].is_alive()]
        for name, _, until_s in self._leaving:
            if now_s >= until_s:
                log.error("%s: the removed stream's reader hangs and is abandoned", name)
                self.stuck += 1
        self._leaving = [one for one in self._leaving if now_s < one[2]]


def _pictures(queue_s: float) -> int:
    return max(1, round(queue_s * CELLS_PER_S))
