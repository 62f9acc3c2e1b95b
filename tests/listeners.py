"""Subscribers in other processes, in Python and Node.js, and waiting for their output.

>>> with listening("listen", sink.endpoint) as lines:           # `earwitness listen`, its lines as they come
...     wait_for(lambda: len(lines) == 2, meanwhile=lambda: sink.poll(0.02))
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTEN = (sys.executable, "-m", "streamer.cli", "listen")
NODE = ("node", str(ROOT / "tests/node/subscribe.mjs"))

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (ROOT / "tests/node/node_modules/zeromq").is_dir(),
    reason="make tests/node/node_modules",
)


class Listener:
    """A running subscriber: `lines` grow as it prints them."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait(self, timeout_s: float = 20.0) -> int:
        """The exit code; all lines are in `lines` then."""
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code

    def errors(self) -> str:
        """Its standard error, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def close(self) -> None:
        """Wait for a process that was killed, and close its pipes."""
        self.wait(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def listening(*command: str) -> Iterator[Listener]:
    """Run a subscriber; it is killed at the end."""
    listener = Listener(command)
    try:
        yield listener
    finally:
        if listener.process.poll() is None:
            listener.process.send_signal(signal.SIGCONT)
            listener.process.kill()
        listener.close()


def wait_for(done: Callable[[], bool], meanwhile: Callable[[], None], timeout_s: float = 20.0) -> None:
    """Do `meanwhile` until it is `done`."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline_s, "timed out"
        meanwhile()
