"""A name server that says nothing until it is told to, and a way to have a program ask it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from functools import cache
from pathlib import Path
from typing import Self

import pytest

ADDRESS = "127.9.9.9"


@cache
def _can() -> bool:
    """Port 53 and a mount namespace are root's."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


needs_own_dns = pytest.mark.skipif("not __import__('tests.dns').dns._can()", reason="needs root and unshare")


def asking_it(folder: Path, command: list[str]) -> list[str]:
    """`command` with this server alone to resolve names, for which the system's resolver waits for minutes."""
    (folder / "resolv.conf").write_text(f"nameserver {ADDRESS}\noptions timeout:30 attempts:5\n")
    script = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", str(folder / "resolv.conf"), *command]


class NameServer:
    """Every name is 127.0.0.1, once `answers` is set; until then queries are taken and not answered."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.queries = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                query, client = self._socket.recvfrom(512)
            except OSError:
                return
            if not query:
                return
            self.queries += 1
            if self.answers.is_set():
                self._socket.sendto(_answer(query), client)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (ADDRESS, 53))
        self._thread.join(5)
        self._socket.close()


def _answer(query: bytes) -> bytes:
    """RFC 1035: the question again, and for type A one address."""
    end = query.index(b"\0", 12) + 5  # behind the name, its type and class
    wants_a = query[end - 4 : end - 2] == b"\0\1"
    header = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if wants_a else b"\0\0") + b"\0\0\0\0"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton("127.0.0.1") if wants_a else b""
    return header + query[12:end] + record
