"""The threads together, in this process: real files, real sockets, a real model. Only the network is local."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from streamer.address import Address
from streamer.media.source import MediaOptions
from streamer.runtime.backoff import BackoffLimits
from streamer.runtime.crowd import HttpGuard
from streamer.runtime.plan import Plan, StreamPlan
from streamer.runtime.reader import Source
from streamer.runtime.supervisor import Supervisor
from streamer.runtime.systemd import Notifier
from streamer.sinks.jsonl import JsonLinesSink
from streamer.windows import StreamSettings
from tests.hanging import hanging_playlist
from tests.limits import LATENCY_LIMIT_S, LOOKAHEAD_S
from tests.make_media import make_clip
from tests.models import bursts, factories, seeded_bundle
from tests.rtsp import free_port


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "bursts.wav"
    return make_clip(path, audio="pcm", rate_hz=22_100, samples=bursts(12.0))


def source(name: str, url: str | Path, **changes: Any) -> Source:
    fields: dict[str, Any] = {
        "options": MediaOptions(open_timeout_s=2.0, read_timeout_s=2.0),
        "loop": False,
        "realtime": False,
    }
    return Source(name, Address.parse(str(url)), **{**fields, "reconnect": True, **changes})


class Daemon:
    """A supervisor in a thread, and its messages."""

    def __init__(
        self,
        folder: Path,
        *sources: Source,
        stay: bool = False,
        modalities: Sequence[str] = ("spectral",),
        scores: bool = False,
        **limits: float,
    ) -> None:
        self._path = folder / "messages.jsonl"
        bundle = seeded_bundle(modalities)
        seconds = {"stall_s": 2.0, "watchdog_s": 10.0, "queue_s": 5.0, **limits}
        ids = iter(range(10**9))
        self.supervisor = Supervisor(
            Plan(
                publisher="test",
                run="run1",
                version="0",
                streams=[StreamPlan(one, **seconds) for one in sources],
                settings=StreamSettings(),
                backoff=BackoffLimits(0.2, 1.0, 30.0, 0.2, 1.0),
                threads=1,
                picture_budget=0.5,
                publish_tags=False,
                publish_scores=scores,
                queue_messages=1000,
                metrics_address="127.0.0.1:0",
                http_guard=HttpGuard(),
                store=None,
                stay=stay,
            ),
            bundle,
            factories(modalities),
            [JsonLinesSink(str(self._path))],
            Notifier({}, 1),
            lambda: f"e{next(ids)}",
        )
        self.stop = threading.Event()
        self.reopen = threading.Event()
        self.code: int | BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.code = self.run()
        except BaseException as error:
            self.code = error

    def run(self) -> int:
        return self.supervisor.run(self.stop, self.reopen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> float:
        """Ask it to stop and wait; returns the seconds that took."""
        began_s = time.monotonic()
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        return time.monotonic() - began_s

    def wait(self, seconds: float = 60.0) -> int | BaseException | None:
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self.code

    def messages(self, kind: str, stream: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [one for one in lines if one["type"] == kind and stream in (None, one.get("stream"))]

    def last(self, stream: str, field: str) -> Any:
        """A field of the stream's latest status; None before the first."""
        found = self.messages("status", stream)
        return found[-1][field] if found else None

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        end_s = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end_s, self._path.read_text()[-3000:]
            time.sleep(0.05)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.supervisor.metrics_port}{path}")


def test_the_daemon_ends_with_its_files(tmp_path: Path, clip: Path) -> None:
    with Daemon(tmp_path, source("a", clip), source("b", clip)) as daemon:
        assert daemon.wait() == 0
    heard = {
        name: [(one["class"], one["onset_s"], one["offset_s"]) for one in daemon.messages("offset", name)]
        for name in "ab"
    }
    assert heard["a"] == heard["b"]
    assert len(heard["a"]) > 3
    assert len(daemon.messages("onset")) == 2 * len(heard["a"])
    assert [one["state"] for one in daemon.messages("status", "a")][-1] == "ended"
    every = [one["seq"] for kind in ("onset", "offset", "status", "heartbeat") for one in daemon.messages(kind)]
    assert sorted(every) == list(range(1, len(every) + 1))


def test_a_bad_stream_disturbs_no_other(tmp_path: Path, clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("this is not a film\n" * 100)
    alone_folder = tmp_path / "alone"
    alone_folder.mkdir()
    with Daemon(alone_folder, source("good", clip)) as alone:
        assert alone.wait() == 0
    bad = [
        source("text", text),
        source("gone", tmp_path / "gone.mp4"),
        source("closed", f"rtsp://user:secret@127.0.0.1:{free_port()}/x"),
    ]
    with Daemon(tmp_path, *bad, source("good", clip)) as daemon:
        daemon.until(lambda: any(one["state"] == "ended" for one in daemon.messages("status", "good")))
        daemon.until(lambda: (daemon.last("closed", "reconnects") or 0) >= 2)
        assert daemon.last("text", "state") == "failed"
        assert daemon.last("text", "reason") == "invalid_data"
        assert daemon.last("gone", "reason") == "not_found"
        closed = daemon.messages("status", "closed")
        assert {one["reason"] for one in closed if one["state"] == "backoff"} == {"refused"}
        ready = daemon.get("/readyz")
        assert ready.status_code == 503
        assert set(ready.json()["waiting_for"]) == {"text", "gone"}
        assert daemon.get("/healthz").status_code == 200
        assert 'earwitness_reconnects_total{reason="refused",stream="closed"}' in daemon.get("/metrics").text
        assert daemon.end() < 5.0
    events = [
        [(one["class"], one["onset_s"], one["offset_s"]) for one in each.messages("offset", "good")]
        for each in (alone, daemon)
    ]
    assert events[0] == events[1]
    assert "secret" not in caplog.text
    assert "secret" not in (tmp_path / "messages.jsonl").read_text()


def test_a_file_that_fails_sets_the_exit_code(tmp_path: Path, clip: Path) -> None:
    with Daemon(tmp_path, source("a", clip), source("gone", tmp_path / "gone.mp4")) as daemon:
        assert daemon.wait() == 1


def test_realtime_behaves_like_a_live_source(tmp_path: Path, clip: Path) -> None:
    with Daemon(tmp_path, source("cam", clip, realtime=True)) as daemon:
        began_s = time.monotonic()
        assert daemon.wait() == 0
        assert time.monotonic() - began_s > 11.5
        for line in daemon.supervisor.metrics.registry.collect():
            if line.name == "earwitness_onset_to_message_seconds":
                sums = {
                    sample.name.rpartition("_")[2]: sample.value
                    for sample in line.samples
                    if not sample.labels.get("le")
                }
    onsets = daemon.messages("onset")
    assert {one["clock"] for one in onsets} == {"arrival"}
    late_s = [one["sent_utc_s"] - one["onset_utc_s"] for one in onsets]
    assert sums["count"] == len(onsets)
    assert sums["sum"] == pytest.approx(sum(late_s), abs=0.2)
    # What the file's end decides needs no lookahead.
    whole = [
        (late, one["early"])
        for late, one in zip(late_s, onsets, strict=True)
        if one["onset_s"] < 12.0 - LATENCY_LIMIT_S
    ]
    assert min(late for late, early in whole if not early) > LOOKAHEAD_S
    assert max(late for late, _ in whole) < LATENCY_LIMIT_S
    assert min(late for late, early in whole if early) < LOOKAHEAD_S


def test_loop_begins_a_new_epoch_each_time(tmp_path: Path, clip: Path) -> None:
    with Daemon(tmp_path, source("a", clip, loop=True)) as daemon:
        daemon.until(lambda: daemon.messages("offset") and daemon.messages("offset")[-1]["epoch"] >= 3)
        daemon.end()
    assert daemon.code == 0
    epochs: dict[int, list[tuple[str, float, float]]] = {}
    for one in daemon.messages("offset"):
        epochs.setdefault(one["epoch"], []).append((one["class"], one["onset_s"], one["offset_s"]))
    assert epochs[0] == epochs[1] == epochs[2]


def test_shut_down_closes_events_and_sends_stopped(tmp_path: Path, clip: Path) -> None:
    with Daemon(tmp_path, source("cam", clip, realtime=True, loop=True)) as daemon:

        def open_now() -> set[str]:
            return {one["event_id"] for one in daemon.messages("onset")} - {
                one["event_id"] for one in daemon.messages("offset")
            }

        daemon.until(lambda: bool(open_now()))
        assert daemon.end() < 5.0
    assert daemon.code == 0
    assert not open_now()
    assert daemon.messages("offset")[-1]["end_reason"] == "shutdown"
    assert daemon.last("cam", "state") == "stopped"


def test_a_hanging_server_does_not_delay_shutdown(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        url = f"rtsp://127.0.0.1:{hung.getsockname()[1]}/x"
        options = MediaOptions(open_timeout_s=60.0, read_timeout_s=60.0)
        with Daemon(tmp_path, source("hung", url, options=options)) as daemon:
            time.sleep(1.0)
            assert daemon.get("/readyz").json()["waiting_for"] == {"hung": f"connecting {url}"}
            assert daemon.end() < 5.0
    assert daemon.code == 0


def test_no_reconnect_gives_up(tmp_path: Path) -> None:
    url = f"rtsp://127.0.0.1:{free_port()}/x"
    with Daemon(tmp_path, source("cam", url, reconnect=False)) as daemon:
        assert daemon.wait() == 1


def test_stay_keeps_running_when_all_sources_have_ended(tmp_path: Path, clip: Path) -> None:
    with Daemon(tmp_path, source("a", clip), stay=True) as daemon:
        daemon.until(lambda: daemon.last("a", "state") == "ended")
        time.sleep(0.5)
        assert daemon.code is None
        daemon.end()
    assert daemon.code == 0


def test_a_hanging_reader_is_ended_and_disturbs_nobody(tmp_path: Path, clip: Path) -> None:
    hung = hanging_playlist(tmp_path)
    hanging = source("hung", tmp_path / "hanging.m3u8", realtime=True, options=MediaOptions(open_timeout_s=0.2))
    with hung, Daemon(tmp_path, hanging, source("good", clip), watchdog_s=1.0) as daemon:
        daemon.until(lambda: any(one["reason"] == "watchdog" for one in daemon.messages("status", "hung")))
        daemon.until(lambda: daemon.last("good", "state") == "ended")
        daemon.until(lambda: (daemon.last("hung", "reconnects") or 0) >= 2)
        assert 'earwitness_readers_abandoned_total{stream="hung"} 0.0' in daemon.get("/metrics").text
        assert daemon.get("/healthz").json()["abandoned_readers"] == 0
        assert daemon.end() < 5.0
    assert daemon.code == 0
    assert not daemon.supervisor.left_behind


def test_pictures_begin_coarse_and_are_refined_where_there_is_room(tmp_path: Path) -> None:
    film = make_clip(tmp_path / "film.mkv", audio="aac", video="h264", seconds=14.0)
    with Daemon(tmp_path, source("cam", film, realtime=True), modalities=("spectral", "vggish", "vgg16")) as daemon:
        assert daemon.wait() == 0
    statuses = [one for one in daemon.messages("status", "cam") if one["state"] == "streaming"]
    strides = [one["picture_stride"] for one in statuses]
    assert strides[0] == 16
    assert strides[-1] < 16
    assert sorted(strides, reverse=True) == strides
    assert statuses[-1]["modalities"] == ["spectral", "vggish", "vgg16"]
    assert statuses[-1]["pictures_hz"] == pytest.approx(22_100 / 1464 / strides[-1], abs=0.001)
