"""A real RTSP server (GStreamer's) as a subprocess, for tests.

>>> with RtspServer(clip, auth="digest") as server:
...     open_media(server.url("user", "pass"), ...)
...     server.kill(); server.restart()

It plays the clip to each client from its start, in real time and without transcoding: H.264 or H.265, AAC, Opus, PCMU
or PCMA in .mp4, .mov or .mkv (PCMU and PCMA in .mov: PyAV puts them into no other of these). Tests that need it are
marked `needs_rtsp`; `missing()` says what this machine lacks.
"""

from __future__ import annotations

import queue
import signal
import socket
import subprocess
import threading
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal

import av
import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
_SCRIPT = Path(__file__).with_name("gst_server.py")
_PROBE = (
    "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0');"
    "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
    "names = 'qtdemux matroskademux h264parse h265parse aacparse opusparse rtph264pay rtph265pay rtpmp4gpay '"
    "'rtpopuspay rtppcmupay rtppcmapay';"
    "print(' '.join(n for n in names.split() if not Gst.ElementFactory.find(n)))"
)
INSTALL = (
    "apt-get install -y --no-install-recommends gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-base-1.0 python3-gi "
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly "
    "gstreamer1.0-libav gstreamer1.0-tools"
)


@cache
def missing() -> str | None:
    """What this machine lacks to run the server; None if nothing."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"no {SYSTEM_PYTHON}"
    probe = subprocess.run([SYSTEM_PYTHON, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)
    if probe.returncode:
        return f"no GStreamer RTSP server: {INSTALL}"
    return f"GStreamer lacks {probe.stdout.strip()}: {INSTALL}" if probe.stdout.strip() else None


needs_rtsp = pytest.mark.skipif("__import__('tests.rtsp').rtsp.missing() is not None", reason=f"GStreamer: {INSTALL}")


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file (by the `openssl` command)."""
    pem, key = folder / "server.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    pem.write_text(pem.read_text() + key.read_text())
    return pem


class RtspServer:
    """Serves `clip` at `url()` while the `with` block lasts.

    `auth` asks for `user` and `password`; `tls` is a PEM file (`make_certificate`) and makes it RTSPS; `loss` is the
    share of RTP packets that are dropped; `stall_after_s` stops the media that long after a client connected;
    `clock` is what sender reports tell, in GStreamer's words: `ntp`, `clock-time` (how long the machine is up), ...
    """

    def __init__(
        self,
        clip: str | Path,
        *,
        port: int | None = None,
        auth: Literal["basic", "digest"] | None = None,
        user: str = "user",
        password: str = "pass",
        tls: str | Path | None = None,
        loss: float = 0.0,
        stall_after_s: float = 0.0,
        path: str = "/clip",
        clock: str | None = None,
    ) -> None:
        self.port = port or free_port()
        self.path = path
        self._tls = tls is not None
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.Queue[str | None] = queue.Queue()
        with av.open(str(clip)) as container:
            kinds = {s.type: s.codec_context.codec.canonical_name for s in container.streams}
        self._command = [SYSTEM_PYTHON, str(_SCRIPT), str(clip), "--port", str(self.port), "--path", path]
        self._command += ["--auth", auth or "none", "--user", user, "--password", password]
        self._command += ["--loss", str(loss), "--stall-after", str(stall_after_s)]
        for kind in ("video", "audio"):
            self._command += [f"--{kind}", kinds.get(kind, "none")]
        if clock is not None:
            self._command += ["--clock", clock]
        if tls is not None:
            self._command += ["--tls", str(tls)]

    def url(self, user: str | None = None, password: str | None = None, *, path: str | None = None) -> str:
        """Where to connect, with the given user and password in it."""
        login = "" if user is None else f"{user}:{password}@"
        return f"rtsp{'s' if self._tls else ''}://{login}127.0.0.1:{self.port}{path or self.path}"

    def start(self) -> None:
        """Start the process and wait until it listens."""
        self._said = queue.Queue()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        threading.Thread(target=_pump, args=(self._process, self._said), daemon=True).start()
        self._wait_for("READY")

    def kill(self) -> None:
        """SIGKILL: the kernel closes its connections. Does nothing if it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def restart(self, *, after_s: float = 0.0) -> None:
        """Kill it if it runs, and start it again on the same port `after_s` later."""
        self.kill()
        time.sleep(after_s)
        self.start()

    def stall(self) -> None:
        """Stop the media of all clients; connection and RTCP go on."""
        self._say("stall")
        self._wait_for("STALLED")

    def resume(self) -> None:
        """Let the media go on after `stall` (what was played in between is lost)."""
        self._say("resume")
        self._wait_for("RESUMED")

    def freeze(self) -> None:
        """SIGSTOP: the connection stays up and nothing comes, as with a cut cable."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT after `freeze`."""
        self._running().send_signal(signal.SIGCONT)

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the server is not running"
        return self._process

    def _say(self, word: str) -> None:
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(word + "\n")
        stdin.flush()

    def _wait_for(self, word: str, timeout_s: float = 30.0) -> None:
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            try:
                line = self._said.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise RuntimeError(f"the RTSP server ended: {' '.join(self._command)}")
            if line.startswith(word):
                return
        raise RuntimeError(f"the RTSP server did not say {word} within {timeout_s} s")


def _pump(process: subprocess.Popen[str], said: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said.put(line)
    except ValueError:  # closed by kill()
        pass
    said.put(None)
