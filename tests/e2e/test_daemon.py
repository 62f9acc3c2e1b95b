"""The main job, with everything real: an RTSP server, the daemon and its subscriber in processes of their own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest

from streamer.detect import Detector
from streamer.media.source import open_media
from streamer.pipeline import StreamPipeline, run
from streamer.timeline import seconds
from streamer.types import CELL, Offset, Want
from streamer.windows import StreamSettings
from tests.e2e.daemon import COMMAND, ROOT, Daemon, Listener
from tests.limits import LATENCY_LIMIT_S, LOOKAHEAD_S
from tests.make_media import make_clip
from tests.models import bursts, factories, seeded_bundle
from tests.rtsp import RtspServer, free_port, needs_rtsp

Events: TypeAlias = list[tuple[str, float, float]]
TWO_CELLS_S = 2 * seconds(CELL) + 1e-6


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return make_clip(path, audio="aac", rate_hz=44_100, video="h264", samples=bursts(14.0, 5, 44_100), seconds=14.0)


def replayed(clip: Path) -> list[tuple[str, float, float]]:
    """The events of the file through the core, as `replay --mode stream` has them."""
    ids = count()
    bundle = seeded_bundle()
    pipeline = StreamPipeline(
        "x", factories(), bundle.decoding, bundle.window_cells, StreamSettings(), lambda: str(next(ids))
    )
    with open_media(str(clip), Want(frozenset({22_100}), pictures=False)) as media:
        pipeline.source_has(audio=True, pictures=False)
        outputs = [timed.output for timed in run(media, pipeline, Detector(bundle))]
        found = [one for one in outputs if isinstance(one, Offset)]
    return sorted((one.label, seconds(one.onset), seconds(one.offset)) for one in found)


def heard(daemon: Daemon, epoch: int, until_s: float = 1e9) -> list[tuple[str, float, float]]:
    offsets = [one for one in daemon.of("offset") if one["epoch"] == epoch and one["onset_s"] < until_s]
    return sorted((one["class"], one["onset_s"], one["offset_s"]) for one in offsets)


def in_the_middle(daemon: Daemon, epoch: int) -> bool:
    """Some events of the epoch have ended, and one is open."""
    onsets = {one["event_id"] for one in daemon.of("onset") if one["epoch"] == epoch}
    offsets = {one["event_id"] for one in daemon.of("offset") if one["epoch"] == epoch}
    return len(offsets) >= 6 and bool(onsets - offsets)


def ended_with(daemon: Daemon, epoch: int, reason: str) -> bool:
    return any(one["end_reason"] == reason for one in daemon.of("offset") if one["epoch"] == epoch)


def assert_same(live: Events, recorded: Events, within_s: float, *, all_live: bool = True) -> None:
    """Equal but for `within_s`. What lasts a few cells only may fall on either side of a threshold."""
    lasting = [[one for one in events if one[2] - one[1] > 2 * within_s] for events in (live, recorded)]
    if not all_live:
        lasting[0] = []
    for each, others in ((lasting[0], recorded), (lasting[1], live)):
        for label, onset_s, offset_s in each:
            near = [
                one
                for one in others
                if one[0] == label and abs(one[1] - onset_s) <= within_s and abs(one[2] - offset_s) <= within_s
            ]
            assert near, (label, onset_s, offset_s, live, recorded)


@needs_rtsp
@pytest.mark.parametrize("transport", ["tcp", pytest.param("udp", marks=pytest.mark.slow)])
def test_rtsp_events_reach_a_subscriber_in_another_process(
    tmp_path: Path, clip: Path, bundle: Path, transport: str
) -> None:
    server = RtspServer(clip, auth="digest")
    config = {
        "streams": {"door": {"source": server.url("user", "pass"), "transport": transport}},
        "reconnect": {"first_s": 0.5, "last_s": 0.5},
    }
    with Daemon(tmp_path, "--model", str(bundle), config=config) as daemon:
        daemon.until(lambda: daemon.of("status"))  # the subscriber is there before the first event
        with server:
            daemon.until(lambda: any(one["reason"] == "eof" for one in daemon.of("status", "door")))
            metrics = httpx.get(f"http://{daemon.metrics}/metrics").text
        assert daemon.terminate()[0] == 0
    onsets, offsets = daemon.of("onset", "door"), daemon.of("offset", "door")
    assert {one["event_id"] for one in onsets} == {one["event_id"] for one in offsets}
    assert len(onsets) > 5
    for one in offsets:
        (onset,) = [other for other in onsets if other["event_id"] == one["event_id"]]
        assert (onset["onset_s"], onset["seq"] < one["seq"]) == (one["onset_s"], True)
    # The server's own end of the clip comes as a lost stream.
    until_s = 14.0 - LOOKAHEAD_S - 0.5
    assert_same(heard(daemon, 0, until_s), [one for one in replayed(clip) if one[1] < until_s], TWO_CELLS_S)
    late_s = [one["sent_utc_s"] - one["onset_utc_s"] for one in onsets if one["onset_s"] < 11.0]
    assert max(late_s) < LATENCY_LIMIT_S + 0.5, late_s  # one clock; RTSP adds its delay
    assert 'earwitness_reconnects_total{reason="eof",stream="door"} 1.0' in metrics
    assert "user" not in daemon.log
    assert "Traceback" not in daemon.log


@needs_rtsp
def test_a_server_killed_twice_comes_back_in_new_epochs(tmp_path: Path, clip: Path, bundle: Path) -> None:
    server = RtspServer(clip)
    config = {"reconnect": {"first_s": 0.5, "last_s": 1.0}, "publish": {"tags": False}}
    with Daemon(tmp_path, f"door={server.url()}", "--model", str(bundle), config=config) as daemon:
        daemon.until(lambda: daemon.of("status"))
        with server:
            for epoch in range(3):
                daemon.until(partial(in_the_middle, daemon, epoch))
                if epoch < 2:
                    server.restart(after_s=0.5)
                    daemon.until(partial(ended_with, daemon, epoch, "gap"))
            code, took_s = daemon.terminate()
    assert code == 0
    assert took_s < 5.0
    onsets, offsets = daemon.of("onset"), daemon.of("offset")
    assert {one["event_id"] for one in onsets} == {one["event_id"] for one in offsets}
    for epoch in range(3):
        reasons = [one["end_reason"] for one in offsets if one["epoch"] == epoch]
        assert ("gap" if epoch < 2 else "shutdown") in reasons
        assert set(reasons) <= {"silence", "gap" if epoch < 2 else "shutdown"}
    # Each connection plays the clip from its start: what it says is right every time, until it lacks right context.
    for epoch in range(3):
        end_s = max(one["offset_s"] for one in offsets if one["epoch"] == epoch) - LOOKAHEAD_S
        expected = [one for one in replayed(clip) if one[2] < end_s]
        assert expected
        known = [one for one in heard(daemon, epoch) if one[2] < end_s + TWO_CELLS_S]
        assert_same(known, expected, TWO_CELLS_S, all_live=False)
    states = [one["state"] for one in daemon.of("status")]
    assert states.count("backoff") >= 2
    assert daemon.of("status")[-1]["state"] == "stopped"


@needs_rtsp
@pytest.mark.parametrize("how", ["stall", pytest.param("freeze", marks=pytest.mark.slow)])
def test_a_stream_that_stalls_is_closed_by_a_timer_and_connected_anew(
    tmp_path: Path, clip: Path, bundle: Path, how: str
) -> None:
    server = RtspServer(clip)
    limits = {"source": server.url(), "stall_s": 2.0, "watchdog_s": 5.0}
    config = {"streams": {"door": limits}, "reconnect": {"first_s": 0.5, "last_s": 1.0}}
    with Daemon(tmp_path, "--model", str(bundle), config=config) as daemon:
        daemon.until(lambda: daemon.of("status"))
        with server:
            daemon.until(partial(in_the_middle, daemon, 0))
            getattr(server, how)()
            stopped_s = time.time()
            daemon.until(partial(ended_with, daemon, 0, "gap"))
            assert time.time() - stopped_s < 2.0 + 1.5
            onsets = {one["event_id"] for one in daemon.of("onset")}
            assert onsets == {one["event_id"] for one in daemon.of("offset")}
            daemon.until(lambda: any(one["state"] == "stalled" for one in daemon.of("status")))
            daemon.until(lambda: any(one["reason"] == "watchdog" for one in daemon.of("status")))
            assert time.time() - stopped_s < 5.0 + 2.0
            server.restart()
            daemon.until(lambda: any(one["epoch"] > 0 for one in daemon.of("offset")))
            assert daemon.terminate()[0] == 0


@pytest.fixture
def live(tmp_path: Path, clip: Path, bundle: Path) -> Iterator[Daemon]:
    """The daemon on a file at its own speed, over and over."""
    config = {"streams": {"cam": {"source": str(clip), "realtime": True, "loop": True}}}
    with Daemon(tmp_path, "--model", str(bundle), config=config) as daemon:
        yield daemon


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_events_and_ends_well(live: Daemon, number: signal.Signals) -> None:
    live.until(lambda: {one["event_id"] for one in live.of("onset")} - {one["event_id"] for one in live.of("offset")})
    code, took_s = live.terminate(number)
    assert code == 0
    assert took_s < 5.0
    assert {one["event_id"] for one in live.of("onset")} == {one["event_id"] for one in live.of("offset")}
    assert live.of("offset")[-1]["end_reason"] == "shutdown"
    assert "Traceback" not in live.log


def test_a_late_subscriber_gets_what_holds(live: Daemon) -> None:
    live.until(lambda: {one["event_id"] for one in live.of("onset")} - {one["event_id"] for one in live.of("offset")})
    late = Listener(live.endpoint)
    live.until(lambda: any(one["replay"] and one["type"] == "status" for one in late.messages), 10.0)
    late.close()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="apt-get install prometheus")
def test_prometheus_scrapes_it(live: Daemon, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: earwitness\n"
        f"    static_configs: [{{targets: ['{live.metrics}']}}]\n"
    )
    prometheus = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def value(query: str) -> float:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query})
            answer = answer.raise_for_status().json()  # it says 503 while it starts
        except httpx.HTTPError:
            return -1.0
        return float(answer["data"]["result"][0]["value"][1]) if answer["data"]["result"] else -1.0

    try:
        live.until(lambda: value('up{job="earwitness"}') == 1.0)
        live.until(lambda: value("sum(earwitness_onset_to_message_seconds_count)") > 5)
        live.until(lambda: value('earwitness_stream_state{state="streaming"}') == 1.0)
        assert value("histogram_quantile(0.95, earwitness_onset_to_message_seconds_bucket)") < LATENCY_LIMIT_S
        assert value('earwitness_stage_seconds_count{stage="detect"}') > 0
        assert value('earwitness_stage_seconds_count{stage="decode"}') > 0
        assert value("earwitness_build_info") == 1.0
    finally:
        prometheus.terminate()
        prometheus.wait(20)
    text = httpx.get(f"http://{live.metrics}/metrics").content
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert httpx.get(f"http://{live.metrics}/healthz").status_code == 200
    assert httpx.get(f"http://{live.metrics}/readyz").json()["streams"]["cam"]["state"] == "streaming"


def test_systemd_is_told(tmp_path: Path, clip: Path, bundle: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(30)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        config = {"streams": {"cam": {"source": str(clip), "realtime": True}}}
        with Daemon(tmp_path, "--model", str(bundle), config=config, environ=environ) as daemon:
            assert notify.recv(100).startswith(b"READY=1\nSTATUS=")
            began_s = time.monotonic()
            assert [notify.recv(100) for _ in range(4)] == [b"WATCHDOG=1"] * 4
            assert 1.0 < time.monotonic() - began_s < 4.0
            assert daemon.terminate()[0] == 0
            notify.settimeout(1)
            said = b""
            while said != b"STOPPING=1":
                said = notify.recv(100)


@pytest.mark.parametrize("option", ["--publish", "--metrics"])
def test_a_busy_port_is_one_line(clip: Path, bundle: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        where = {"--publish": f"tcp://127.0.0.1:{free_port()}", "--metrics": f"127.0.0.1:{free_port()}"}
        where[option] = f"tcp://127.0.0.1:{port}" if option == "--publish" else f"127.0.0.1:{port}"
        arguments = [part for pair in where.items() for part in pair]
        done = subprocess.run(
            [*COMMAND, "run", str(clip), "--model", str(bundle), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("earwitness: error: ")
    assert done.stderr.count("\n") == 1
    assert str(port) in done.stderr
    assert "in use" in done.stderr or "taken" in done.stderr
