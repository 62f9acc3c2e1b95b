"""The whole daemon and its event store: killed in the middle of an event, and started again."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from streamer.client import Subscriber
from streamer.sinks.wire import Message, OffsetMessage, OnsetMessage, StatusMessage
from tests.e2e.daemon import COMMAND, ROOT, Daemon
from tests.listeners import wait_for
from tests.make_media import make_clip
from tests.models import bursts
from tests.sinks.test_store import content


def test_what_was_open_when_the_daemon_was_killed_is_closed_by_the_next(tmp_path: Path, bundle: Path) -> None:
    clip = make_clip(tmp_path / "clip.wav", audio="pcm", rate_hz=22_100, samples=bursts(30.0))
    config = {"streams": {"cam": {"source": str(clip), "realtime": True, "loop": True}}}
    path = tmp_path / "state" / "earwitness" / "earwitness.sqlite3"

    with Daemon(tmp_path, "--model", str(bundle), config=config) as daemon:
        daemon.until(lambda: daemon.of("heartbeat"))
        assert daemon.of("heartbeat")[0]["catch_up"].startswith("tcp://127.0.0.1:")
        daemon.until(lambda: len(daemon.of("offset")) >= 2 and len(daemon.of("onset")) > len(daemon.of("offset")), 90.0)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait(10)
        before = daemon.of("onset") + daemon.of("offset") + daemon.of("status")
    assert all(one["stored_seq"] for one in before)
    kept = content(path)
    opened = {one.event_id for one in kept if isinstance(one, OnsetMessage)}
    opened -= {one.event_id for one in kept if isinstance(one, OffsetMessage)}
    assert opened

    got: list[Message] = []
    with (
        Daemon(tmp_path, "--model", str(bundle), config=config) as daemon,
        Subscriber(daemon.endpoint, ["event/", "status/"], since=0) as messages,
    ):
        wait_for(
            lambda: len(got) > len(kept) + 2,
            lambda: got.extend(one for one in [messages.receive(0.5)] if one is not None),
            60.0,
        )
        code, _ = daemon.terminate()
        assert code == 0
        assert f"event store {path}: continued" in daemon.log
    assert got[: len(kept)] == kept
    closed = got[len(kept) : len(kept) + len(opened)]  # before anything else
    assert {one.event_id for one in closed if isinstance(one, OffsetMessage)} == opened
    assert {one.end_reason for one in closed if isinstance(one, OffsetMessage)} == {"crash"}
    assert isinstance(got[len(kept) + len(opened)], StatusMessage)

    shown = subprocess.run(
        [*COMMAND, "events", "--store", str(path), "--format", "json"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert {one["event_id"] for one in events if one["end_reason"] == "crash"} == opened
    assert all(one["type"] == "offset" for one in events)


def test_two_daemons_with_one_name_share_no_store(tmp_path: Path, bundle: Path) -> None:
    clip = make_clip(tmp_path / "clip.wav", audio="pcm", rate_hz=22_100, samples=bursts(30.0))
    config = {"streams": {"cam": {"source": str(clip), "realtime": True, "loop": True}}}
    other = tmp_path / "other"
    other.mkdir()
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with Daemon(tmp_path, "--model", str(bundle), config=config) as first:
        first.until(lambda: first.of("status"))
        with Daemon(other, "--model", str(bundle), config=config, environ=environ) as second:
            second.until(lambda: second.of("status"))
            assert second.of("status")[0]["stored_seq"] == 0
            second.until(lambda: "is in use by another earwitness" in second.log)
            assert second.log.count("give each daemon its own `publisher` or `store.path`") == 1
        assert first.of("status")[0]["stored_seq"] > 0
