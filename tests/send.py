"""Real senders of a clip, without transcoding: HTTP (files and HLS, or live MPEG-TS) and RTMP, pulled and pushed.

>>> with http_server(folder) as base: ...                 # base/clip.mp4, base/index.m3u8
>>> with live_ts(clip) as url: ...                        # http://127.0.0.1:PORT/live.ts, endless in form, in real time
>>> with rtmp_server(clip) as url: ...                    # rtmp://127.0.0.1:PORT/live/clip, by the `ffmpeg` command
>>> with pushing_rtmp(clip, url): ...                     # to a reader that listens (FFmpeg's option listen=1)
"""

from __future__ import annotations

import http.server
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import av
import pytest

from tests.rtsp import free_port

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="apt-get install ffmpeg")


@contextmanager
def http_server(folder: str | Path) -> Iterator[str]:
    """The URL of a web server for the files in `folder`; `USER:PASSWORD@` in it is ignored."""
    with serving(partial(_Files, directory=str(folder))) as base:
        yield base


@contextmanager
def live_ts(clip: str | Path) -> Iterator[str]:
    """The URL of a live MPEG-TS over HTTP: each client gets the clip from its start, in real time, without a length."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with suppress(OSError):  # the client has gone
                remux(clip, self.wfile, "mpegts")

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with serving(Handler) as base:
        yield f"{base}/live.ts"


@contextmanager
def rtmp_server(clip: str | Path) -> Iterator[str]:
    """The URL of an RTMP server that plays the clip once, in real time, to its first client."""
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/clip"
    command = ["ffmpeg", "-v", "quiet", "-re", "-i", str(clip), "-c", "copy", "-f", "flv", "-listen", "1", url]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_until_bound(port)
        yield url
    finally:
        process.kill()
        process.wait(10)


@contextmanager
def pushing_rtmp(clip: str | Path, url: str) -> Iterator[None]:
    """Publish the clip in real time, as some cameras do, to the reader that will listen at `url` during the block.

    In a process of its own: PyAV holds Python's lock while it connects for writing.
    """
    code = "import sys; from tests.send import push; push(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, str(clip), url], cwd=Path(__file__).parent.parent)
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


def push(clip: str | Path, url: str) -> None:
    """Wait for an RTMP reader that listens at `url`, then publish the clip to it."""
    wait_until_bound(int(url.split(":")[2].split("/")[0]))
    remux(clip, url, "flv")


def remux(clip: str | Path, target: Any, format_name: str) -> None:
    """Copy the clip's packets to `target` (a URL or a writable file) at the pace of their timestamps."""
    with av.open(str(clip)) as source, av.open(target, "w", format=format_name) as sink:
        streams = {s.index: sink.add_stream_from_template(s) for s in source.streams}
        started = time.monotonic()
        for packet in source.demux():
            if packet.dts is None or packet.time_base is None:
                continue
            time.sleep(max(0.0, started + float(packet.dts * packet.time_base) - time.monotonic()))
            packet.stream = streams[packet.stream.index]
            sink.mux(packet)


def wait_until_bound(port: int, timeout_s: float = 20.0) -> None:
    """Wait until something listens on `port`; looked up in /proc: a trial connection would pass for the client."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port} after {timeout_s} s")


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)
