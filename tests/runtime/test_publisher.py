"""The publishing thread with real sinks: files, a socket with a frozen subscriber, a pipe whose reader ends."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from streamer.runtime.board import Board, StreamView
from streamer.runtime.metrics import Metrics
from streamer.runtime.outbox import Outbox
from streamer.runtime.publisher import Publisher
from streamer.runtime.reporter import Reporter
from streamer.sinks.base import Sink
from streamer.sinks.catch_up import CatchUp
from streamer.sinks.jsonl import JsonLinesSink
from streamer.sinks.store.recorder import StorePlan
from streamer.sinks.wire import Message, kind
from streamer.sinks.zmq import ZmqSink
from tests import messages as make
from tests.listeners import LISTEN, listening, wait_for
from tests.models import factories


class Publishing:
    """A running publisher of two streams; everything is real."""

    def __init__(
        self, sinks: Sequence[Sink], limit: int = 1000, store: StorePlan | None = None, catch_up: CatchUp | None = None
    ) -> None:
        self.metrics = Metrics("0", "seeded", ["cam", "cam2"], ["Dog"])
        self.board = Board(
            [StreamView("cam", "a.wav", live=True), StreamView("cam2", "b.wav", live=False)],
            self.metrics,
            time.monotonic,
        )
        self.outbox = Outbox(limit, lambda message: self.metrics.message_dropped(kind(message)))
        self.crashes: list[BaseException] = []
        self.publisher = Publisher(
            self.outbox,
            make.numberer(),
            sinks,
            self.board,
            Reporter("seeded", factories(), "0"),
            self.metrics,
            self.crashes.append,
            store,
            catch_up,
        )

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"earwitness_{name}", labels) or 0.0

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        end_s = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end_s, "not true in time"
            assert not self.crashes
            time.sleep(0.01)

    def end(self) -> None:
        self.outbox.close()
        self.publisher.join(10.0)
        assert not self.publisher.is_alive()


@contextmanager
def publishing(
    *sinks: Sink, limit: int = 1000, store: StorePlan | None = None, catch_up: CatchUp | None = None
) -> Iterator[Publishing]:
    running = Publishing(sinks, limit, store, catch_up)
    running.publisher.start()
    try:
        yield running
    finally:
        running.end()
    assert not running.crashes


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_statuses_and_a_heartbeat_are_sent_at_once_and_statuses_on_each_change(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with publishing(JsonLinesSink(str(path))) as running:
        running.until(lambda: len(lines(path)) == 3)
        running.board.connecting("cam")  # no change: no message
        running.board.opened("cam", 1, live=True, has_audio=True, has_video=False)
        running.board.scored("cam", 1, epoch=0)
        running.until(lambda: len(lines(path)) == 4)
        running.outbox.put(make.onset(), 1_790_000_000.0)
        running.outbox.put(make.offset())
        running.until(lambda: len(lines(path)) == 6)
        running.board.finished("cam2", "ended", "", "end of file")
    sent = [(one["type"], one.get("stream"), one.get("state")) for one in lines(path)]
    assert sent == [
        ("status", "cam", "connecting"),
        ("status", "cam2", "connecting"),
        ("heartbeat", None, None),
        ("status", "cam", "streaming"),
        ("onset", "cam", None),
        ("offset", "cam", None),
        ("status", "cam2", "ended"),
        ("status", "cam", "stopped"),  # at the end; a stream that ended was not stopped
    ]
    assert [one["seq"] for one in lines(path)] == list(range(1, 9))
    assert running.metric("events_total", stream="cam", **{"class": "Dog"}) == 1
    assert running.metric("onset_to_message_seconds_count", stream="cam") == 1
    # Five messages precede the onset, and the numberer's clock advances by a second with each.
    assert running.metric("onset_to_message_seconds_sum", stream="cam") == 4
    assert running.metric("stage_seconds_count", stage="publish") == 8


def test_a_failing_sink_is_logged_once_counted_each_time_and_its_recovery_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamer")
    path, good = tmp_path / "folder" / "events.jsonl", tmp_path / "good.jsonl"
    path.parent.mkdir()
    with publishing(JsonLinesSink(str(path)), JsonLinesSink(str(good))) as running:
        running.until(lambda: len(lines(good)) == 3)
        for outage in (1, 2):
            path.unlink(missing_ok=True)
            path.parent.rmdir()
            for _ in range(5):
                running.outbox.put(make.onset())
            running.until(lambda outage=outage: running.metric("sink_errors_total", sink="jsonl") >= 5 * outage)  # type: ignore[misc]
            path.parent.mkdir()
            time.sleep(1.1)
            running.outbox.put(make.offset())
            running.until(lambda outage=outage: sum("works again" in one for one in caplog.messages) == outage)  # type: ignore[misc]
            time.sleep(3.1)  # so that the next failure counts as a new outage
    logged = [one for one in caplog.messages if one.startswith("jsonl: ")]
    assert len(logged) == 4
    assert logged[0] == logged[2] == f"jsonl: message to {path} lost: No such file or directory"
    # A heartbeat may be among them.
    assert re.fullmatch("jsonl: works again; [56] messages were lost in 0 s", logged[1])
    events = [one["type"] for one in lines(good) if one["type"] in ("onset", "offset")]
    assert events == 2 * [*5 * ["onset"], "offset"]  # the working sink has all messages


def test_reopening_is_done_by_the_publishing_thread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamer")
    path, old = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    with publishing(JsonLinesSink(str(path))) as running:
        running.until(lambda: len(lines(path)) == 3)
        path.rename(old)
        running.publisher.reopen()
        running.until(path.exists)
        running.outbox.put(make.onset())
        running.until(lambda: len(lines(path)) == 1)
    assert "reopened outputs: jsonl" in caplog.messages
    assert len(lines(old)) == 3


def test_a_real_slow_subscriber_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamer")
    sink = ZmqSink("tcp://127.0.0.1:0", queue_messages=100)
    with publishing(sink, limit=100_000) as running, listening(*LISTEN, sink.endpoint) as frozen:
        wait_for(lambda: len(frozen.lines) >= 2, lambda: time.sleep(0.02))
        assert running.metric("subscriber_overflows_total") == 0
        os.kill(frozen.process.pid, signal.SIGSTOP)
        for _ in range(30_000):
            running.outbox.put(make.tags())
        running.until(lambda: running.metric("subscriber_overflows_total") >= 1, 60.0)
        running.until(lambda: running.metric("stage_seconds_count", stage="publish") >= 30_000, 60.0)
        assert running.metric("sink_errors_total", sink="zmq") == 0
    assert sum("a subscriber is too slow and misses messages" in one for one in caplog.messages) == 1


def pipe_sink() -> tuple[JsonLinesSink, int]:
    """A sink on a standard output that is a pipe, and the pipe's other end."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stdout, redirect_stdout(stdout):
        return JsonLinesSink("-"), reader


def test_losing_the_last_sink_ends_the_publisher(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamer")
    sink, reader = pipe_sink()
    with publishing(sink) as running:
        running.until(lambda: running.metric("stage_seconds_count", stage="publish") == 3)
        left = [running.publisher.no_sink_left]
        os.close(reader)
        running.publisher.join(5.0)  # without any message
        assert not running.publisher.is_alive()
        left.append(running.publisher.no_sink_left)
        assert left == [False, True]
    assert caplog.messages == [
        "jsonl: the reader of standard output is gone; it gets no more messages; no sink is left"
    ]
    assert running.metric("sink_errors_total", sink="jsonl") == 1


def test_losing_one_of_two_sinks_is_logged_and_the_publisher_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamer")
    sink, reader = pipe_sink()
    path = tmp_path / "events.jsonl"
    with publishing(sink, JsonLinesSink(str(path))) as running:
        os.close(reader)
        running.until(lambda: caplog.messages)
        for _ in range(3):
            running.outbox.put(make.onset())
            running.outbox.put(make.offset())
        running.until(lambda: sum(one["type"] == "offset" for one in lines(path)) == 3)
        assert not running.publisher.no_sink_left
    assert caplog.messages == [
        "jsonl: the reader of standard output is gone; it gets no more messages; still publishing to jsonl"
    ]


def test_without_any_sink_it_keeps_running() -> None:
    with publishing() as running:
        running.until(lambda: running.metric("stage_seconds_count", stage="publish") == 3)
        time.sleep(0.2)
        assert running.publisher.is_alive()
        assert not running.publisher.no_sink_left


class Held:
    """A sink that hangs in the middle of a message, like a file on a dead network share."""

    name = "held"

    def __init__(self) -> None:
        self.go = threading.Event()

    def send(self, message: Message) -> None:
        self.go.wait(30.0)

    def poll(self, timeout_s: float) -> None:
        pass

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_hanging_sink_stops_the_beat_and_lost_messages_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "streamer")
    sink = Held()
    with publishing(sink, limit=10) as running:
        time.sleep(0.2)
        before_s = running.publisher.beat_s
        for _ in range(15):
            running.outbox.put(make.tags())
        running.outbox.put(make.onset())
        assert running.metric("messages_dropped_total", type="tags") == 6
        assert running.metric("messages_dropped_total", type="onset") == 0
        assert running.publisher.beat_s == before_s
        sink.go.set()
        running.until(lambda: running.publisher.beat_s > before_s)
        running.until(lambda: any("works again; 6 messages were lost" in one for one in caplog.messages))
    assert caplog.messages[0] == (
        "queue of messages: messages arrive faster than the sinks take them; dropping the oldest, tags and scores first"
    )


class Broken(Held):
    """A sink that raises an unexpected exception."""

    def send(self, message: Message) -> None:
        raise ZeroDivisionError


def test_an_unexpected_exception_is_passed_on() -> None:
    running = Publishing([Broken()])
    running.publisher.start()
    running.publisher.join(5.0)
    assert [type(error) for error in running.crashes] == [ZeroDivisionError]


def test_a_missing_offset_is_sent_at_shutdown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The worker has a few seconds to close its events at shutdown; a slow machine may need longer."""
    path = tmp_path / "messages.jsonl"
    with publishing(JsonLinesSink(str(path))) as running:
        running.outbox.put(make.onset(event_id="ended"))
        running.outbox.put(make.offset(event_id="ended"))
        running.outbox.put(make.onset(event_id="open"))
        running.until(lambda: path.read_text().count('"onset"') == 2)
        time.sleep(0.3)
        running.end()
    events = [one for one in map(json.loads, path.read_text().splitlines()) if one["type"] in ("onset", "offset")]
    assert [(one["type"], one["event_id"]) for one in events] == [
        ("onset", "ended"),
        ("offset", "ended"),
        ("onset", "open"),
        ("offset", "open"),
    ]
    assert events[-1]["end_reason"] == "shutdown"
    assert 0.3 <= events[-1]["duration_s"] < 10
    assert "closing its open events (1) without it" in caplog.text
