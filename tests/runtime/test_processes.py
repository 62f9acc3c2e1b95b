"""Sources that are read in separate processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.source import Interrupt, MediaOptions, open_media
from streamer.runtime.processes import ForeignMedia, Processes
from streamer.types import Anchor, Chunk, Discontinuity, Picture, Want
from tests.hanging import hanging_playlist
from tests.make_media import make_clip

BOTH = Want(frozenset({22_100, 16_000}), pictures=True)


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mkv", audio="aac", video="h264", seconds=4.0)


def opened(processes: Processes, source: str | Path, **options: float) -> ForeignMedia:
    made = MediaOptions(**options)  # type: ignore[arg-type]
    return processes.open(Address.parse(str(source)), BOTH, made, interrupt=Interrupt())


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, f"not true within {seconds} s"
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two calls
        return False


def below(pid: int | None = None) -> list[psutil.Process]:
    return [one for one in psutil.Process(pid).children(recursive=True) if runs(one)]


def readers() -> list[psutil.Process]:
    """The reading processes, without the one that they are forked from."""
    parents = {one.pid for one in psutil.Process().children()}
    return [one for one in below() if one.pid not in parents]


def test_media_is_the_same_as_when_read_in_this_process(processes: Processes, clip: Path) -> None:
    with open_media(str(clip), BOTH) as here, opened(processes, clip) as there:
        assert (there.live, there.rewinds, there.has_audio, there.has_video) == (False, True, True, True)
        assert there.audio == here.audio
        for ours, its in zip(here, there, strict=True):
            assert type(ours) is type(its)
            match ours, its:
                case Chunk(), Chunk():
                    assert (ours.rate_hz, ours.start) == (its.rate_hz, its.start)
                    assert np.array_equal(ours.samples, its.samples)
                case Picture(), Picture():
                    assert ours.at == its.at
                    assert np.array_equal(ours.pixels, its.pixels)
                case Anchor() | Discontinuity(), _:
                    assert ours == its
        assert there.other_process_s >= 0.0
        assert there.ear.take_levels() == here.ear.take_levels()
    until(lambda: not readers())


def test_errors_are_the_same_as_when_opened_in_this_process(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film\n" * 100)
    for source in (tmp_path / "gone.mp4", tmp_path / "text.mp4", "rtsp://user:hunter2@127.0.0.1:1/x"):
        errors = []
        for act in (lambda one: open_media(one, BOTH), lambda one: opened(processes, one)):
            with pytest.raises(SourceError) as caught:
                act(str(source))
            errors.append((caught.value.reason, str(caught.value)))
        assert errors[0] == errors[1]
        assert "hunter2" not in errors[1][1]


def test_a_hanging_process_is_killed(processes: Processes, tmp_path: Path) -> None:
    processes.start()
    before = (psutil.Process().num_fds(), threading.active_count())
    with hanging_playlist(tmp_path) as playlist:
        began_s = time.monotonic()
        with pytest.raises(SourceError, match="opening it hung") as caught:
            opened(processes, playlist, open_timeout_s=0.2)
        assert caught.value.reason == "timeout"
        assert 5.0 < time.monotonic() - began_s < 12.0
        until(lambda: not readers())
    assert (psutil.Process().num_fds(), threading.active_count()) <= before


def test_an_interrupt_kills_a_hanging_process_at_once(processes: Processes, tmp_path: Path) -> None:
    interrupt = Interrupt()
    threading.Timer(0.5, interrupt.set).start()
    began_s = time.monotonic()
    with hanging_playlist(tmp_path) as playlist:
        address = Address.parse(str(playlist))
        with pytest.raises(SourceError, match="interrupted"):
            processes.open(address, BOTH, MediaOptions(), interrupt=interrupt)
    assert time.monotonic() - began_s < 5.0
    until(lambda: not readers())


def test_a_crash_loses_the_source_and_the_next_one_opens(processes: Processes, clip: Path) -> None:
    with opened(processes, clip) as media:
        (reader,) = readers()
        reader.send_signal(signal.SIGSEGV)
        with pytest.raises(SourceError, match="was killed or crashed"):
            list(media)
    with opened(processes, clip) as media:
        (reader,) = readers()
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
        ):  # a terminal or systemd sends them
            reader.send_signal(number)
        (zygote,) = [one for one in below() if one.ppid() == os.getpid()]
        zygote.send_signal(signal.SIGTERM)
        assert len(list(media)) > 100
    with opened(processes, clip) as media:
        zygote.kill()
        with pytest.raises(SourceError, match="was killed or crashed"):
            list(media)
    with opened(processes, clip) as media:
        assert len(list(media)) > 100


def test_no_secret_is_on_a_command_line(processes: Processes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        interrupt = Interrupt()
        url = f"rtsp://user:hunter2@127.0.0.1:{silent.getsockname()[1]}/x"

        def open_it() -> None:
            with suppress(SourceError):
                processes.open(Address.parse(url), BOTH, MediaOptions(), interrupt=interrupt)

        thread = threading.Thread(target=open_it)
        thread.start()
        until(readers)
        time.sleep(0.3)
        assert "hunter2" not in str([one.cmdline() for one in below()])
        interrupt.set()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("data", [b"\0\0\0\1\0\0\0\0\xff", b"\xff" * 100, b"\0\0\0\x03\0\0\0\0abc"])
def test_invalid_data_loses_the_source(processes: Processes, data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
        media = ForeignMedia(processes, 0, ours, Address.parse("cam"), MediaOptions(), Interrupt())
        with pytest.raises(SourceError, match="sent invalid data"):
            media.wait_until_open()
        ours.close()


def test_no_process_outlives_a_killed_daemon(tmp_path: Path) -> None:
    script = (
        "import sys; from streamer.address import Address; from streamer.media.source import *\n"
        "from streamer.runtime.processes import Processes; p = Processes(); print(1, flush=True)\n"
        "p.open(Address.parse(sys.argv[1]), Want(frozenset({22100})), MediaOptions(), interrupt=Interrupt())"
    )
    with hanging_playlist(tmp_path) as playlist:
        with subprocess.Popen([sys.executable, "-c", script, str(playlist)], stdout=subprocess.PIPE) as daemon:
            until(lambda: len(below(daemon.pid)) == 2)
            left = below(daemon.pid)
            daemon.kill()
        until(lambda: not any(map(runs, left)))
