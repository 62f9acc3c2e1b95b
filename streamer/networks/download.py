"""Downloads one file over HTTP: resumes it, checks its SHA-256, and puts it in place only when it is complete."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import httpx
from tqdm import tqdm

from streamer.address import Address
from streamer.errors import WeightsError

_LONGEST_WAIT_S = 30.0
_WORTH_ANOTHER = 2**20
"""An attempt that gets this many bytes further than any before does not count as a failure."""
_LARGEST = 8 * 2**30
"""No checkpoint is larger. A server that never stops sending must not fill the disk."""
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server, and how often to retry."""

    attempts: int = 6  # in a row that bring less than a megabyte
    wait_s: float = 1.0  # before the second attempt; it doubles each time, up to 30 s
    connect_s: float = 10.0
    read_s: float = 30.0  # without a byte


class _AgainError(Exception):
    """This attempt failed, but another may succeed."""


def download(address: Address, target: Path, sha256: str, *, patience: Patience, progress: bool) -> None:
    """Download `address` to `target` and check its `sha256`; `target` is replaced atomically.

    If the download fails or is interrupted, the bytes so far are kept beside it as `.part`, and the next call resumes
    from there (Range, with If-Range if the server gives an ETag or a date).

    Raises:
        WeightsError: it can't be downloaded within `patience` or written, has another SHA-256, or is already being
            downloaded.

    """
    if address.fault:
        raise WeightsError(f"{address}: is not a URL: {address.fault}")
    if address.scheme not in ("http", "https"):
        raise WeightsError(f"{address}: can't be downloaded; only http and https are supported")
    try:
        httpx.URL(address.reveal())
    except httpx.InvalidURL:  # its text may contain a password
        raise WeightsError(f"{address}: is not a URL that can be downloaded; check the address") from None
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("a+b") as file:
            _lock(file, part, target)
            try:
                with _Download(address, part, file, sha256, patience, progress) as running:
                    running.run()
                os.fsync(file.fileno())
                part.replace(target)
            finally:
                if part.exists() and part.stat().st_size == 0:
                    part.unlink()
    except OSError as error:
        raise WeightsError(f"{target}: can't be written: {error.strerror}") from None


def _lock(file: BinaryIO, part: Path, target: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.fstat(file.fileno()).st_ino == part.stat().st_ino  # not renamed while we waited
    except (BlockingIOError, FileNotFoundError):
        mine = False
    if not mine:
        raise WeightsError(f"{target}: is being downloaded by another process; wait for it")


class _Download:
    """One download into an open `.part` file."""

    def __init__(
        self, address: Address, part: Path, file: BinaryIO, sha256: str, patience: Patience, progress: bool
    ) -> None:
        self._address = address
        self._part = part
        self._file = file
        self._validator = part.with_name(part.name + ".etag")  # the version of the file that the part belongs to
        self._sha256 = sha256
        self._patience = patience
        self._client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(patience.read_s, connect=patience.connect_s),
            headers={"Accept-Encoding": "identity"},  # a range of compressed bytes could not be resumed
        )
        self._bar = tqdm(
            desc=part.name.removesuffix(".part"),
            unit="B",
            unit_scale=True,
            unit_divisor=1000,
            disable=None if progress else True,  # None: shown only on a terminal
        )

    def __enter__(self) -> _Download:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._client.close()

    def run(self) -> None:
        """Fill the part until it is what was asked for. Raises `WeightsError`."""
        resumed = self._size() > 0
        if resumed and self._digest() == self._sha256:  # the process ended just before the renaming
            self._forget_validator()
            return
        furthest, failures = self._size(), 0
        while True:
            try:
                resumed &= self._attempt()
                found = self._digest()
                if found == self._sha256:
                    self._forget_validator()
                    return
                size = self._size()
                self._start_over()
                if not resumed:
                    raise WeightsError(
                        f"{self._address}: is the wrong file: {size} bytes with SHA-256 {found}, expected "
                        f"{self._sha256}; check the address and --sha256"
                    )
                raise _AgainError("the rest of an earlier download did not fit")
            except _AgainError as error:
                problem = str(error)
            resumed = self._size() > 0
            failures += 1
            if self._size() >= furthest + _WORTH_ANOTHER:
                furthest, failures = self._size(), 0
            if failures >= self._patience.attempts:
                size = self._size()
                advice = f"the {size} bytes so far are kept; try again later" if size else "check the network"
                raise WeightsError(f"{self._address}: {problem} (tried {failures} times); {advice}")
            time.sleep(min(self._patience.wait_s * 2 ** max(failures - 1, 0), _LONGEST_WAIT_S))

    def _attempt(self) -> bool:
        """Request the missing bytes and append them; returns whether the server resumed at the part's end."""
        offset = self._size()
        headers = {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self._validator.is_file():
                headers["If-Range"] = self._validator.read_text(encoding="ascii")
        try:
            with self._client.stream("GET", self._address.reveal(), headers=headers) as response:
                resumed = self._check(response, offset)
                length = response.headers.get("Content-Length", "")
                self._bar.reset(total=int(length) + self._size() if length.isdigit() else None)
                self._bar.initial = self._bar.n = self._size()
                for block in response.iter_raw():
                    self._file.write(block)
                    self._bar.update(len(block))
                    if self._size() > _LARGEST:
                        raise WeightsError(f"{self._address}: is larger than {_LARGEST} bytes; check the address")
                return resumed
        except httpx.ConnectTimeout:
            raise _AgainError(f"no connection within {self._patience.connect_s:g} s") from None
        except httpx.ReadTimeout:
            raise _AgainError(f"stalled: no data for {self._patience.read_s:g} s") from None
        except httpx.RemoteProtocolError:
            raise _AgainError("the connection broke off") from None
        except httpx.TransportError as error:
            raise _AgainError(f"can't be reached: {self._address.hide(str(error)) or type(error).__name__}") from None
        except httpx.TooManyRedirects:
            raise WeightsError(f"{self._address}: can't be downloaded: the server redirects endlessly") from None
        except (httpx.RequestError, httpx.InvalidURL) as error:
            # Not its text: it may contain the redirect's address, with a token.
            raise WeightsError(f"{self._address}: can't be downloaded ({type(error).__name__})") from None

    def _check(self, response: httpx.Response, offset: int) -> bool:
        """Prepare the part for the response's body; returns whether the body continues the part."""
        status = response.status_code
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._start_over()
            raise _AgainError("the file on the server is shorter than the rest of an earlier download")
        if status in _TRY_AGAIN:
            raise _AgainError(f"the server answers {status} {response.reason_phrase}")
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise WeightsError(
                f"{self._address}: the server answers {status} {response.reason_phrase}; check the address"
            )
        if status == HTTPStatus.PARTIAL_CONTENT:
            if not offset or not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                self._start_over()
                raise _AgainError("the server sent a different range than requested")
            return True
        self._start_over()
        etag = response.headers.get("ETag", "")
        validator = response.headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
        if validator.isascii() and validator:
            self._validator.write_text(validator, encoding="ascii")
        return False

    def _size(self) -> int:
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def _digest(self) -> str:
        self._file.flush()
        with self._part.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _start_over(self) -> None:
        self._file.truncate(0)
        self._forget_validator()

    def _forget_validator(self) -> None:
        self._validator.unlink(missing_ok=True)
