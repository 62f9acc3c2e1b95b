"""Each documented metric exists and is moved by what it measures."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
import pytest
import zmq
from prometheus_client import CollectorRegistry

from streamer.errors import ConfigError
from streamer.runtime.metrics import DROP_REASONS, LOST_REASONS, Metrics
from streamer.runtime.metrics_page import page
from streamer.sinks.catch_up import CatchUp
from streamer.sinks.jsonl import JsonLinesSink
from streamer.sinks.store.recorder import StorePlan
from streamer.sinks.store.retention import Limits
from streamer.sinks.store.writing import Store
from streamer.sinks.wire import StatusMessage
from streamer.sinks.zmq import ZmqSink
from streamer.types import CELL, SAMPLE_RATE_HZ, Chunk, Picture
from tests import messages as make
from tests.listeners import LISTEN, listening, wait_for
from tests.make_media import make_clip
from tests.models import bursts
from tests.rtsp import free_port
from tests.runtime.test_listener import Listening, damaged, joined
from tests.runtime.test_publisher import Held, publishing
from tests.runtime.test_reload import Reloadable
from tests.runtime.test_supervisor import Daemon, source
from tests.runtime.test_watchdog import OPEN_S, PATIENCE_S, watched
from tests.runtime.test_worker import Working, hear

AMPLE = Limits(keep_days=10_000, keep_bytes=10**9)
Values: TypeAlias = dict[str, float]
DOCS = Path(__file__).parents[2] / "docs"


def values(registry: CollectorRegistry, name: str) -> Values:
    """A family's samples by their labels, buckets aside."""
    found: Values = {}
    for family in registry.collect():
        if family.name == name.removesuffix("_total"):
            for sample in family.samples:
                if not sample.name.endswith("_bucket"):
                    found[" ".join([sample.name, *map(str, sorted(sample.labels.items()))])] = sample.value
    return found


def live_film_and_a_camera_that_is_off(folder: Path) -> Metrics:
    film = make_clip(folder / "film.mkv", audio="aac", video="h264", samples=bursts(9.0, 5, 44_100), rate_hz=44_100)
    off = source("off", f"rtsp://127.0.0.1:{free_port()}/x")
    modalities = ("spectral", "vggish", "vgg16")
    with Daemon(folder, source("cam", film, realtime=True), off, modalities=modalities) as daemon:
        daemon.until(lambda: daemon.last("cam", "state") == "ended", 60.0)
    return daemon.supervisor.metrics


def a_worker_that_is_too_slow(folder: Path) -> Metrics:
    """Audio waits in the queue until it is dropped."""
    del folder
    working = Working(1, limit_s=5.0)
    working.opened(0, live=True)
    for index in range(80):
        working.clock.now_s += 0.1
        working.streams[0].put(Chunk(SAMPLE_RATE_HZ, index * 2210, bursts(0.1, index)))
    working.worker.step()
    return working.metrics


def pictures_that_come_too_late(folder: Path) -> Metrics:
    """Their cells have already been scored without them."""
    del folder
    working = Working(1, modalities=("spectral", "vgg16"))
    working.opened(0, live=True, has_video=True)
    hear(working.streams[0], 8.0)
    working.work()
    for cell in range(60):
        working.streams[0].put(Picture(cell * CELL + CELL // 2, np.zeros((224, 224, 3), np.uint8)))
    working.work()
    working.clock.now_s += 1.0
    working.worker.step()
    return working.metrics


def a_reader_that_hangs(folder: Path) -> Metrics:
    os.mkfifo(folder / "pipe")
    with watched(str(folder / "pipe"), realtime=True) as stream:
        stream.until(lambda: stream.watchdog.reader.tries == 1)
        stream.check(after_s=PATIENCE_S + 2 * OPEN_S + 1.0)
        stream.check(after_s=10.0)
        with suppress(OSError):
            os.close(os.open(folder / "pipe", os.O_WRONLY | os.O_NONBLOCK))
    return stream.metrics


def a_subscriber_that_is_frozen(folder: Path) -> Metrics:
    del folder
    sink = ZmqSink("tcp://127.0.0.1:0", queue_messages=100)
    with publishing(sink, limit=100_000) as running, listening(*LISTEN, sink.endpoint) as frozen:
        wait_for(lambda: len(frozen.lines) >= 2, lambda: time.sleep(0.02))
        os.kill(frozen.process.pid, signal.SIGSTOP)
        for _ in range(30_000):
            running.outbox.put(make.tags())
        running.until(lambda: running.metric("subscriber_overflows_total") >= 1, 60.0)
    return running.metrics


def garbage_at_the_socket(folder: Path) -> Metrics:
    del folder
    sink = ZmqSink("tcp://127.0.0.1:0")
    with publishing(sink) as running:
        with socket.create_connection(("127.0.0.1", int(sink.endpoint.rpartition(":")[2]))) as scanner:
            scanner.sendall(bytes(100_000))
        running.until(lambda: running.metric("connections_refused_total", socket="zmq", reason="not_zeromq") == 1)
    return running.metrics


def garbage_at_the_http_port(folder: Path) -> Metrics:
    with Daemon(folder, source("off", f"rtsp://127.0.0.1:{free_port()}/x")) as daemon:
        assert daemon.supervisor.metrics_port is not None
        with socket.create_connection(("127.0.0.1", daemon.supervisor.metrics_port)) as scanner:
            scanner.sendall(b"\x16\x03\x01" + bytes(1000) + b"\r\n\r\n")
            scanner.recv(1000)
    return daemon.supervisor.metrics


def a_disk_that_is_full(folder: Path) -> Metrics:
    del folder
    with publishing(JsonLinesSink("/dev/full")) as running:
        running.outbox.put(make.onset())
        running.until(lambda: running.metric("sink_errors_total", sink="jsonl") >= 4)
    return running.metrics


def a_sink_that_hangs(folder: Path) -> Metrics:
    del folder
    sink = Held()
    with publishing(sink, limit=10) as running:
        time.sleep(0.2)
        for _ in range(15):
            running.outbox.put(make.tags())
        sink.go.set()
    return running.metrics


def a_reload_that_is_refused(folder: Path) -> Metrics:
    with Reloadable(folder, source("cam", make_clip(folder / "a.wav"), realtime=True)) as daemon:
        daemon.until(lambda: daemon.messages("status"))
        daemon.fault = ConfigError("no")
        assert not daemon.reload().applied
    return daemon.supervisor.metrics


def damaged_recordings(folder: Path) -> Metrics:
    """A packet that can't be decoded, repeated audio, pictures on another clock."""
    all_of_it = Listening(damaged(make_clip(folder / "a.ts", video="h264")))
    for later_s, picture_later_s in ((2.0, 2.0), (3.0, 1_000.0)):
        Listening(joined(folder, later_s, picture_later_s), metrics=all_of_it.metrics)
    return all_of_it.metrics


def a_store_that_somebody_locks(folder: Path) -> Metrics:
    path = folder / "store.sqlite3"
    with closing(sqlite3.connect(path)) as other, publishing(store=StorePlan(path, AMPLE, 600.0)) as running:
        running.until(lambda: running.metric("store_messages") == 2)
        running.until(lambda: running.metric("store_up") == 1)
        other.execute("BEGIN IMMEDIATE")
        running.outbox.put(make.onset())
        running.until(lambda: running.metric("store_waiting") == 1)
        assert running.metric("store_up") == 0
        other.rollback()
        running.until(lambda: running.metric("store_up") == 1)
        other.execute("BEGIN IMMEDIATE")
        running.outbox.put(make.offset())
        running.until(lambda: running.metric("store_waiting") == 1)
    return running.metrics


def a_store_that_is_kept_small(folder: Path) -> Metrics:
    path = folder / "store.sqlite3"
    with closing(Store(path, AMPLE)) as store:
        old = make.numberer().number(make.status())
        assert isinstance(old, StatusMessage)
        store.append([msgspec.structs.replace(old, sent_utc_s=1.0)])
    with publishing(store=StorePlan(path, Limits(1.0, 10**9), 600.0)) as running:
        running.until(lambda: running.metric("store_up") == 1)
        running.until(lambda: running.metric("store_removed_total", limit="age") == 1)
    return running.metrics


def somebody_catches_up(folder: Path) -> Metrics:
    path = folder / "store.sqlite3"
    catch_up = CatchUp("tcp://127.0.0.1:0", path, "earwitness")
    with publishing(store=StorePlan(path, AMPLE, 600.0), catch_up=catch_up) as running, zmq.Context() as context:
        running.until(lambda: running.metric("store_messages") == 2)
        with context.socket(zmq.REQ) as socket:
            socket.connect(catch_up.endpoint)
            socket.send(b"{}")
            assert len(socket.recv_multipart()) == 3
        running.until(lambda: running.metric("catch_up_messages_total") == 2)
        running.until(lambda: running.metric("catch_up_requests_total", result="answered") == 1)
    return running.metrics


SCENARIOS: dict[Callable[[Path], Metrics], str] = {
    live_film_and_a_camera_that_is_off: "stream_state reconnects_total decoded_audio_seconds_total "
    "decoded_frames_total scored_cells_total coverage_ratio masked_cells_total events_total onset_to_message_seconds "
    "picture_stride stage_seconds batch_windows",
    a_worker_that_is_too_slow: "dropped_total media_lag_seconds hop_stretch",
    pictures_that_come_too_late: "late_cells_total masked_cells_total",
    a_reader_that_hangs: "readers_abandoned_total",
    a_subscriber_that_is_frozen: "subscriber_overflows_total",
    garbage_at_the_socket: "connections_refused_total",
    garbage_at_the_http_port: "connections_refused_total",
    a_disk_that_is_full: "sink_errors_total",
    a_sink_that_hangs: "messages_dropped_total",
    a_store_that_somebody_locks: "store_messages store_bytes store_limit_bytes store_free_bytes "
    "store_oldest_timestamp_seconds store_waiting store_failures_total",
    a_store_that_is_kept_small: "store_up store_removed_total",
    somebody_catches_up: "catch_up_requests_total catch_up_messages_total",
    a_reload_that_is_refused: "reloads_total last_reload_applied",
    damaged_recordings: "corrupt_packets_total overlap_samples_total stray_pictures_total input_rms_dbfs "
    "input_peak_dbfs input_state audio_info",
}
"""Real scenarios, and the metrics that each one moves."""
ALWAYS = {"earwitness_build_info"}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_metric_is_moved_by_what_it_measures(scenario: Callable[[Path], Metrics], tmp_path: Path) -> None:
    metrics = scenario(tmp_path)
    streams = {"cam", "off", "cam2", "s0"}
    fresh = Metrics("0", "seeded", sorted(streams), [])
    for name in SCENARIOS[scenario].split():
        before, after = values(fresh.registry, f"earwitness_{name}"), values(metrics.registry, f"earwitness_{name}")
        moved = {labels for labels, value in after.items() if value != before.get(labels, 0.0)}
        assert moved, f"{name} has not moved: {after}"


def test_every_metric_is_moved_by_some_scenario() -> None:
    moved = {f"earwitness_{name}" for names in SCENARIOS.values() for name in names.split()}
    families = {family.name for family in Metrics("0", "seeded", ["cam"], ["Dog"]).families}
    assert moved == families - ALWAYS


def test_the_page_of_metrics_is_generated() -> None:
    assert (DOCS / "metrics.md").read_text() == page(), "run `make schema`"


def test_the_page_has_every_family_that_prometheus_sees() -> None:
    metrics = Metrics("0", "seeded", ["cam"], ["Dog"])
    shown = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.registry.collect()
        if family.name.startswith("earwitness_")
    }
    assert shown == {family.name for family in metrics.families}
    for family in metrics.families:
        assert f"| `{family.name}` | {family.kind} |" in page()


def test_every_series_of_a_stream_exists_before_anything_happens() -> None:
    metrics = Metrics("0", "seeded", ["cam"], ["Dog"])
    metrics.add("added by a reload")
    level = {"earwitness_input_rms_dbfs", "earwitness_input_peak_dbfs"}
    known_later = {"earwitness_audio_info", "earwitness_masked_cells_total", "earwitness_late_cells_total", *level}
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    for family in metrics.families:
        if "stream" in family.labels and family.name not in known_later:
            streams = {one.labels["stream"] for one in samples if one.name.startswith(family.name)}
            assert streams == {"cam", "added by a reload"}, family.name
    for name, reasons in (("dropped", DROP_REASONS), ("reconnects", LOST_REASONS)):
        assert len(values(metrics.registry, f"earwitness_{name}_total")) == 2 * len(reasons)
