"""The token of /metrics, and malicious clients: garbage, many connections, and slow requests."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from streamer.cli import main
from streamer.errors import KeysError, UsageError
from streamer.runtime.crowd import HttpGuard
from streamer.runtime.health import Answer, HealthServer
from streamer.runtime.metrics import Metrics
from tests.rtsp import free_port, make_certificate

TOKEN = "0123456789abcdef0123456789abcdef"


@contextmanager
def serving(guard: HttpGuard | None = None, address: str = "127.0.0.1:0") -> Iterator[tuple[int, Counter[str]]]:
    """The port, and the refused requests by reason."""
    refused: Counter[str] = Counter()
    well = Answer(True, {"ok": True})
    registry = Metrics("0", "m", [], []).registry

    def refuse(reason: str) -> None:
        refused[reason] += 1

    server = HealthServer(address, registry, lambda: well, lambda: well, guard, refuse)
    try:
        yield server.port, refused
    finally:
        server.close()


def token_file(folder: Path, text: str = TOKEN + "\n") -> Path:
    path = folder / "metrics.token"
    path.write_text(text)
    path.chmod(0o600)
    return path


def until(done: object, seconds: float = 20.0) -> None:
    assert callable(done)
    end_s = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
def test_every_request_must_contain_the_token(tmp_path: Path, path: str) -> None:
    with serving(HttpGuard.load(token_file(tmp_path), None, None)) as (port, refused):
        url = f"http://127.0.0.1:{port}{path}"
        right = httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
        assert right.status_code == (404 if path == "/nothing" else 200)
        for header in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer", "Bearer \u00e9"):
            wrong = httpx.get(url, headers=httpx.Headers([(b"Authorization", header.encode())]))
            assert wrong.status_code == 401
            assert b"earwitness_" not in wrong.content
        assert httpx.get(url).headers["WWW-Authenticate"] == "Bearer"
        assert refused == {"wrong_token": 5, "no_token": 1}


def test_beyond_this_machine_a_token_is_required(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"openssl rand -hex 32 > metrics.token.*http.token.*127.0.0.1:9999"),
        serving(address="0.0.0.0:9999"),
    ):
        pass
    with serving(HttpGuard.load(token_file(tmp_path), None, None), f"0.0.0.0:{free_port()}") as (port, _):
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 401


def test_invalid_files(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    path.chmod(0o644)
    with pytest.raises(KeysError, match="chmod 600"):
        HttpGuard.load(path, None, None)
    for text in ("", "short\n", TOKEN + "\n" + TOKEN, "ä" * 20):
        with pytest.raises(KeysError, match="at least 16 ASCII characters"):
            HttpGuard.load(token_file(tmp_path, text), None, None)
    with pytest.raises(KeysError, match="No such file"):
        HttpGuard.load(tmp_path / "none", None, None)
    pem = make_certificate(tmp_path)
    with pytest.raises(KeysError, match="belong together"):
        HttpGuard.load(None, pem, None)
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(KeysError, match="chmod 600"):
        HttpGuard.load(None, pem, tmp_path / "key.pem")
    (tmp_path / "bad.pem").write_text("nothing")
    (tmp_path / "bad.pem").chmod(0o600)
    with pytest.raises(KeysError, match="are not a certificate and its private key"):
        HttpGuard.load(None, pem, tmp_path / "bad.pem")
    assert TOKEN not in repr(HttpGuard.load(token_file(tmp_path), None, None))


def test_tls(tmp_path: Path) -> None:
    pem = make_certificate(tmp_path)
    (tmp_path / "key.pem").chmod(0o600)
    with serving(HttpGuard.load(token_file(tmp_path), pem, tmp_path / "key.pem")) as (port, refused):
        trust = ssl.create_default_context(cafile=pem)
        head = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(f"https://127.0.0.1:{port}/metrics", verify=trust, headers=head).status_code == 200
        assert httpx.get(f"https://127.0.0.1:{port}/metrics", verify=trust).status_code == 401
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"https://127.0.0.1:{port}/metrics")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/metrics")
        until(lambda: refused == {"no_token": 1, "no_tls": 2})
        with socket.create_connection(("127.0.0.1", port)):  # silent during its handshake
            assert httpx.get(f"https://127.0.0.1:{port}/healthz", verify=trust, headers=head).status_code == 200


@pytest.mark.parametrize("tls", [False, True])
def test_earwitness_health_takes_token_and_certificate_from_the_config(
    tmp_path: Path, tls: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    pem = make_certificate(tmp_path)
    (tmp_path / "key.pem").chmod(0o600)
    files = {"cert": pem, "key": tmp_path / "key.pem"} if tls else {"cert": None, "key": None}
    port = free_port()
    lines = [f"metrics: 0.0.0.0:{port}", "http:", f"  token: {token_file(tmp_path)}"]
    lines += [f"  {name}: {path}" for name, path in files.items() if path]
    (tmp_path / "daemon.yaml").write_text("\n".join(lines))
    with serving(HttpGuard.load(tmp_path / "metrics.token", **files), f"0.0.0.0:{port}"):
        assert main(["health", "--config", str(tmp_path / "daemon.yaml")]) == 0
        assert main(["health", "--url", f"http{'s' if tls else ''}://127.0.0.1:{port}"]) == 1
    assert TOKEN not in "".join(capsys.readouterr())


def test_a_port_scan_and_garbage_change_nothing_but_a_counter() -> None:
    process = psutil.Process()
    with serving() as (port, refused):

        def attack() -> None:
            for _ in range(50):
                socket.create_connection(("127.0.0.1", port)).close()
            for data in (os.urandom(1_000_000), b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 170_000, b"A" * 1_000_000):
                with socket.create_connection(("127.0.0.1", port)) as one, suppress(OSError):
                    one.settimeout(5)
                    one.sendall(data)
                    one.shutdown(socket.SHUT_WR)
                    while one.recv(65_536):
                        pass
            assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200

        attack()
        files, memory = process.num_fds(), process.memory_info().rss
        for _ in range(3):
            attack()
        until(lambda: sum(refused.values()) == 4 * 53)
        assert refused["malformed"] >= 4
        assert refused["closed"] + refused["crowded"] >= 4 * 50
        until(lambda: process.num_fds() <= files)
        assert process.memory_info().rss - memory < 50_000_000


def test_many_slow_clients_block_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow loris: many connections that send a byte now and then never occupy all threads, nor any for long."""
    monkeypatch.setattr("streamer.runtime.crowd._REQUEST_S", 2.0)
    threads = threading.active_count()
    with serving() as (port, refused):
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        for _ in range(5):
            for one in crowd:
                with suppress(OSError):
                    one.send(b"G")
            began_s = time.monotonic()
            assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
            assert time.monotonic() - began_s < 2.0
            time.sleep(0.5)
        until(lambda: refused["timeout"] + refused["crowded"] + refused["malformed"] + refused["closed"] == 200)
        assert refused["crowded"] >= 150
        assert refused["timeout"] >= 10
        until(lambda: threading.active_count() <= threads + 2)
        for one in crowd:
            one.close()
