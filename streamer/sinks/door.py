"""A listening socket: bound to all addresses of its endpoint, and open to allowed subscribers only."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import zmq

from streamer.errors import SinkError
from streamer.sinks.access import Access
from streamer.sinks.loopback import loopback_addresses

log = logging.getLogger(__name__)

_TRIES = 5
"""Attempts to find a port that is free on all addresses of a name."""
_FREED_S = 1.0
"""How long it may take until a port that was closed is free again."""
_TCP = re.compile(r"tcp://(?P<host>[^/\s]+):(?P<port>\d+|\*)")


class Door:
    """Owns the socket. Its thread calls `keep` often, which closes the connections of revoked subscribers."""

    def __init__(self, endpoint: str, kind: int, access: Access, options: Sequence[tuple[int, int]] = ()) -> None:
        """Listen at `endpoint`, `tcp://HOST:PORT` or `ipc://PATH`; with port 0 the system chooses one.

        `options` are set before the socket is bound.

        Raises:
            SinkError: the endpoint is malformed, in use or can't be bound, or reaches beyond this machine without
                keys.

        """
        addresses = _addresses(endpoint, access)
        self.access = access
        self.socket = access.open(kind, endpoint)
        for option, value in options:
            self.socket.set(option, value)
        self._bound: list[str] = []
        try:
            self._bind(addresses)
        except zmq.ZMQError as error:
            self.socket.set(zmq.LINGER, 0)
            access.close(self.socket)
            raise SinkError(_why_not(endpoint, error)) from None
        self.endpoint: str = self._bound[0]
        """Where peers connect, with the port that the system chose."""
        path = self.endpoint.removeprefix("ipc://") if self.endpoint.startswith("ipc://") else "@"
        self._path = None if path.startswith("@") else path  # None: there is no file
        self._file = self._file_id()
        self._revocations = access.revocations
        self._closed: list[str] = []  # endpoints to bind again

    def keep(self) -> None:
        """Maintain the socket: close the connections of revoked subscribers, and restore listening where it stopped.

        Raises:
            SinkError: new subscribers can't connect: an ipc endpoint's file is gone, or the port was taken.

        """
        self.access.check()
        if self.access.revocations != self._revocations:
            self._revocations = self.access.revocations
            self._disconnect_all()
        if self._closed:
            self._listen_again()
        if self._path is not None and self._file_id() != self._file:
            self.reopen()

    def reopen(self) -> None:
        """Reread the allow-list, and recreate an ipc endpoint's file if it was removed. Raises `SinkError`."""
        self.access.reload()
        if self._path is None or self._file_id() == self._file:
            return
        try:
            _check_path(self.endpoint, self._path)
            self.socket.bind(self.endpoint)
        except (SinkError, zmq.ZMQError) as error:
            why = _why_not(self.endpoint, error) if isinstance(error, zmq.ZMQError) else str(error)
            raise SinkError(f"new subscribers can't connect: the endpoint's file was removed; {why}") from None
        self._file = self._file_id()
        log.warning("%s: the endpoint's file was removed; recreated it", self.endpoint)

    def close(self) -> None:
        """Stop listening. Queued messages are sent within the socket's LINGER period."""
        self.access.close(self.socket)

    def _disconnect_all(self) -> None:
        """Close all connections, because ZeroMQ can't close a single one; allowed subscribers reconnect at once."""
        linger = self.socket.get(zmq.LINGER)
        self.socket.set(zmq.LINGER, 0)  # discards what is queued for the revoked subscriber
        for one in self._bound:
            self.socket.unbind(one)
        self.socket.set(zmq.LINGER, linger)
        self._closed = list(self._bound)

    def _listen_again(self) -> None:
        until_s = time.monotonic() + _FREED_S
        while self._closed:
            one = self._closed[0]
            try:
                self.socket.set(zmq.IPV6, one.startswith("tcp://["))
                self.socket.bind(one)
                self._closed.pop(0)
            except zmq.ZMQError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= until_s:
                    raise SinkError(f"new subscribers can't connect: {_why_not(one, error)}") from None
                time.sleep(0.002)  # ZeroMQ's I/O thread has not closed it yet
        self._file = self._file_id()

    def _bind(self, addresses: Sequence[str]) -> None:
        """Bind to all of `addresses`, which differ only in their host, on the same port."""
        for last in (False,) * _TRIES + (True,):
            self._bound = []
            try:
                for address in addresses:
                    self.socket.set(zmq.IPV6, address.startswith("tcp://["))
                    # The port that the system chose for the first address is used for the others.
                    host, _, port = address.rpartition(":")
                    self.socket.bind(f"{host}:{self._bound[0].rpartition(':')[2] if self._bound else port}")
                    self._bound.append(self.socket.get_string(zmq.LAST_ENDPOINT))
                return
            except zmq.ZMQError as error:
                chosen = addresses[0].endswith((":0", ":*"))
                if last or not self._bound or not chosen or error.errno != errno.EADDRINUSE:
                    raise
                for one in self._bound:
                    self.socket.unbind(one)
        raise AssertionError

    def _file_id(self) -> tuple[int, int] | None:
        """Device and inode of the file at an ipc endpoint's path; None if there is none."""
        try:
            found = os.stat(self._path) if self._path is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found else None


def _addresses(endpoint: str, access: Access) -> list[str]:
    """`endpoint` as ZeroMQ binds it. Raises `SinkError` if it reaches beyond this machine, without keys."""
    if endpoint.startswith("ipc://") and len(endpoint) > len("ipc://"):
        _check_path(endpoint, endpoint.removeprefix("ipc://"))
        return [endpoint]
    match = _TCP.fullmatch(endpoint)
    if match is None or (match["port"] != "*" and int(match["port"]) > 65_535):
        raise SinkError(f"{endpoint!r} is not a valid endpoint; use tcp://127.0.0.1:PORT or ipc://PATH")
    host, port = match["host"], match["port"]
    addresses = loopback_addresses(host)
    if not addresses:
        if access.keys is None:
            raise SinkError(
                f"{endpoint}: subscribers on other machines need keys: `earwitness keys new NAME` creates one; "
                "then start with `--keys FOLDER`, the folder that it prints (publish.keys in a config)"
            )
        addresses = _network_addresses(endpoint, host)
    return [f"tcp://[{one}]:{port}" if ":" in one else f"tcp://{one}:{port}" for one in addresses]


def _network_addresses(endpoint: str, host: str) -> list[str]:
    """`host` in forms that ZeroMQ can bind: an address, `*` or an interface unchanged, a name as its addresses."""
    bare = host.removeprefix("[").removesuffix("]")
    if bare in ("*", *(name for _, name in socket.if_nameindex())):
        return [bare]
    try:
        return [str(ipaddress.ip_address(bare))]
    except ValueError:
        pass
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        raise SinkError(f"{endpoint}: no host or interface is called {bare}: use tcp://0.0.0.0:PORT for all") from None
    return sorted(found, key=lambda one: (":" in one, one))


def _check_path(endpoint: str, path: str) -> None:
    """Raises `SinkError` if `path` is in use or holds another file: ZeroMQ would silently replace it."""
    if path.startswith("@") or path == "*":
        return  # an abstract name, or a path that ZeroMQ chooses
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise SinkError(f"{endpoint}: the file there is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(path)
        except OSError:
            return  # left behind by a program that has ended
    raise SinkError(
        f"{endpoint} is in use; stop the program that uses it (another earwitness?), or choose another path"
    )


def _why_not(endpoint: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{endpoint} is in use; stop the program that uses it (another earwitness?), or choose another port"
    if error.errno == errno.EACCES:
        return f"{endpoint}: permission denied; choose a port above 1023, or a folder that you may write to"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"{endpoint}: no such folder; create it, or choose another path"
    return f"{endpoint}: {error.strerror}"
