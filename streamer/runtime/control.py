"""A Unix socket through which other programs of the same user control a running daemon, and the client side of it.

A client sends one word and receives one line of JSON. Access control is the folder's mode: only the user can enter it,
so that, unlike a port, the socket is out of reach of the machine's other users and of pages in a browser.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from streamer.errors import UsageError

_ASK_S = 5.0
"""How long a client may take to send its request, and a daemon to identify itself."""
_RELOAD_S = 120.0
"""How long a reload may take: large weights are hashed, and the worker may be in the middle of a batch."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a reload."""

    applied: bool
    text: str  # one line: what changed, or why it was refused


Answer: TypeAlias = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that answered on its socket."""

    path: Path
    pid: int
    publisher: str


def folders(environ: Mapping[str, str], user_id: int) -> list[Path]:
    """Where a daemon's socket may be, best first: the unit's folder (systemd), the user's, a temporary one."""
    found = [Path(one) for one in environ.get("RUNTIME_DIRECTORY", "").split(":") if one]
    for runtime in (environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user_id}"):
        if runtime and os.path.isdir(runtime):  # not Path.is_dir, which raises where the service has no access
            found.append(Path(runtime) / "earwitness")
    found.append(Path("/run/earwitness"))  # the unit's, for clients outside it, and root's where no other exists
    return list(dict.fromkeys([*found, Path(tempfile.gettempdir()) / f"earwitness-{user_id}"]))


class Control:
    """The daemon's socket, which listens from its construction until `close`."""

    def __init__(self, places: Sequence[Path], publisher: str, pid: int, ask: Callable[[Answer], None]) -> None:
        """Listen in the first usable folder of `places`; `ask` requests a reload.

        Raises:
            UsageError: none of them can be used.

        """
        self._who = {"publisher": publisher, "pid": pid}
        self._ask = ask
        faults = []
        for folder in places:
            try:
                self._listen(folder, pid)
            except OSError as error:
                faults.append(f"{folder}: {error.strerror or error}")
            else:
                break
        else:
            raise UsageError("; ".join(faults))
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def _listen(self, folder: Path, pid: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.lstat()
        if not stat.S_ISDIR(mode.st_mode) or mode.st_uid != os.geteuid():
            raise PermissionError(1, "the folder belongs to another user")
        _remove_stale(folder)
        self.path = folder / f"{pid}.sock"
        self.path.unlink(missing_ok=True)  # left by an earlier process with this id
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(self.path))
            self.path.chmod(0o600)
            self._socket.listen()
        except OSError:
            self._socket.close()
            raise

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            # A silent client must not delay the others.
            threading.Thread(target=self._answer, args=(connection,), name="control", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_ASK_S)
            word = connection.recv(64).strip()
            body: dict[str, Any] = {"error": "unknown request: send `who` or `reload`"}
            if word == b"who":
                body = self._who
            elif word == b"reload":
                outcomes: list[Outcome] = []
                over = threading.Event()

                def answer(outcome: Outcome) -> None:
                    outcomes.append(outcome)
                    over.set()

                self._ask(answer)
                if over.wait(_RELOAD_S):
                    body = {"applied": outcomes[0].applied, "text": outcomes[0].text}
                else:
                    body = {"error": f"the reload did not finish within {_RELOAD_S:.0f} s"}
            connection.sendall(json.dumps(body).encode() + b"\n")


def running(places: Sequence[Path]) -> Iterator[Running]:
    """The daemons that answer on a socket in one of `places`."""
    for folder in places:
        for path in sorted(folder.glob("*.sock")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                who = _request(path, "who", _ASK_S)
                yield Running(path, int(who["pid"]), str(who["publisher"]))


def reload(daemon: Running) -> Outcome:
    """Have `daemon` reload its config, and wait for the outcome.

    Raises:
        UsageError: it did not answer.

    """
    try:
        reply = _request(daemon.path, "reload", _RELOAD_S + _ASK_S)
        if "error" in reply:
            raise UsageError(f"pid {daemon.pid}: {reply['error']}")
        return Outcome(bool(reply["applied"]), str(reply["text"]))
    except (OSError, ValueError, KeyError):
        raise UsageError(f"pid {daemon.pid} ended before it answered; see its log") from None


def _request(path: Path, word: str, timeout_s: float) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(word.encode() + b"\n")
        with connection.makefile("rb") as answer:
            reply: dict[str, Any] = json.loads(answer.readline())
            return reply


def _remove_stale(folder: Path) -> None:
    """Remove sockets left behind by daemons that were killed."""
    for path in folder.glob("*.sock"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
