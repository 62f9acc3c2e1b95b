"""A live HLS source: segments cut beforehand, and a real web server that shows each in the playlist when it is due.

>>> with live_hls(clip, folder, segment_s=6.0) as url: ...     # 3 segments at once, then one each 6 s, a window of 5
"""

from __future__ import annotations

import http.server
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.send import serving

_AT_START = 3  # FFmpeg begins with the third from the end
_WINDOW = 5


@contextmanager
def live_hls(clip: Path, folder: Path, *, segment_s: float) -> Iterator[str]:
    """The URL of a playlist of `clip` that begins to run with its first request and never says that it has ended."""
    folder.mkdir(exist_ok=True)
    cut = ["ffmpeg", "-v", "error", "-y", "-i", str(clip), "-c", "copy", "-f", "hls", "-hls_time", f"{segment_s}"]
    subprocess.run([*cut, "-hls_list_size", "0", str(folder / "all.m3u8")], check=True, timeout=60)
    segments = re.findall(r"#EXTINF:([0-9.]+),\s*(\S+)", (folder / "all.m3u8").read_text())
    lengths_s = [float(length) for length, _ in segments]
    began: list[float] = []

    def playlist() -> str:
        if not began:
            began.append(time.monotonic())
        passed_s, there = time.monotonic() - began[0], min(_AT_START, len(segments))
        while there < len(segments) and passed_s >= sum(lengths_s[_AT_START : there + 1]):
            there += 1
        first = max(0, there - _WINDOW)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{round(max(lengths_s))}"]
        lines += [f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for length, name in segments[first:there]:
            lines += [f"#EXTINF:{length},", name]
        return "\n".join(lines) + "\n"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            body = playlist().encode() if name == "live.m3u8" else (folder / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with serving(Handler) as base:
        yield f"{base}/live.m3u8"
