"""RTSPS, HTTPS, RTMPS: only servers with a valid certificate are accepted; otherwise a one-line error says why."""

from __future__ import annotations

import http.server
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.interrupt import Interrupt
from streamer.media.opening import MediaOptions, open_container
from streamer.media.trust import system_ca_file, tls_options
from tests.make_media import make_clip
from tests.rtsp import RtspServer, make_certificate, needs_rtsp
from tests.send import needs_ffmpeg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("trust")
    make_clip(made / "clip.mkv", audio="aac")
    make_certificate(made)
    return made


def opens(url: str, **options: object) -> str:
    """The error with which the source fails to open; "" if it opens."""
    failure = None
    try:
        open_container(Address.parse(url), MediaOptions(**options), Interrupt()).close()  # type: ignore[arg-type]
    except SourceError as error:
        failure = error
    assert failure is None or (failure.reason == "tls" and "\n" not in str(failure)), failure
    return str(failure or "")


@pytest.fixture(scope="module")
def https(folder: Path) -> Iterator[str]:
    with serving_https(folder, folder / "server.pem") as url:
        yield url


@contextmanager
def serving_https(folder: Path, pem: Path) -> Iterator[str]:
    """A web server for the files in `folder`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients that do not trust our certificate

    server = Server(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@needs_rtsp
def test_rtsps_is_verified(folder: Path) -> None:
    pem = folder / "server.pem"
    with RtspServer(folder / "clip.mkv", tls=pem) as server:
        line = opens(server.url("user", "secret"))
        assert "self-signed" in line
        assert f"openssl s_client -connect 127.0.0.1:{server.port}" in line
        assert "secret" not in line
        assert opens(server.url(), ca_file=pem) == ""
        assert opens(server.url(), verify=False) == ""
        assert opens(server.url(), ffmpeg={"tls_verify": "0"}) == ""  # as configured before there was `verify`
        elsewhere = server.url().replace("127.0.0.1", "localhost")
        assert "is not valid for localhost" in opens(elsewhere, ca_file=pem)
        assert opens(elsewhere, ca_file=pem, ffmpeg={"verifyhost": "127.0.0.1"}) == ""


@needs_rtsp
def test_a_port_without_tls(folder: Path) -> None:
    with RtspServer(folder / "clip.mkv") as server:
        assert "check that this port uses TLS" in opens(server.url().replace("rtsp:", "rtsps:"))


def test_https_is_verified(https: str, folder: Path) -> None:
    url = f"{https}/clip.mkv"
    assert "self-signed" in opens(url)
    assert opens(url, ca_file=folder / "server.pem") == ""
    assert opens(url, verify=False) == ""
    assert "is not valid for localhost" in opens(url.replace("127.0.0.1", "localhost"), ca_file=folder / "server.pem")


def test_rtmps_is_verified(https: str, folder: Path) -> None:
    """With an HTTPS server: the certificate is verified before RTMP begins, which then fails."""
    url = https.replace("https", "rtmps") + "/live/x"
    assert "self-signed" in opens(url)
    assert "certificate is" not in opens(url, ca_file=folder / "server.pem")


def test_a_private_ca(tmp_path: Path, folder: Path) -> None:
    """A certificate signed by the trusted CA, one signed by another CA, and an expired one."""
    for name in ("ours", "theirs"):
        _openssl(
            tmp_path, f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        )
    (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl(tmp_path, "req -newkey rsa:2048 -nodes -subj /CN=camera -keyout camera.key -out camera.csr")
    sign = "x509 -req -in camera.csr -CA ours.pem -CAkey ours.key -CAcreateserial -extfile ext"
    for name, days in (("camera", "-days 2"), ("old", "-not_before 20200101000000Z -not_after 20200102000000Z")):
        try:
            _openssl(tmp_path, f"{sign} {days} -out {name}.pem")
        except subprocess.CalledProcessError:
            continue  # OpenSSL before 3.4 can't sign for the past
        (tmp_path / f"{name}.pem").write_text(
            (tmp_path / f"{name}.pem").read_text() + (tmp_path / "camera.key").read_text()
        )
    with serving_https(folder, tmp_path / "camera.pem") as url:
        assert opens(f"{url}/clip.mkv", ca_file=tmp_path / "ours.pem") == ""
        for other in (None, tmp_path / "theirs.pem"):
            assert "issuer is not trusted" in opens(f"{url}/clip.mkv", ca_file=other)
    if (tmp_path / "old.pem").exists():
        with serving_https(folder, tmp_path / "old.pem") as url:
            assert "has expired" in opens(f"{url}/clip.mkv", ca_file=tmp_path / "ours.pem")


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True, cwd=folder, timeout=60)


def test_invalid_ca_files(https: str, folder: Path) -> None:
    for wrong in (folder / "none.pem", folder, folder / "clip.mkv"):
        assert f"its ca_file {wrong} can't be read, or holds no PEM certificates" in opens(
            f"{https}/clip.mkv", ca_file=wrong
        )


@needs_ffmpeg
def test_of_hls_only_the_playlist_is_verified_and_this_is_logged(
    https: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(folder / "clip.mkv"),
        "-c",
        "copy",
        "-f",
        "hls",
        str(folder / "a.m3u8"),
    ]
    subprocess.run(command, check=True, timeout=60)
    assert "self-signed" in opens(f"{https}/a.m3u8")
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        assert opens(f"{https}/a.m3u8", ca_file=folder / "server.pem") == ""
    assert "not of its segments' servers" in caplog.text


def test_this_machines_ca_certificates() -> None:
    options = tls_options(Address.parse("https://example.org/a.mkv"), verify=True, ca_file=None)
    assert options["tls_verify"] == "1"
    assert options.get("ca_file") == (str(system_ca_file()) if system_ca_file() else None)
    assert tls_options(Address.parse("rtsp://camera/x"), verify=True, ca_file=None) == {}
    assert tls_options(Address.parse("clip.mkv"), verify=True, ca_file=None) == {}
    assert tls_options(Address.parse("http://a/x"), verify=True, ca_file=None)["tls_verify"] == "1"  # it may redirect


def test_finding_the_tls_error_does_not_hang() -> None:
    """With a port that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        with pytest.raises(SourceError):
            open_container(
                Address.parse(f"rtsps://127.0.0.1:{silent.getsockname()[1]}/x"),
                MediaOptions(open_timeout_s=1.0),
                Interrupt(),
            )
        assert time.monotonic() - began_s < 8.0
