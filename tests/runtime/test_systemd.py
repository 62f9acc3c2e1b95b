from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.runtime.systemd import Notifier


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(2)
        yield server


def test_lines_arrive_in_one_datagram(listener: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": listener.getsockname()}, os.getpid())
    assert notifier.send("READY=1", "STATUS=well")
    assert listener.recv(100) == b"READY=1\nSTATUS=well"
    assert notifier.watchdog_s is None


def test_abstract_names() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"\0earwitness-test-{os.getpid()}")
        server.settimeout(2)
        assert Notifier({"NOTIFY_SOCKET": f"@earwitness-test-{os.getpid()}"}, 1).send("STOPPING=1")
        assert server.recv(100) == b"STOPPING=1"


def test_nothing_without_a_socket_or_a_reader(tmp_path: Path) -> None:
    assert not Notifier({}, 1).send("READY=1")
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, 1).send("READY=1")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_watchdog_is_due_twice_in_its_time(extra: dict[str, str], expected: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/x", **extra}, 7).watchdog_s == expected
