from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from streamer.errors import UsageError
from streamer.runtime.control import Answer, Control, Outcome, Running, folders, reload, running


class Asked:
    """Answers each requested reload with `outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.count = 0

    def __call__(self, answer: Answer) -> None:
        self.count += 1
        threading.Timer(0.05, answer, [self.outcome]).start()


@pytest.fixture
def asked() -> Asked:
    return Asked(Outcome(False, "config x.yaml:3: is wrong"))


@pytest.fixture
def control(tmp_path: Path, asked: Asked) -> Iterator[Control]:
    made = Control([tmp_path / "run"], "garage", os.getpid(), asked)
    yield made
    made.close()


def test_a_daemon_is_found_and_answers(tmp_path: Path, control: Control, asked: Asked) -> None:
    (found,) = running([tmp_path / "nowhere", tmp_path / "run"])
    assert found == Running(control.path, os.getpid(), "garage")
    assert reload(found) == asked.outcome
    assert asked.count == 1


def test_only_the_user_can_reach_the_socket(control: Control) -> None:
    assert control.path.stat().st_mode & 0o777 == 0o600
    assert control.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_silent_or_garbling_client_delays_no_other(tmp_path: Path, control: Control) -> None:
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as loud:
        silent.connect(str(control.path))
        loud.connect(str(control.path))
        with suppress(ConnectionError):  # the daemon reads one word, then closes
            loud.sendall(b"x" * 1_000_000)
        assert len(list(running([tmp_path / "run"]))) == 1


def test_sockets_of_killed_daemons_are_removed(tmp_path: Path, asked: Asked) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "1.sock"))
    assert list(running([folder])) == []
    control = Control([folder], "garage", 7, asked)
    assert [path.name for path in folder.iterdir()] == ["7.sock"]
    control.close()
    assert list(folder.iterdir()) == []


def test_an_unusable_folder_is_skipped(tmp_path: Path, asked: Asked) -> None:
    (tmp_path / "file").write_text("")
    long = tmp_path / ("x" * 120)
    control = Control([tmp_path / "file", long, tmp_path / "run"], "garage", 7, asked)
    assert control.path.parent == tmp_path / "run"
    control.close()
    with pytest.raises(UsageError, match="file: ") as caught:
        Control([tmp_path / "file"], "garage", 7, asked)
    assert "\n" not in str(caught.value)


def test_folders_in_which_sockets_are_looked_for(tmp_path: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": str(tmp_path)}
    found = folders(environ, 12_345)
    assert found[:3] == [Path("/run/a"), Path("/run/b"), tmp_path / "earwitness"]
    assert found[-1].name == "earwitness-12345"


def test_a_runtime_folder_without_access_is_skipped(tmp_path: Path) -> None:
    """As in the systemd unit, where ProtectHome= makes /run/user inaccessible."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)  # root has access everywhere
    try:
        found = folders({"XDG_RUNTIME_DIR": str(closed / "999")}, 12_345)
    finally:
        if root:
            os.seteuid(0)
    assert found[-1] == Path(tempfile.gettempdir()) / "earwitness-12345"
    assert not any(str(one).startswith(str(closed)) for one in found)
