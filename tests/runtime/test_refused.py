"""Cameras lock accounts, so a wrong password is retried rarely, and the number of attempts is logged."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamer.address import Address
from streamer.media.source import MediaOptions
from streamer.runtime.backoff import Backoff, BackoffLimits
from streamer.runtime.board import Board, StreamView
from streamer.runtime.intake import Intake
from streamer.runtime.metrics import Metrics
from streamer.runtime.reader import Reader, Source
from streamer.types import SAMPLE_RATE_HZ, Want
from tests.counting import Count, counting_relay, refusing_http
from tests.make_media import make_clip
from tests.rtsp import RtspServer, needs_rtsp

LIMITS = BackoffLimits(0.01, 0.01, 30.0, 0.5, 1.0)
"""Attempts at 0, 0.5, 1.5 and 2.5 s; with the waits after other losses there would be dozens."""


@contextmanager
def reading(url: str) -> Iterator[Board]:
    """The board of a reader of `url`."""
    options = MediaOptions(open_timeout_s=5.0, read_timeout_s=5.0)
    source = Source("cam", Address.parse(url), options, loop=False, realtime=False, reconnect=True)
    metrics = Metrics("0", "seeded", ["cam"], ["Dog"])
    board = Board([StreamView("cam", source.address.shown, live=True)], metrics, time.monotonic)
    intake = Intake(
        limit_s=1.0,
        picture_limit=10,
        clock_s=time.monotonic,
        dropped=lambda reason, count: None,
        wake=lambda: None,
    )
    reader = Reader(
        source,
        Want(frozenset({SAMPLE_RATE_HZ})),
        intake,
        board,
        metrics,
        Backoff(LIMITS, lambda low, high: low),
        lambda error: pytest.fail(repr(error)),
    )
    reader.start()
    try:
        yield board
    finally:
        reader.stop()
        reader.join(10)


def check(url: str, count: Count, caplog: pytest.LogCaptureFixture, *, logins: bool) -> None:
    with caplog.at_level(logging.WARNING, "streamer"), reading(url) as board:
        end_s = time.monotonic() + 10.0
        while board.view("cam").reconnects < 3:
            assert time.monotonic() < end_s
            time.sleep(0.02)
        view = board.view("cam")
    tries = [one for one in count.requests if not one.startswith("OPTIONS")]
    # FFmpeg asks without a login first; each attempt then uses exactly one login.
    assert (count.logins, len(tries)) == ((3, 6) if logins else (0, 3))
    assert (view.state, view.reason) == ("backoff", "auth")
    assert view.detail.endswith(
        "; refused 3 times in a row, retried rarely because cameras lock accounts; next try in 1 s"
    )
    waits = [record.getMessage().rpartition("next try in ")[2] for record in caplog.records]
    assert waits == ["0.5 s", "1.0 s", "1.0 s"]
    assert "wrong-secret" not in caplog.text + view.detail


@needs_rtsp
@pytest.mark.parametrize("kind", ["basic", "digest"])
def test_a_camera_is_asked_rarely(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=2, audio="aac", video="h264")
    with (
        RtspServer(clip, auth="basic" if kind == "basic" else "digest") as server,
        counting_relay(server.port) as (port, count),
    ):
        check(f"rtsp://user:wrong-secret@127.0.0.1:{port}/clip", count, caplog, logins=True)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("name", ["live.ts", "live.m3u8"])
def test_a_web_server_is_asked_rarely(status: int, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with refusing_http(status) as (base, count):
        check(base.replace("http://", "http://user:wrong-secret@") + f"/{name}", count, caplog, logins=status == 401)
