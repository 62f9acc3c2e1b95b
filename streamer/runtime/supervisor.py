"""Starts, watches and stops the daemon's threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from streamer.bundle import Bundle
from streamer.features.base import ExtractorFactory
from streamer.runtime.board import Board, StreamView
from streamer.runtime.control import Outcome
from streamer.runtime.health import Answer, HealthServer
from streamer.runtime.load import Load
from streamer.runtime.metrics import Metrics
from streamer.runtime.model import Model
from streamer.runtime.outbox import Outbox
from streamer.runtime.plan import Changes, Plan, StreamPlan
from streamer.runtime.processes import Processes
from streamer.runtime.publisher import Publisher
from streamer.runtime.reload import Reloads, Setup
from streamer.runtime.reporter import Reporter
from streamer.runtime.stopwatch import Stopwatch
from streamer.runtime.streams import Retired, Stream, Streams
from streamer.runtime.systemd import Notifier
from streamer.runtime.worker import Change, Parts, Worker
from streamer.sinks.base import Numberer, Sink
from streamer.sinks.catch_up import CatchUp
from streamer.sinks.wire import kind

log = logging.getLogger(__name__)

_CHECK_S = 0.1
_DEAD_S = 60.0
"""A worker or publisher without a beat for so long is unhealthy. Generous: a batch of pictures can take seconds."""
_MAX_ABANDONED = 32
"""With more abandoned threads, the daemon reports itself unhealthy, so that systemd or an orchestrator restarts it."""
_STOP_WORKER_S = 5.0  # with the two below less than the 10 s after which Docker kills a container
_STOP_PUBLISHER_S = 2.2  # a slow subscriber has 2 s to receive what is queued
_STOP_READERS_S = 0.3
"""The three together are less than 5 s."""


@dataclass(frozen=True, slots=True)
class _Changing:
    """A reload that the worker is applying."""

    setup: Setup
    changes: Changes
    added: Mapping[str, Stream]
    reconnect: frozenset[str]  # streams whose readers are replaced
    carried_out: threading.Event


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
        """Opens the HTTP port and starts nothing else, so that a port in use is reported before anything begins.

        Raises:
            UsageError: the metrics address can't be used.
            BundleError: the bundle's network can't be made.

        """
        self.plan = plan
        """The plan in effect; `model` is the model in effect."""
        self.model = model = Model.of(bundle, factories)
        self._notifier = notifier
        self._wake = threading.Event()
        self._failure: BaseException | None = None
        self._failed = threading.Event()
        self.left_behind = False
        """After `run`: whether a thread is still running. It may crash while the interpreter shuts down."""
        names = [stream.source.name for stream in plan.streams]
        self.metrics = metrics = Metrics(plan.version, bundle.name, names, bundle.classes)
        self.board = board = Board([_first_view(stream) for stream in plan.streams], metrics, time.monotonic)
        self._outbox = Outbox(plan.queue_messages, lambda message: metrics.message_dropped(kind(message)))
        stopwatch = Stopwatch(metrics)
        self._processes = Processes()
        self._maker = Streams(board, metrics, stopwatch, self._wake.set, self._crashed, new_id, self._processes)
        # Replaced as a whole and never mutated, because other threads read it.
        self._streams: Mapping[str, Stream] = {
            one.source.name: self._maker.new(one, model, plan.settings, plan.backoff) for one in plan.streams
        }
        self._retired = Retired()
        load = Load(stopwatch)
        load.uses_pictures(model.picture_stages, plan.picture_budget)
        lanes = [stream.lane for stream in self._streams.values()]
        load.set_stride(lanes)  # so that audio is on time from the first second
        parts = Parts(
            lanes=lanes,
            stopwatch=stopwatch,
            load=load,
            board=board,
            metrics=metrics,
            outbox=self._outbox,
            settings=plan.settings,
            threads=plan.threads,
            with_tags=plan.publish_tags,
            with_scores=plan.publish_scores,
        )
        self._worker = Worker(parts, time.monotonic, self._wake, self._crashed)
        numberer = Numberer(plan.publisher, plan.run, time.time)
        reporter = Reporter(bundle.name, factories, plan.version)
        self._publisher = Publisher(
            self._outbox, numberer, sinks, board, reporter, metrics, self._crashed, plan.store, catch_up
        )
        self._change: _Changing | None = None
        self._health: HealthServer | None = None
        if plan.metrics_address is not None:
            refused = partial(metrics.refused, "http")
            self._health = HealthServer(
                plan.metrics_address, metrics.registry, self.healthy, self.ready, plan.http_guard, refused
            )

    @property
    def metrics_port(self) -> int | None:
        """The port of /metrics; None if it is off."""
        return self._health.port if self._health else None

    def run(self, stop: threading.Event, reopen: threading.Event, reloads: Reloads | None = None) -> int:
        """Run until `stop` is set, every source has ended for good or no sink is left; returns the exit code.

        Whenever `reopen` is set, the sinks reopen their files. Reloads that were requested from `reloads` are applied.

        Raises:
            BaseException: an unexpected exception that ended a thread.

        """
        self._processes.start()
        self._publisher.start()
        self._worker.start()
        for stream in self._streams.values():
            stream.watchdog.reader.start()
        self._notifier.send("READY=1", f"STATUS={len(self._streams)} streams")
        pinged_s = 0.0
        while not (stop.is_set() or self._failed.is_set() or self._all_finished() or self._publisher.no_sink_left):
            if reopen.is_set():
                reopen.clear()
                self._publisher.reopen()
            if reloads is not None:
                self._reload(reloads)
            now_s = time.monotonic()
            for stream in self._streams.values():
                stream.watchdog.check(now_s)
            self._retired.check(now_s)
            if self._notifier.watchdog_s is not None and now_s - pinged_s >= self._notifier.watchdog_s:
                pinged_s = now_s
                if self.healthy().ok:  # systemd restarts a daemon that stops sending this
                    self._notifier.send("WATCHDOG=1")
            stop.wait(_CHECK_S)
        self._notifier.send("STOPPING=1")
        self._shut_down()
        self.left_behind = self.left_behind or (reloads is not None and reloads.reading)
        if self._failure is not None:
            raise self._failure
        if stop.is_set():
            return 0
        return int(self._publisher.no_sink_left or any(view.state == "failed" for view in self.board.views()))

    def healthy(self) -> Answer:
        """Whether the threads are working: for /healthz and systemd's watchdog."""
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
        return self._retired.stuck + sum(stream.watchdog.abandoned for stream in self._streams.values())

    def _reload(self, reloads: Reloads) -> None:
        """Advance a reload as far as possible without waiting."""
        if reloads.begin():
            monotonic_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={monotonic_us}")
        found = reloads.take()
        if isinstance(found, Setup):
            self._change = self._begin(found)
        outcome = Outcome(False, found) if isinstance(found, str) else None
        if self._change is not None and self._change.carried_out.is_set():
            outcome = Outcome(True, self._finish(self._change))
            self._change = None
        if outcome is not None:
            self.metrics.reloaded("applied" if outcome.applied else "refused")
            reloads.end(outcome)
            self._notifier.send("READY=1", f"STATUS={len(self._streams)} streams; {outcome.text}"[:200])

    def _begin(self, setup: Setup) -> _Changing:
        """Stop the removed streams, and have the worker apply the change between two turns."""
        plan, model = setup.plan, setup.model
        changes = Changes.between(self.plan, plan)
        for name in changes.removed:
            self._retired.add(self._streams[name], time.monotonic())
        staying = {name: one for name, one in self._streams.items() if name not in changes.removed}
        self._streams = staying
        for one in changes.limited:
            self._maker.limit(staying[one.source.name], one)
        for stream in staying.values():
            stream.backoff.limits = plan.backoff
        added = {}
        for one in changes.added:
            self.metrics.add(one.source.name)
            self.board.add(_first_view(one))
            added[one.source.name] = self._maker.new(one, model, plan.settings, plan.backoff)
        adopt = staying if model is not self.model else {}
        same_media = model.want == self.model.want  # the readers already deliver what the new model needs
        carried_out = threading.Event()
        self._worker.ask(
            Change(
                add=[stream.lane for stream in added.values()],
                remove=frozenset(changes.removed),
                stall_s={one.source.name: one.stall_s for one in plan.streams},
                settings=plan.settings,
                adopt={name: partial(self._maker.pipeline, name, model, plan.settings) for name in adopt},
                model=model,
                at_once=frozenset(
                    name for name, one in adopt.items() if same_media or not one.watchdog.reader.is_alive()
                ),
                picture_budget=plan.picture_budget,
                threads=plan.threads,
                with_tags=plan.publish_tags,
                with_scores=plan.publish_scores,
                done=carried_out.set,
            )
        )
        reconnect = {one.source.name for one in changes.reconnected}
        if adopt and not same_media:
            reconnect |= {name for name, one in adopt.items() if one.watchdog.reader.is_alive()}
        return _Changing(setup, changes, added, frozenset(reconnect), carried_out)

    def _finish(self, change: _Changing) -> str:
        """After the worker: change the readers and the reports. Returns the changes in one line."""
        plan, model = change.setup.plan, change.setup.model
        new_model = model is not self.model
        for name in change.changes.removed:
            # After its last offsets and all its earlier statuses.
            self._outbox.put(self._publisher.reporter.status(self.board.remove(name), stopped=True))
            self.metrics.remove(name)
        if new_model:
            self.metrics.model(model.bundle.name, model.bundle.classes)
            self._publisher.reporter = Reporter(model.bundle.name, model.factories, plan.version)
        self._publisher.limit_store(plan.store)
        if self._health is not None:
            self._health.renew(plan.http_guard)
        self.plan, self.model = plan, model
        self._streams = {**self._streams, **change.added}
        for stream in change.added.values():
            stream.watchdog.reader.start()
        for one in plan.streams:
            if one.source.name in change.reconnect:
                self._maker.reconnect(self._streams[one.source.name], one.source, model)
                self._maker.limit(self._streams[one.source.name], one)
        change.setup.on_applied()
        return change.changes.summary(model.bundle.name if new_model else None, change.setup.other_fields)

    def _all_finished(self) -> bool:
        if self.plan.stay:
            return False
        return all(view.state in ("ended", "failed") for view in self.board.views())

    def _crashed(self, error: BaseException) -> None:
        """An unexpected exception ended a thread: end the daemon rather than run without that thread."""
        if self._failure is None:
            self._failure = error
        self._failed.set()

    def _shut_down(self) -> None:
        """Stop readers, worker and publisher in this order: each passes on all it holds before the next one ends."""
        for stream in self._streams.values():
            stream.watchdog.reader.stop()
            stream.intake.attach()  # wakes a reader that waits for room, and discards what it adds
        self._worker.stop()
        if self._worker.is_alive():
            self._worker.join(_STOP_WORKER_S)
        self._outbox.close()
        if self._publisher.is_alive():
            self._publisher.join(_STOP_PUBLISHER_S)
        if self._health is not None:
            self._health.close()
        until_s = time.monotonic() + _STOP_READERS_S
        readers = [reader for stream in self._streams.values() for reader in stream.watchdog.readers]
        readers += self._retired.readers
        for reader in readers:
            if reader.is_alive():
                reader.join(max(0.0, until_s - time.monotonic()))
        self._processes.close()
        threads = [self._worker, self._publisher, *readers]
        self.left_behind = self._abandoned > 0 or any(thread.is_alive() for thread in threads)


def _first_view(stream: StreamPlan) -> StreamView:
    return StreamView(stream.source.name, stream.source.address.shown)
