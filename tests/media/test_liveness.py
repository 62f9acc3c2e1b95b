"""Whether a source is live, by what real servers, pipes and files do, whatever their names."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.liveness import carrier_of, comes_back
from streamer.media.source import Interrupt, MediaOptions, open_media
from streamer.types import Chunk, Want
from tests.make_media import make_clip, tone
from tests.rtsp import RtspServer, needs_rtsp
from tests.send import http_server, live_ts, needs_ffmpeg, rtmp_server, serving

RATE_HZ = 22_100
SOUND = Want(frozenset({RATE_HZ}))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 4 s of a tone in several containers."""
    folder = tmp_path_factory.mktemp("clips")
    for name, audio in [("a.wav", "pcm"), ("a.mp3", "mp3"), ("a.flac", "flac"), ("a.ts", "aac"), ("a.mkv", "opus")]:
        make_clip(folder / name, audio=audio, rate_hz=48_000, samples=tone(4, 48_000))
    faststart = {"movflags": "faststart"}
    make_clip(folder / "a.mp4", audio="aac", rate_hz=48_000, samples=tone(4, 48_000), options=faststart)
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}
    make_clip(folder / "fragments.mp4", audio="aac", rate_hz=48_000, samples=tone(4, 48_000), options=fragments)
    hls = {"hls_time": "1", "hls_list_size": "0"}
    make_clip(folder / "ended.m3u8", audio="aac", rate_hz=48_000, samples=tone(4, 48_000), options=hls)
    ended = (folder / "ended.m3u8").read_text()
    assert "#EXT-X-ENDLIST" in ended
    (folder / "running.m3u8").write_text(ended.replace("#EXT-X-ENDLIST\n", ""))
    (folder / "event.m3u8").write_text(
        ended.replace("#EXT-X-ENDLIST\n", "").replace("#EXTM3U\n", "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:EVENT\n")
    )
    return folder


@contextmanager
def without_length(folder: Path, length: str | None = None) -> Iterator[str]:
    """The URL of a web server that sends the files of `folder` without a Content-Length, or with a false one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            if length is not None:
                self.send_header("Content-Length", length)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write((folder / self.path[1:]).read_bytes())

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with serving(Handler) as base:
        yield base


def live(url: str | Path) -> bool:
    with open_media(str(url), SOUND, MediaOptions(open_timeout_s=10.0)) as media:
        return media.live


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.ts", "a.mkv", "a.mp4", "fragments.mp4"])
def test_files_are_recordings_under_any_name_on_disk_and_on_a_web_server(
    clips: Path, tmp_path: Path, name: str
) -> None:
    nameless = tmp_path / "nameless"
    nameless.write_bytes((clips / name).read_bytes())
    with http_server(tmp_path) as base:
        assert not live(nameless)
        assert not live(f"{base}/nameless")
    assert not live(f"file://{clips / name}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.mp3", True),  # an endless stream may be called like a file
        ("a.ts", True),
        ("fragments.mp4", True),  # FFmpeg takes the fragments that have come for the length
        ("a.flac", False),  # says its length in its header
        ("a.mp4", False),
        ("a.mkv", False),
    ],
)
def test_without_a_length_the_header_decides(clips: Path, name: str, expected: bool) -> None:
    with without_length(clips) as base:
        assert live(f"{base}/{name}") == expected


def test_an_impossible_length_is_ignored(clips: Path) -> None:
    with without_length(clips, str(2**62)) as base:
        assert live(f"{base}/a.mp3")


@pytest.mark.parametrize(("name", "expected"), [("ended", False), ("running", True), ("event", True)])
def test_a_playlist_is_live_until_it_has_ended(clips: Path, name: str, expected: bool) -> None:
    assert live(clips / f"{name}.m3u8") == expected
    with http_server(clips) as base:
        assert live(f"{base}/{name}.m3u8") == expected


def test_an_ended_playlist_is_read_completely_and_ends(clips: Path) -> None:
    with http_server(clips) as base, open_media(f"{base}/ended.m3u8", SOUND) as media:
        chunks = [item for item in media if isinstance(item, Chunk)]
    assert sum(len(one.samples) for one in chunks) == pytest.approx(4 * RATE_HZ, rel=0.03)


@needs_ffmpeg
def test_pushed_media_is_live(clips: Path) -> None:
    with live_ts(clips / "a.ts") as url:
        assert live(url)
    with rtmp_server(make_clip(clips / "a.flv", audio="aac", rate_hz=44_100, samples=tone(4, 44_100))) as url:
        assert live(url)


@needs_rtsp
def test_rtsp_is_live(clips: Path) -> None:
    with RtspServer(clips / "a.mkv") as server:
        assert live(server.url())


# Pipes ----------------------------------------------------------------------------------------------------------------

_LENGTH = """
import sys
from streamer.errors import SourceError
from streamer.media.source import open_media
from streamer.types import Chunk, Want
try:
    with open_media(sys.argv[1], Want(frozenset({22100}))) as media:
        assert not media.live
        print(sum(len(item.samples) for item in media if isinstance(item, Chunk)))
except SourceError as error:
    print(error)
"""


def said(name: str, stdin: Any) -> str:
    """What a process reports for the source `name` with that standard input: its samples or the error."""
    command = [sys.executable, "-c", _LENGTH, name]
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["-", "pipe:0", "pipe:", "/dev/stdin", "/dev/fd/0"])
def test_standard_input_is_read_from_a_file_and_from_a_pipe(clips: Path, name: str) -> None:
    with (clips / "a.wav").open("rb") as file:
        assert said(name, file) == str(4 * RATE_HZ)
    with subprocess.Popen(["cat", clips / "a.wav"], stdout=subprocess.PIPE) as cat:
        assert said(name, cat.stdout) == str(4 * RATE_HZ)


def test_a_file_on_standard_input_may_have_its_index_at_the_end(clips: Path) -> None:
    late_index = make_clip(clips / "late.mp4", audio="aac", rate_hz=48_000, samples=tone(4, 48_000))
    with late_index.open("rb") as file:
        assert int(said("-", file)) == pytest.approx(4 * RATE_HZ, rel=0.03)


def test_errors_of_standard_input_are_one_line(clips: Path, tmp_path: Path) -> None:
    assert said("-", subprocess.DEVNULL).startswith("-: ")
    text = tmp_path / "notes"
    text.write_text("hello\n" * 100)
    with text.open("rb") as file:
        assert "not an audio or video file (a text file)" in said("-", file)
    with subprocess.Popen(["cat", text], stdout=subprocess.PIPE) as cat:
        assert "what is written to it is not audio or video" in said("-", cat.stdout)
    terminal, other = os.openpty()
    with os.fdopen(terminal, "rb"), os.fdopen(other, "rb") as tty:
        assert "is a terminal" in said("-", tty)


def test_a_fifo_waits_for_its_writer_and_ends_with_it(clips: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    data = (clips / "a.wav").read_bytes()

    def write() -> None:
        time.sleep(0.5)
        with fifo.open("wb") as out:
            out.write(data[: len(data) // 2])
            out.flush()
            time.sleep(0.5)
            out.write(data[len(data) // 2 :])

    writer = threading.Thread(target=write)
    writer.start()
    # Network time limits do not apply to pipes.
    with open_media(str(fifo), SOUND, MediaOptions(open_timeout_s=0.1, read_timeout_s=0.1)) as media:
        assert not media.live
        assert not media.rewinds
        assert sum(len(item.samples) for item in media if isinstance(item, Chunk)) == 4 * RATE_HZ
    writer.join(5)


def test_waiting_for_the_writer_of_a_fifo_can_be_interrupted(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    interrupt = Interrupt()
    timer = threading.Timer(0.3, interrupt.set)
    timer.start()
    began_s = time.monotonic()
    with pytest.raises(SourceError, match="interrupted"):
        open_media(str(fifo), SOUND, interrupt=interrupt)
    assert time.monotonic() - began_s < 2.0
    timer.join()


# Before it is open ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "format_name", "carrier", "again"),
    [
        ("rtsp://h/x", None, "network", True),
        ("http://h/clip.mp4", None, "network", True),
        ("udp://239.0.0.1:1234", None, "network", True),
        ("/dev/video99", None, "device", True),
        ("hw:0", "alsa", "device", True),
        ("/dev/null", None, "device", True),
        ("sine=440", "lavfi", "file", False),
        ("clips/a:b.mp4", None, "file", False),
        ("file:///gone.wav", None, "file", False),
        ("-", None, "pipe", False),
        ("pipe:987", None, "pipe", False),
    ],
)
def test_which_sources_are_retried_before_they_were_ever_opened(
    url: str, format_name: str | None, carrier: str, again: bool
) -> None:
    with open(os.devnull, "rb") as nothing:
        before = os.dup(0)
        os.dup2(nothing.fileno(), 0)
        try:
            found = carrier_of(Address.parse(url), format_name)
        finally:
            os.dup2(before, 0)
            os.close(before)
    assert (found, comes_back(found)) == (carrier, again)


def broken_off(folder: Path) -> Callable[..., http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = (folder / "a.wav").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


def test_a_network_failure_is_not_blamed_on_a_disk(clips: Path) -> None:
    with (
        serving(broken_off(clips)) as base,
        open_media(f"{base}/a.wav", SOUND) as media,
        pytest.raises(SourceError) as caught,
    ):
        list(media)
    assert caught.value.reason == "eof"
    assert "the connection broke" in str(caught.value)
    assert "disk" not in str(caught.value)
    assert "file" not in str(caught.value)
