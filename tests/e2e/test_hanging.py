"""A reader that hangs in C, where no interrupt reaches it, beside good streams: a name server that does not answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.dns import NameServer, asking_it, needs_own_dns
from tests.e2e.daemon import COMMAND, Daemon
from tests.make_media import make_clip
from tests.models import bursts
from tests.rtsp import RtspServer, needs_rtsp

CELL_S = 1464 / 22_100
HEARD_WITHIN_S = 30.0


def check_unchanged(daemon: Daemon, stream: str) -> int:
    """All cells of one epoch follow one another, and each was heard; gives how many."""
    following = 0
    for one in daemon.of("scores", stream):
        assert (one["epoch"], round(one["start_s"] / CELL_S)) == (0, following)
        assert all(one["covered"])
        following += len(one["scores"])
    return following


def in_use(daemon: Daemon) -> tuple[int, int, int]:
    """Threads and descriptors of the daemon, and processes below it."""
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    return process.num_threads(), process.num_fds(), len(process.children(recursive=True))


def hang_beside(tmp_path: Path, bundle: Path, good: int, hangs: int) -> None:
    clip = make_clip(tmp_path / "clip.wav", audio="pcm", rate_hz=22_100, samples=bursts(300.0))
    film = make_clip(tmp_path / "film.mp4", audio="aac", rate_hz=44_100, video="h264", seconds=60.0)
    names = [f"good{number}" for number in range(good)]
    with NameServer() as names_server, RtspServer(film) as camera:
        hung = f"rtsp://camera.test:{camera.port}{camera.path}"
        streams = {name: {"source": str(clip), "realtime": True, "queue_s": 20.0} for name in names}
        config = {
            "model": str(bundle),
            "publish": {"scores": True, "tags": False},
            "streams": {**streams, "hung": {"source": hung, "open_timeout_s": 1.0}},
            "windows": {"hop_cells": 32},  # two cores, shared with other tests, must keep up with ten streams
        }
        with Daemon(tmp_path, config=config, command=asking_it(tmp_path, COMMAND)) as daemon:
            daemon.until(lambda: names_server.queries > 0, 60.0)
            daemon.until(lambda: all(check_unchanged(daemon, name) > 20 for name in names), 90.0)
            before = in_use(daemon)

            def lost() -> list[dict[str, Any]]:
                return [one for one in daemon.of("status", "hung") if one["state"] == "backoff"]

            daemon.until(lambda: len(lost()) >= hangs, 120.0)
            assert {one["reason"] for one in lost()} == {"timeout"}
            assert "opening it hung" in lost()[0]["detail"]
            names_server.answers.set()
            back_s = time.monotonic()
            daemon.until(lambda: daemon.of("scores", "hung"), HEARD_WITHIN_S)
            print(f"heard again after {time.monotonic() - back_s:.1f} s")
            seen = {name: check_unchanged(daemon, name) for name in names}
            daemon.until(lambda: all(check_unchanged(daemon, name) > seen[name] + 20 for name in names))
            daemon.until(lambda: all(daemon.of("status", name)[-1]["coverage"] == 1.0 for name in names))
            assert {daemon.of("status", name)[-1]["reconnects"] for name in names} == {0}
            daemon.until(lambda: in_use(daemon)[2] == before[2])
            assert in_use(daemon)[:2] <= before[:2], "no thread and no descriptor is left"
            assert daemon.terminate()[0] == 0


@needs_rtsp
@needs_own_dns
@pytest.mark.slow
def test_a_hung_reader_beside_two_good_streams(tmp_path: Path, bundle: Path) -> None:
    hang_beside(tmp_path, bundle, good=2, hangs=1)


@pytest.mark.slow
@needs_rtsp
@needs_own_dns
def test_a_hung_reader_beside_nine_good_streams(tmp_path: Path, bundle: Path) -> None:
    hang_beside(tmp_path, bundle, good=9, hangs=4)
