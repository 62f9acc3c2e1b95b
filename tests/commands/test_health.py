"""`earwitness health` with real servers, a real daemon, and none."""

from __future__ import annotations

import http.server
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from streamer import cli
from streamer.runtime.health import Answer, HealthServer
from tests.e2e.daemon import Daemon
from tests.make_media import make_clip
from tests.models import bursts
from tests.rtsp import free_port
from tests.test_cli import earwitness


@pytest.fixture
def answers() -> dict[str, Answer]:
    return {"healthz": Answer(True, {"ok": True}), "readyz": Answer(True, {"ok": True})}


@pytest.fixture
def server(answers: dict[str, Answer]) -> Iterator[HealthServer]:
    made = HealthServer("127.0.0.1:0", CollectorRegistry(), lambda: answers["healthz"], lambda: answers["readyz"])
    yield made
    made.close()


def health(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Runs `earwitness health`; returns its exit code and the one line that it prints."""
    code = cli.main(["health", *arguments])
    out, err = capsys.readouterr()
    assert bool(out) == (code == 0)
    assert (out + err).count("\n") == 1
    return code, (out + err).strip()


def test_it_reports_the_daemons_health(
    server: HealthServer, answers: dict[str, Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{server.port}"
    assert health(capsys, "--url", url) == (0, f"healthy: {url}")
    assert health(capsys, "--url", f"{url}/healthz") == (0, f"healthy: {url}")
    assert health(capsys, "--url", url, "--ready") == (0, f"ready: {url}")
    answers["readyz"] = Answer(False, {"ok": False, "waiting_for": {"door": "connecting"}, "streams": {"door": {}}})
    assert health(capsys, "--url", url)[0] == 0
    assert health(capsys, "--url", url, "--ready") == (1, 'not ready: {"waiting_for": {"door": "connecting"}}')
    answers["healthz"] = Answer(False, {"ok": False, "threads": {"worker": False}})
    assert health(capsys, "--url", url) == (1, 'unhealthy: {"threads": {"worker": false}}')


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_the_address_comes_from_the_config(
    host: str, server: HealthServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"metrics: {host}:{server.port}\n")
    assert health(capsys, "--config", str(config))[0] == 0
    monkeypatch.setenv("EARWITNESS_CONFIG", str(config))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert health(capsys)[0] == 0
    config.write_text("metrics: off\n")
    assert health(capsys) == (
        2,
        "earwitness: error: `metrics` is off in the config, so there is nothing to check: set it to an address",
    )


def test_no_daemon(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = health(capsys, "--url", f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "can't be reached: " in line
    assert "is the daemon running" in line


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_another_program_at_the_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "healthz").write_text("fine")
    other = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0),
        lambda *parts: Quiet(*parts, directory=str(tmp_path)),
    )
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        for path in ("healthz", "readyz"):
            code, line = health(
                capsys, "--url", f"http://127.0.0.1:{other.server_port}", *(["--ready"] if path == "readyz" else [])
            )
            assert code == 1
            assert "not like Earwitness" in line
    finally:
        other.shutdown()
        other.server_close()


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:9464", "ftp://h", "http://", "http://h:99999999", "http://user:secret@h:x/y"]
)
def test_an_invalid_url(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = health(capsys, "--url", url)
    assert code in (1, 2)
    assert "--url" in line or "can't be reached" in line
    assert "secret" not in line


def test_a_real_daemon_that_hangs_and_ends(bundle: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.wav", samples=bursts(3.0, 1))
    with Daemon(tmp_path, f"cam={clip}", "--model", str(bundle), "--stay") as daemon:
        assert daemon.process is not None
        daemon.until(lambda: earwitness("health", "--url", f"http://{daemon.metrics}").returncode == 0)
        os.kill(daemon.process.pid, signal.SIGSTOP)
        hangs = earwitness("health", "--url", f"http://{daemon.metrics}")
        assert (hangs.returncode, "does not answer within 5 s" in hangs.stderr) == (1, True)
        os.kill(daemon.process.pid, signal.SIGCONT)
        assert earwitness("health", "--url", f"http://{daemon.metrics}").returncode == 0
        assert daemon.terminate()[0] == 0
        assert earwitness("health", "--url", f"http://{daemon.metrics}").returncode == 1
