"""Detection and live messages continue whatever fails in the store; the failure is logged in one line and counted."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from streamer.client import Subscriber
from streamer.sinks.catch_up import CatchUp
from streamer.sinks.store.recorder import StorePlan
from streamer.sinks.store.retention import Limits
from streamer.sinks.store.writing import Store
from streamer.sinks.wire import Message, OnsetMessage, StatusMessage
from streamer.sinks.zmq import ZmqSink
from tests import messages as make
from tests.listeners import ROOT, wait_for
from tests.runtime.test_publisher import Publishing, publishing
from tests.sinks.test_store import AMPLE, content, small_disk

__all__ = ["small_disk"]  # the fixture


def heard(running: Publishing, messages: Subscriber, count: int = 3) -> list[Message]:
    """The onsets of `count` events that are said now, as a live subscriber receives them."""
    wait_for(lambda: isinstance(messages.receive(0.1), StatusMessage), lambda: None)
    got: list[Message] = []
    for number in range(count):
        running.outbox.put(make.onset(event_id=f"live{number}"))
    wait_for(
        lambda: len(got) == count,
        lambda: got.extend(one for one in [messages.receive(0.1)] if isinstance(one, OnsetMessage)),
    )
    return got


def plan(path: Path) -> StorePlan:
    return StorePlan(path, AMPLE, 600.0)


def store_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one for one in caplog.messages if "store" in one]


def test_a_store_of_a_newer_version(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamer")
    path, sink = tmp_path / "s", ZmqSink("tcp://127.0.0.1:0")
    Store(path, AMPLE).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with publishing(sink, store=plan(path)) as running, Subscriber(sink.endpoint) as messages:
        assert [one.stored_seq for one in heard(running, messages)] == [0, 0, 0]
        running.until(lambda: running.metric("store_failures_total", why="newer") >= 1)
        assert running.metric("store_up") == 0
    first, *rest = store_lines(caplog)
    assert "was written by a newer earwitness (schema 99" in first
    assert len(rest) <= 2  # with what was lost, at the end
    assert path.read_bytes() == before


def test_a_damaged_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamer")
    path, sink = tmp_path / "s", ZmqSink("tcp://127.0.0.1:0")
    with closing(Store(path, AMPLE)) as store:
        store.append([one for one in [make.numberer().number(make.onset())] if isinstance(one, OnsetMessage)])
    path.write_bytes(path.read_bytes()[:4096] + bytes(20_000))
    with publishing(sink, store=plan(path)) as running, Subscriber(sink.endpoint) as messages:
        numbers = [one.stored_seq for one in heard(running, messages)]
        assert numbers == list(range(numbers[0], numbers[0] + 3))
        running.until(lambda: running.metric("store_up") == 1)
    assert "is damaged: it was renamed to" in store_lines(caplog)[0]
    assert len(list(tmp_path.glob("s.damaged-*"))) >= 1
    assert len(content(path)) >= 5


def test_a_store_that_another_daemon_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, sink = tmp_path / "s", ZmqSink("tcp://127.0.0.1:0")
    code = (
        "import sys, time; from pathlib import Path; from streamer.sinks.store.writing import Store\n"
        "from streamer.sinks.store.retention import Limits\n"
        "store = Store(Path(sys.argv[1]), Limits(1, 10**9)); print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        try:
            with publishing(sink, store=plan(path)) as running, Subscriber(sink.endpoint) as messages:
                assert [one.stored_seq for one in heard(running, messages)] == [0, 0, 0]
                assert f"in use by another earwitness (process {other.pid})" in store_lines(caplog)[0]
                other.kill()  # a killed daemon's lock is free at once
                running.until(lambda: running.metric("store_up") == 1, 30.0)
                running.until(lambda: running.metric("store_waiting") == 0)
        finally:
            other.kill()
    assert sum(isinstance(one, OnsetMessage) for one in content(path)) == 3  # what waited is stored


def test_a_disk_that_is_full_under_it(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamer")
    path, sink = small_disk / "s", ZmqSink("tcp://127.0.0.1:0")
    catch_up = CatchUp("tcp://127.0.0.1:0", path, "earwitness")
    ballast = small_disk / "ballast"
    with (
        publishing(sink, store=plan(path), catch_up=catch_up) as running,
        Subscriber(sink.endpoint, ["event/"]) as messages,
    ):
        running.until(lambda: running.metric("store_up") == 1)
        with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
            file.writelines([bytes(4096)] * 1000)
        said, got = 0, list[Message]()
        end_s = time.monotonic() + 30.0
        while not running.metric("store_waiting"):
            assert time.monotonic() < end_s
            running.outbox.put(make.onset(event_id=f"e{said}"))
            said += 1
            time.sleep(0.02)  # the gauge is set once a second: what waits until then must fit on the small disk later
            got += [one for one in [messages.receive(0.05)] if one is not None]
        for _ in range(20):
            running.outbox.put(make.onset(event_id=f"e{said}"))
            said += 1
        wait_for(
            lambda: len(got) == said, lambda: got.extend(one for one in [messages.receive(0.1)] if one is not None)
        )
        assert got[-1].stored_seq == 0
        assert [one.event_id for one in got if isinstance(one, OnsetMessage)] == [
            f"e{number}" for number in range(said)
        ]
        assert running.metric("store_failures_total", why="full") >= 1
        assert running.metric("store_up") == 0
        ballast.unlink()
        running.until(lambda: running.metric("store_up") == 1, 30.0)
        assert running.metric("store_waiting") == 0
        # What was live before it was stored does not come again; the next comes once.
        running.outbox.put(make.offset(event_id="e0"))
        last = messages.receive(10.0)
        assert last is not None
        assert last.stored_seq > said
        assert messages.receive(0.5) is None
    lines = [one for one in store_lines(caplog) if one.startswith("store: ")]
    assert "the disk is full; make room (live messages are still sent)" in lines[0]
    assert "works again; no message was lost" in lines[1] or len(lines) == 1
    assert [one.event_id for one in content(path) if isinstance(one, OnsetMessage)] == [f"e{n}" for n in range(said)]


def test_limits_are_what_the_config_says() -> None:
    from streamer.config.schema import DaemonConfig
    from streamer.daemon import store_plan

    config = DaemonConfig.model_validate({"publisher": "north", "store": {"keep_days": 2, "keep_mb": 3}})
    assert store_plan(config, {"XDG_STATE_HOME": "/var/state"}) == StorePlan(
        Path("/var/state/earwitness/north.sqlite3"), Limits(2.0, 3_000_000), 600.0, 10_000
    )
    for off in ("off", False):
        assert store_plan(DaemonConfig.model_validate({"store": {"path": off}}), {}) is None
