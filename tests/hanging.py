"""A source that hangs where no interrupt reaches: FFmpeg waits in the kernel for somebody to write to a FIFO."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def hanging_playlist(folder: Path) -> Iterator[Path]:
    """A live playlist whose only segment is a FIFO: opening it takes as long as the block lasts."""
    segment = folder / "segment.ts"
    os.mkfifo(segment)
    playlist = folder / "hanging.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n{segment.name}\n")
    try:
        yield playlist
    finally:
        release(segment)


def release(segment: Path) -> None:
    """Let all threads go that hang in opening `segment`: they find it empty, and some come again."""
    for _ in range(20):
        with suppress(OSError):
            os.close(os.open(segment, os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.05)
