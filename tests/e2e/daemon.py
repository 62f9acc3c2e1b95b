"""The daemon and a subscriber as processes of their own, for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.rtsp import free_port

COMMAND = [sys.executable, "-m", "streamer.cli"]
ROOT = Path(__file__).parent.parent.parent


class Listener:
    """`earwitness listen` in a process of its own; `messages` grows as they come."""

    def __init__(self, endpoint: str, *arguments: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [*COMMAND, "listen", endpoint, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.messages.append(json.loads(line))

    def of(self, kind: str, stream: str | None = None) -> list[dict[str, Any]]:
        """What has come of one type, each message once, though it may have been sent again to late subscribers."""
        found = {
            one["seq"]: one
            for one in reversed(list(self.messages))
            if one["type"] == kind and stream in (None, one.get("stream"))
        }
        return [found[seq] for seq in sorted(found)]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Daemon:
    """`earwitness run` in a process of its own, with a subscriber that has connected before it begins to listen."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        config: dict[str, Any] | None = None,
        environ: Any = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.metrics = f"127.0.0.1:{free_port()}"
        self._command = command
        self._log = folder / "daemon.log"
        self._arguments = [*arguments, "--publish", self.endpoint, "--metrics", self.metrics]
        if config is not None:
            (folder / "daemon.yaml").write_text(json.dumps(config))
            self._arguments += ["--config", str(folder / "daemon.yaml")]
        self._environ = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "XDG_STATE_HOME": str(folder / "state"),
            **(environ or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.listener: Listener | None = None

    def __enter__(self) -> Daemon:
        self.listener = Listener(self.endpoint)
        time.sleep(1.5)  # it waits for the daemon, and must not miss its first events
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self._command, "run", *self._arguments], stderr=log, env=self._environ, cwd=ROOT
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if self.listener is not None:
            self.listener.close()

    @property
    def log(self) -> str:
        """What it said on standard error."""
        return self._log.read_text()

    def of(self, kind: str, stream: str | None = None) -> list[dict[str, Any]]:
        """What the subscriber got of one type."""
        assert self.listener is not None
        return self.listener.of(kind, stream)

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until `condition` holds."""
        end_s = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end_s, f"waited {seconds} s in vain; the log:\n{self.log}"
            time.sleep(0.05)

    def terminate(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """End it with a signal: its exit code, and the seconds that it took."""
        assert self.process is not None
        began_s = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(20)
        took_s = time.monotonic() - began_s
        time.sleep(0.5)  # the subscriber's process must read its last messages
        return code, took_s

    def wait(self, seconds: float) -> int:
        """Wait until it ends by itself: its exit code."""
        assert self.process is not None
        code = self.process.wait(seconds)
        time.sleep(0.5)
        return code
