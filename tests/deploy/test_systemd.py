"""The unit's commands, run unchanged, while the test plays systemd's side of the protocol."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.daemon import ROOT
from tests.rtsp import free_port

UNIT = ROOT / "deploy/systemd/earwitness.service"
DEMO = ROOT / "streamer/demo/demo.mp4"
INSTALLED = """
set -e
mount -t tmpfs tmpfs "$SCRATCH"
for folder in /opt /etc; do
    mkdir -p "$SCRATCH$folder/upper" "$SCRATCH$folder/work"
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=$SCRATCH$folder/upper,workdir=$SCRATCH$folder/work" $folder
done
mkdir /opt/earwitness /etc/earwitness
ln -s "$VENV/bin" /opt/earwitness/bin
cp "$CONFIG" /etc/earwitness/earwitness.yaml
exec "$@"
"""
"""Runs a command with Earwitness installed where the unit expects it, invisible to others (mount_namespaces(7))."""


def unit(name: str) -> list[str]:
    """All values of a setting of the unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.M)


def in_place(folder: Path, *command: str) -> list[str]:
    (folder / "scratch").mkdir(exist_ok=True)
    variables = [f"SCRATCH={folder / 'scratch'}", f"VENV={sys.prefix}", f"CONFIG={folder / 'earwitness.yaml'}"]
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    return [*namespace, "env", *variables, "sh", "-c", INSTALLED, "sh", *command]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with a config; skips the test if this user may not create namespaces."""
    (tmp_path / "earwitness.yaml").write_text(
        f"publish: {{zmq: off, jsonl: {tmp_path}/events.jsonl}}\n"
        f"metrics: 127.0.0.1:{free_port()}\n"
        f"streams: {{demo: {{source: {DEMO}, realtime: true, loop: true}}}}\n"
    )
    done = subprocess.run(in_place(tmp_path, "true"), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    return tmp_path


def test_systemd_finds_no_fault(installed: Path) -> None:
    done = subprocess.run(
        in_place(installed, "systemd-analyze", "verify", "--recursive-errors=yes", str(UNIT)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.slow
def test_the_service_starts_lives_reloads_and_stops(installed: Path) -> None:
    address = installed / "notify"
    (start,), (reload,) = unit("ExecStart"), unit("ExecReload")
    assert unit("Type") == ["notify"]
    environ = {
        **os.environ,
        **dict(
            one.split("=", 1)
            for one in shlex.split(
                unit("Environment")[0].replace("%S", str(installed / "state")).replace("%C", str(installed / "cache"))
            )
        ),
        "NOTIFY_SOCKET": str(address),
        "RUNTIME_DIRECTORY": str(installed / "run"),
        "WATCHDOG_USEC": "2000000",
        "PYTHONPATH": str(ROOT),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(60.0)
        process = subprocess.Popen(in_place(installed, *shlex.split(start)), env=environ)
        try:
            notified: list[str] = []

            def until(word: str) -> None:
                notified.clear()
                while word not in notified:
                    notified.extend(manager.recv(4096).decode().split("\n"))

            until("READY=1")
            until("WATCHDOG=1")
            asked = shlex.split(reload.replace("$MAINPID", str(process.pid)))
            subprocess.run(in_place(installed, *asked), env=environ, check=True)
            for _ in range(3):
                until("WATCHDOG=1")
            assert process.poll() is None
            assert (installed / "state/earwitness/earwitness.sqlite3").exists()
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            until("STOPPING=1")
            assert process.wait(float(unit("TimeoutStopSec")[0].removesuffix("s"))) == 0
            assert time.monotonic() - began_s < 15
        finally:
            process.kill()
            process.wait(10)
    assert "status" in (installed / "events.jsonl").read_text()
