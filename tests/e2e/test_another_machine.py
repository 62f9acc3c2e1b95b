"""The daemon on one machine, its subscribers on another: two network namespaces with a cable between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.listeners import ROOT, Listener, listening
from tests.make_media import make_clip
from tests.models import bursts
from tests.rtsp import free_port

EARWITNESS = (sys.executable, "-m", "streamer.cli")
PLAIN_TCP = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as one:
    one.settimeout(9)
    data = b"".join(iter(lambda: one.recv(9999), b""))
assert len(data) <= 64 and b"event" not in data, data  # ZeroMQ's greeting
"""
HERE, THERE = "10.173.9.1", "10.173.9.2"


def _can() -> bool:
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False, timeout=10).returncode == 0
    return False


needs_namespaces = pytest.mark.skipif(not _can(), reason="network namespaces need root (unshare -n)")


class Machine:
    """A network namespace: commands run in it, as on a machine of its own."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        self.enter = ("nsenter", "-t", str(self._holder.pid), "-n")
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self._holder.pid}/ns/net") == own:
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        return self._holder.pid

    def run(self, *command: str) -> None:
        subprocess.run([*self.enter, *command], check=True, capture_output=True, timeout=60)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    here, there = Machine(), Machine()
    try:
        here.run("ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", str(there.pid))
        for machine, name, address in ((here, "cable0", HERE), (there, "cable1", THERE)):
            machine.run("ip", "link", "set", "lo", "up")
            machine.run("ip", "address", "add", f"{address}/24", "dev", name)
            machine.run("ip", "link", "set", name, "up")
        yield here, there
    finally:
        here.close()
        there.close()


@contextmanager
def daemon(machine: Machine, folder: Path, bundle: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    clip = make_clip(folder / "clip.mkv", audio="aac", samples=bursts(9.0, 5, 44_100), rate_hz=44_100)
    config = {"streams": {"door": {"source": str(clip), "realtime": True, "loop": True}}, "model": str(bundle)}
    (folder / "daemon.yaml").write_text(json.dumps(config))
    command = [*machine.enter, *EARWITNESS, "run", "--config", str(folder / "daemon.yaml"), *arguments]
    with (folder / "daemon.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _keys(folder: Path, *words: str) -> None:
    command = [*EARWITNESS, "keys", *words, "--keys", str(folder / "keys")]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)


def _until(done: Any, log: Path, seconds: float = 60.0) -> None:
    end_s = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.1)


def _refused(machine: Machine, port: int) -> dict[str, float]:
    """The counter of refused connections, by reason, as Prometheus sees it on the daemon's machine."""
    code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/metrics', timeout=5).read().decode())"
    done = subprocess.run([*machine.enter, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    start = 'earwitness_connections_refused_total{reason="'
    lines = [line for line in done.stdout.splitlines() if line.startswith(start) and 'socket="zmq"' in line]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


def _assert_refused(listener: Listener, reason: str) -> None:
    assert listener.wait(30) == 1
    assert not listener.lines
    assert reason in listener.errors()


@needs_namespaces
def test_only_allowed_keys_receive_messages_on_another_machine(tmp_path: Path, bundle: Path) -> None:
    for name in ("good", "revoked"):
        _keys(tmp_path, "new", name, "--to", str(tmp_path / f"{name}.key"))
    subprocess.run(
        [*EARWITNESS, "keys", "new", "x", "--keys", str(tmp_path / "other"), "--to", str(tmp_path / "wrong.key")],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    port, metrics = free_port(), free_port()
    at = f"tcp://{HERE}:{port}"
    arguments = ("--publish", f"tcp://0.0.0.0:{port}", "--metrics", f"127.0.0.1:{metrics}")
    log = tmp_path / "daemon.log"

    with two_machines() as (here, there):
        # Without keys the daemon does not start, and its error says what to do.
        with daemon(here, tmp_path, bundle, *arguments) as process:
            assert process.wait(60) == 1
            assert "earwitness keys new NAME" in log.read_text()
            assert log.read_text().count("\n") == 1

        def listen(*key: str) -> tuple[str, ...]:
            words = ("--key", str(tmp_path / f"{key[0]}.key")) if key else ()
            return (*there.enter, *EARWITNESS, "listen", at, "--topic", "event/", *words)

        with daemon(here, tmp_path, bundle, *arguments, "--keys", str(tmp_path / "keys")):
            with listening(*listen("good")) as good, listening(*listen("revoked")) as revoked:
                for one in (good, revoked):
                    _until(lambda one=one: len(one.lines) >= 2, log)
                assert json.loads(good.lines[0])["stream"] == "door"
                _keys(tmp_path, "revoke", "revoked")
                assert revoked.wait(30) == 1
                assert "was revoked" in revoked.errors()
                with listening(*listen("wrong")) as wrong, listening(*listen()) as none:
                    _assert_refused(wrong, "this key is for another daemon")
                    _assert_refused(none, "requires a key")
                with listening(*listen("revoked")) as again:
                    _assert_refused(again, "was revoked")
                there.run(sys.executable, "-c", PLAIN_TCP, HERE, str(port))
                before = len(good.lines)
                _until(lambda: len(good.lines) > before, log)
            counts = _refused(here, metrics)
            assert counts["revoked_key"] >= 2
            assert counts["wrong_server_key"] >= 3
            assert counts["timeout"] == 1  # plain TCP that sends nothing
            assert counts["no_key"] + counts["closed"] >= 1
        logged = log.read_text()
        assert f"refused {THERE} (revoked): its key was revoked" in logged
        assert f"refused {THERE}: it did not complete the handshake in time" in logged
        assert "Traceback" not in logged
