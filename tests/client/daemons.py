"""Starts, kills and restarts a daemon on one store and the same ports (`tests.publishing_daemon`)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from streamer.errors import StoreError
from streamer.sinks.store.history import History
from tests.listeners import ROOT
from tests.rtsp import free_port


class Daemons:
    """One daemon at a time; its runs are r1, r2, ..."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store.sqlite3"
        self.live = f"tcp://127.0.0.1:{free_port()}"
        self.catch_up = f"tcp://127.0.0.1:{free_port()}"
        self.runs = 0
        self.process: subprocess.Popen[str] | None = None
        self._lines: list[str] = []

    def start(self) -> None:
        self.runs += 1
        command = [sys.executable, "-m", "tests.publishing_daemon", str(self.store), self.live, self.catch_up]
        self.process = subprocess.Popen(
            [*command, f"r{self.runs}"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines = []
        threading.Thread(target=self._read, args=(self.process, self._lines), daemon=True).start()
        self._until("ready")

    def publish(self, what: int | str, *, wait: bool = True) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        if wait:
            self._until(f"published {what}")

    def settle(self) -> int:
        """Wait until all published messages are stored; returns the newest number."""
        newest, since_s = -1, time.monotonic()
        while time.monotonic() - since_s < 0.5:
            found = -1
            with closing(History(self.store)) as history, suppress(StoreError):  # it may not be complete yet
                found = history.page("", 0, [""], 1, 1).newest
            if found < 0 or found != newest:
                newest, since_s = found, time.monotonic()
            time.sleep(0.02)
        return newest

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self._ended(self.process)

    def end(self) -> None:
        """Shut down, which sends all messages."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self._ended(self.process) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def _ended(self, process: subprocess.Popen[str]) -> int:
        code = process.wait(20)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and not pipe.closed:
                with suppress(BrokenPipeError):
                    pipe.close()
        return code

    def _read(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        assert process.stdout is not None
        with suppress(ValueError):  # the pipe was closed
            lines.extend(line.strip() for line in process.stdout)

    def _until(self, line: str, timeout_s: float = 60.0) -> None:
        end_s = time.monotonic() + timeout_s
        while line not in self._lines:
            assert self.process is not None
            assert self.process.poll() is None, "it has ended"
            assert time.monotonic() < end_s, f"{line!r} did not come"
            time.sleep(0.01)
        self._lines.remove(line)
