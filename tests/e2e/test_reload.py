"""A daemon's config changes while it runs: the command, the signal, what systemd hears, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.daemon import COMMAND, ROOT, Daemon
from tests.make_media import make_clip
from tests.models import bursts
from tests.rtsp import RtspServer, make_certificate, needs_rtsp

CELL_S = 1464 / 22_100


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    return make_clip(path, audio="pcm", rate_hz=22_100, samples=bursts(600.0))


def config_of(sources: dict[str, str], bundle: Path, **more: Any) -> dict[str, Any]:
    streams = {
        name: {"source": one, "realtime": "://" not in one, "loop": True, "queue_s": 20.0}
        for name, one in sources.items()
    }
    # A hop at which two cores, shared with other tests, keep up with ten streams.
    windows = {"hop_cells": 32}
    publish = {"scores": True, "tags": False}
    return {"model": str(bundle), "publish": publish, "streams": streams, "windows": windows, **more}


class Reloads:
    """A daemon's config file, and `earwitness reload`."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self._daemon = daemon
        self._path = folder / "daemon.yaml"
        self._environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}

    def write(self, config: dict[str, Any] | str) -> None:
        self._path.write_text(config if isinstance(config, str) else json.dumps(config))

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert self._daemon.process is not None
        pid = str(self._daemon.process.pid)
        return subprocess.run(
            [*COMMAND, "reload", "--pid", pid, *arguments],
            env=self._environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )


def scored(daemon: Daemon, stream: str) -> int:
    """Cells so far, of which none is lost, none came twice and all were heard, in one epoch."""
    following = 0
    for one in daemon.of("scores", stream):
        assert one["epoch"] == 0
        assert round(one["start_s"] / CELL_S) == following
        assert all(one["covered"])
        following += len(one["scores"])
    return following


def ids(daemon: Daemon, kind: str) -> list[str]:
    return sorted(one["event_id"] for one in daemon.of(kind))


def stay_while_others_change(tmp_path: Path, clip: Path, bundle: Path, stay: dict[str, str], rounds: int) -> None:
    """Reload again and again with something new; those in `stay` must not notice."""
    first = config_of({**stay, "other": str(clip)}, bundle)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with Daemon(tmp_path, config=first, environ=environ) as daemon:
        reloads = Reloads(daemon, tmp_path)
        daemon.until(lambda: all(scored(daemon, name) > 30 for name in [*stay, "other"]), 90.0)
        for number in range(rounds):
            config = config_of({**stay, f"new{number}": str(clip)}, bundle)
            config["windows"] = {"hop_cells": 32 + number, "max_event_s": 60.0 + number}
            for name in stay:
                config["streams"][name]["queue_s"] = 21.0 + number
            reloads.write(config)
            done = reloads.ask()
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"reloaded: added: new{number}; removed: ")
            daemon.until(lambda number=number: scored(daemon, f"new{number}") > 10)  # type: ignore[misc]
        before = {name: scored(daemon, name) for name in stay}
        daemon.until(lambda: all(scored(daemon, name) > before[name] + 30 for name in stay))
        for name in stay:
            status = daemon.of("status", name)[-1]
            assert (status["coverage"], status["reconnects"]) == (1.0, 0)
        assert daemon.terminate()[0] == 0
        daemon.until(lambda: ids(daemon, "onset") == ids(daemon, "offset"))


@needs_rtsp
@pytest.mark.slow
def test_streams_that_stay_lose_no_cell(tmp_path: Path, clip: Path, bundle: Path) -> None:
    film = make_clip(tmp_path / "film.mp4", audio="aac", rate_hz=44_100, video="h264", seconds=300.0)
    with RtspServer(film) as server:
        stay_while_others_change(tmp_path, clip, bundle, {"camera": server.url(), "file": str(clip)}, rounds=2)


@pytest.mark.slow
def test_eight_streams_that_stay_lose_no_cell(tmp_path: Path, clip: Path, bundle: Path) -> None:
    stay_while_others_change(tmp_path, clip, bundle, {f"s{number}": str(clip) for number in range(8)}, rounds=5)


def test_a_refusal_is_one_line_and_systemd_is_notified(tmp_path: Path, clip: Path, bundle: Path) -> None:
    good = config_of({"cam": str(clip)}, bundle)
    secret = "rtsp://user:hunter2hunter@cam.invalid/x"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20.0)
        environ = {"XDG_RUNTIME_DIR": str(tmp_path), "NOTIFY_SOCKET": systemd.getsockname()}
        with Daemon(tmp_path, config=good, environ=environ) as daemon:
            reloads = Reloads(daemon, tmp_path)
            daemon.until(lambda: scored(daemon, "cam") > 0)
            assert systemd.recv(1000).startswith(b"READY=1\n")
            bad: dict[str, tuple[dict[str, Any] | str, str]] = {
                "not YAML": ("streams: [", "daemon.yaml:1: not valid YAML"),
                "a typo": ({**good, "windos": {}}, "unknown field 'windos'; did you mean 'windows'?"),
                "no source": ({**good, "streams": {}}, "no source is left"),
                "a name": ({**good, "publisher": "b"}, "publisher can't change while the daemon runs: restart it"),
                "a socket": ({**good, "metrics": "127.0.0.1:1", "publish": {"jsonl": "x"}}, "publish.jsonl"),
                "a window": (
                    {**good, "windows": {"hop_cells": 100, "lookahead_cells": 75}},
                    "reduce one of them",
                ),
                "no model": ({**good, "model": str(tmp_path / "gone")}, "there is no such folder"),
                "a secret": ({**good, "streams": {"cam": {"source": secret, "x": secret}}}, "unknown field"),
            }
            for what, (config, why) in bad.items():
                reloads.write(config)
                done = reloads.ask()
                assert done.returncode == 2, what
                assert why in done.stderr, what
                assert done.stderr.startswith(
                    "earwitness: error: the new config is refused, the old one stays in effect: "
                ), what
                assert done.stderr.count("\n") == 1, what
                assert "hunter2" not in done.stderr + daemon.log
                began, ended = systemd.recv(1000), systemd.recv(1000)
                assert began.startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert 0 <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e3 - int(began.rpartition(b"=")[2]) < 60e6
                assert ended.startswith(b"READY=1\n")
            assert daemon.log.count("the new config is refused, the old one stays in effect: ") == len(bad)
            before = scored(daemon, "cam")
            daemon.until(lambda: scored(daemon, "cam") > before)

            # SIGHUP reloads too, and opens outputs anew; a log level holds at once.
            reloads.write({**good, "log": {"level": "debug", "format": "json"}})
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            daemon.until(lambda: "reloaded: changed: log" in daemon.log)
            assert "reopened outputs" in daemon.log
            assert json.loads(daemon.log.splitlines()[-1])["level"] == "info"
            assert daemon.terminate()[0] == 0
    assert not list((tmp_path / "earwitness").iterdir()), "its socket is gone"
    done = reloads.ask()
    assert done.returncode == 2
    assert "daemon" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_new_token_and_certificate_of_the_http_port_replace_the_old_ones(
    tmp_path: Path, clip: Path, bundle: Path
) -> None:
    token, certificate, key = (tmp_path / name for name in ("metrics.token", "cert.pem", "cert.key"))

    def renew(secret: str) -> ssl.SSLContext:
        token.write_text(secret)
        made = make_certificate(tmp_path)
        certificate.write_bytes(made.read_bytes())
        key.write_bytes((tmp_path / "key.pem").read_bytes())
        for path in (token, key):
            path.chmod(0o600)
        return ssl.create_default_context(cafile=made)

    old, new = "0123456789abcdef-old", "0123456789abcdef-new"
    old_trust = renew(old)
    files = {"token": str(token), "cert": str(certificate), "key": str(key)}
    config = config_of({"cam": str(clip)}, bundle, http=files)
    with Daemon(tmp_path, config=config, environ={"XDG_RUNTIME_DIR": str(tmp_path)}) as daemon:
        daemon.until(lambda: scored(daemon, "cam") > 0)
        url = f"https://{daemon.metrics}/metrics"
        bearer = {name: {"Authorization": f"Bearer {name}"} for name in (old, new)}
        with httpx.Client(verify=old_trust) as connected:
            assert connected.get(url, headers=bearer[old]).status_code == 200
            trust = renew(new)
            reloads = Reloads(daemon, tmp_path)
            assert reloads.ask().stdout == "reloaded: changed: the files of http\n"
            assert connected.get(url, headers=bearer[old]).status_code == 401, "on a connection from before"
            assert connected.get(url, headers=bearer[new]).status_code == 200
        assert httpx.get(url, verify=trust, headers=bearer[new]).status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(url, verify=old_trust, headers=bearer[new])
        token.write_text("short")
        done = reloads.ask()
        assert done.returncode == 2
        assert "a token must be one line of at least 16 ASCII characters" in done.stderr
        assert httpx.get(url, verify=trust, headers=bearer[new]).status_code == 200
        assert daemon.terminate()[0] == 0
