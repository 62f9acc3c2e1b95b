"""Starts, watches and stops the daemon's threads."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from streamer.bundle import Bundle
from streamer.detect import Detector
from streamer.features.base import ExtractorFactory, want_of
from streamer.pipeline import StreamPipeline
from streamer.runtime.backoff import Backoff, BackoffLimits
from streamer.runtime.board import Board, StreamView
from streamer.runtime.health import Answer, HealthServer
from streamer.runtime.intake import Intake
from streamer.runtime.lane import Lane
from streamer.runtime.metrics import Metrics
from streamer.runtime.outbox import Outbox
from streamer.runtime.publisher import Publisher
from streamer.runtime.reader import Reader, Source
from streamer.runtime.reporter import Reporter
from streamer.runtime.shedding import CELLS_PER_S, PictureStride
from streamer.runtime.systemd import Notifier
from streamer.runtime.watchdog import Watchdog
from streamer.runtime.worker import Parts, Stopwatch, Worker
from streamer.sinks.base import Numberer, Sink
from streamer.sinks.catch_up import CatchUp
from streamer.sinks.store.recorder import StorePlan
from streamer.sinks.wire import kind
from streamer.windows import StreamSettings

log = logging.getLogger(__name__)

_CHECK_S = 0.1
_DEAD_S = 60.0
"""A worker or publisher without a beat for so long is unhealthy. Generous: a batch of pictures can take seconds."""
_MAX_ABANDONED = 32
"""With more abandoned threads, the daemon reports itself unhealthy, to be restarted by systemd or the like."""
_STOP_WORKER_S = 2.3
_STOP_PUBLISHER_S = 2.2  # a slow subscriber has 2 s to receive what is queued
_STOP_READERS_S = 0.3
"""The three together are less than 5 s."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """A source and its limits, in seconds."""

    source: Source
    stall_s: float
    watchdog_s: float
    queue_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What the daemon was asked to do."""

    publisher: str
    run: str  # unique to this start
    version: str
    streams: Sequence[StreamPlan]
    settings: StreamSettings
    backoff: BackoffLimits
    threads: int  # of the networks
    picture_budget: float
    publish_tags: bool
    publish_scores: bool
    queue_messages: int
    metrics_address: str | None
    store: StorePlan | None
    stay: bool  # keep running when every source has ended


class Supervisor:
    """The daemon without its signal handling: `run` returns when asked to stop or when nothing is left to do."""

    def __init__(
        self,
        plan: Plan,
        bundle: Bundle,
        factories: Mapping[str, ExtractorFactory],
        sinks: Sequence[Sink],
        notifier: Notifier,
        new_id: Callable[[], str],
        catch_up: CatchUp | None = None,
    ) -> None:
        """Nothing runs yet but the HTTP port, so that a port in use is known before anything begins.

        Raises:
            UsageError: the metrics address can't be used.
            BundleError: the bundle's network can't be made.

        """
        self._plan = plan
        self._notifier = notifier
        self._wake = threading.Event()
        self._failure: BaseException | None = None
        self._failed = threading.Event()
        self.left_behind = False
        """After `run`: whether a thread is still running. It may crash while the interpreter shuts down."""
        names = [stream.source.name for stream in plan.streams]
        detector = Detector(bundle)
        self.metrics = metrics = Metrics(plan.version, bundle.name, names, bundle.classes)
        views = [StreamView(one.source.name, one.source.address.shown) for one in plan.streams]
        self.board = board = Board(views, metrics, time.monotonic)
        self._outbox = Outbox(plan.queue_messages, lambda message: metrics.message_dropped(kind(message)))
        picture_stages = frozenset(name for name, factory in factories.items() if factory.want.pictures)
        want = want_of(factories.values())
        stride = PictureStride(plan.picture_budget) if picture_stages else None
        stopwatch = Stopwatch(metrics)
        self._intakes: list[Intake] = []
        self._watchdogs: list[Watchdog] = []
        lanes: list[Lane] = []
        for stream in plan.streams:
            name = stream.source.name
            intake = Intake(
                limit_s=stream.queue_s,
                picture_limit=max(1, round(stream.queue_s * CELLS_PER_S)),
                clock_s=time.monotonic,
                dropped=lambda reason, count, name=name: metrics.dropped(name, reason, count),  # type: ignore[misc]
                wake=self._wake.set,
            )
            pipeline = StreamPipeline(
                name, factories, bundle.decoding, bundle.window_cells, plan.settings, new_id, stopwatch
            )
            lane = Lane(name, intake, pipeline, stream.stall_s, time.monotonic)
            if stride is not None:
                lane.live_stride = stride.stride  # so that audio is on time from the first second
            lanes.append(lane)
            backoff = Backoff(plan.backoff, random.Random().uniform)
            new_reader = partial(Reader, stream.source, want, intake, board, metrics, backoff, self._crashed)
            self._intakes.append(intake)
            self._watchdogs.append(Watchdog(stream.source, stream.watchdog_s, intake, board, metrics, new_reader))
        parts = Parts(
            lanes=lanes,
            detector=detector,
            stopwatch=stopwatch,
            stride=stride,
            picture_stages=picture_stages,
            board=board,
            metrics=metrics,
            outbox=self._outbox,
            threads=plan.threads,
            classes=bundle.classes,
            with_tags=plan.publish_tags,
            with_scores=plan.publish_scores,
        )
        self._worker = Worker(parts, time.monotonic, self._wake, self._crashed)
        numberer = Numberer(plan.publisher, plan.run, time.time)
        reporter = Reporter(bundle.name, factories, plan.version)
        self._publisher = Publisher(
            self._outbox, numberer, sinks, board, reporter, metrics, self._crashed, plan.store, catch_up
        )
        self._health: HealthServer | None = None
        if plan.metrics_address is not None:
            self._health = HealthServer(plan.metrics_address, metrics.registry, self.healthy, self.ready)

    @property
    def metrics_port(self) -> int | None:
        """The port of /metrics; None if it is off."""
        return self._health.port if self._health else None

    def run(self, stop: threading.Event, reopen: threading.Event) -> int:
        """Run until `stop` is set, every source has ended for good or no sink is left; returns the exit code.

        Whenever `reopen` is set, the sinks reopen their files.

        Raises:
            BaseException: an unexpected exception that ended a thread.

        """
        self._publisher.start()
        self._worker.start()
        for watchdog in self._watchdogs:
            watchdog.reader.start()
        self._notifier.send("READY=1", f"STATUS={len(self._watchdogs)} streams")
        pinged_s = 0.0
        while not (stop.is_set() or self._failed.is_set() or self._all_finished() or self._publisher.nobody_left):
            if reopen.is_set():
                reopen.clear()
                self._publisher.reopen()
            now_s = time.monotonic()
            for watchdog in self._watchdogs:
                watchdog.check(now_s)
            if self._notifier.watchdog_s is not None and now_s - pinged_s >= self._notifier.watchdog_s:
                pinged_s = now_s
                if self.healthy().ok:  # systemd restarts a daemon that stops sending this
                    self._notifier.send("WATCHDOG=1")
            stop.wait(_CHECK_S)
        self._notifier.send("STOPPING=1")
        self._shut_down()
        if self._failure is not None:
            raise self._failure
        if stop.is_set():
            return 0
        return int(self._publisher.nobody_left or any(view.state == "failed" for view in self.board.views()))

    def healthy(self) -> Answer:
        """Whether the threads do their work: for /healthz and systemd's watchdog."""
        now_s = time.monotonic()
        ages_s = {"worker": now_s - self._worker.beat_s, "publisher": now_s - self._publisher.beat_s}
        threads = {thread.name: thread.is_alive() for thread in (self._worker, self._publisher)}
        ok = max(ages_s.values()) < _DEAD_S and all(threads.values()) and self._abandoned <= _MAX_ABANDONED
        return Answer(
            ok,
            {
                "ok": ok,
                "worker_beat_age_s": round(ages_s["worker"], 3),
                "publisher_beat_age_s": round(ages_s["publisher"], 3),
                "threads": threads,
                "abandoned_readers": self._abandoned,
            },
        )

    def ready(self) -> Answer:
        """Whether the model is loaded and every source is connected, has ended, or waits for its next attempt."""
        views = self.board.views()
        waiting = {
            view.name: f"{view.state} {view.source}"
            for view in views
            if view.state == "failed" or (view.state == "connecting" and view.opened_s is None and not view.reconnects)
        }
        streams = {view.name: {"state": view.state, "reason": view.reason, "detail": view.detail} for view in views}
        return Answer(not waiting, {"ok": not waiting, "model": "loaded", "waiting_for": waiting, "streams": streams})

    @property
    def _abandoned(self) -> int:
        return sum(watchdog.abandoned for watchdog in self._watchdogs)

    def _all_finished(self) -> bool:
        if self._plan.stay:
            return False
        return all(view.state in ("ended", "failed") for view in self.board.views())

    def _crashed(self, error: BaseException) -> None:
        """An unexpected exception ended a thread: end the daemon, rather than run without that thread."""
        if self._failure is None:
            self._failure = error
        self._failed.set()

    def _shut_down(self) -> None:
        """Stop readers, worker and publisher in this order: each passes on all it has before the next one ends."""
        for watchdog, intake in zip(self._watchdogs, self._intakes, strict=True):
            watchdog.reader.stop()
            intake.attach()  # releases a reader that waits for room, and refuses what it puts
        self._worker.stop()
        if self._worker.is_alive():
            self._worker.join(_STOP_WORKER_S)
        self._outbox.close()
        if self._publisher.is_alive():
            self._publisher.join(_STOP_PUBLISHER_S)
        if self._health is not None:
            self._health.close()
        until_s = time.monotonic() + _STOP_READERS_S
        readers = [watchdog.reader for watchdog in self._watchdogs]
        for reader in readers:
            if reader.is_alive():
                reader.join(max(0.0, until_s - time.monotonic()))
        threads = [self._worker, self._publisher, *readers]
        self.left_behind = self._abandoned > 0 or any(thread.is_alive() for thread in threads)
