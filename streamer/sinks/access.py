"""Access control of the daemon's sockets: CURVE keys, authentication of each handshake, and counts of refusals.

For each handshake ZeroMQ asks over ZAP (RFC 27) whether the key is allowed. The thread in here answers, and monitors
all connections. If it dies no subscriber can connect, so `check` raises the error that it died of.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from contextlib import suppress

import zmq
from zmq.utils import z85

from streamer.errors import KeysError
from streamer.sinks.keys import AllowList, KeyFolder
from streamer.sinks.refusals import Refusals
from streamer.sinks.watched import EVENTS, MAPPED, Watched

log = logging.getLogger(__name__)

_ZAP = "inproc://zeromq.zap.01"
_HANDSHAKE_S = 5.0
"""A connection that has not completed its handshake by then is closed. A handshake takes two round trips."""
_LINGER_S = 2.0
"""How long a closed socket may still send what is queued for its peers."""
_CHECK_S = 0.25
"""How often the allow-list is checked for changes."""
_HANG_S = 30.0
_LONGEST_DOMAIN = 255
_EVENTS_A_TURN = 100


class Access:
    """Creates the daemon's listening sockets, and authenticates the peers that connect to them.

    Without keys every peer is accepted: only for loopback. With keys a peer's key must be on the allow-list, which is
    reread when it changes. Sockets are opened and closed by other threads than the one in here.
    """

    def __init__(self, keys: KeyFolder | None = None) -> None:
        """Raises `KeysError` if the daemon's key pair or the allow-list can't be read."""
        self.keys = keys
        self.refusals = Refusals(time.monotonic)
        self.revocations = 0
        """Counts changes that revoked keys: ZeroMQ checks keys only at the handshake, so connections must be closed."""
        self._server = keys.server() if keys is not None else None
        self._state = keys.state() if keys is not None else None
        self._list = keys.allow_list() if keys is not None else AllowList({}, {})
        self._problem = ""  # the last logged problem of the allow-list
        self._log_list()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None  # while there are sockets
        self._lock = threading.Lock()
        self._sockets = 0
        self._new: list[Watched] = []
        self._reload = threading.Event()
        self._stop = threading.Event()
        self._woken: socket.socket | None = None
        self._wake: socket.socket | None = None
        self._failure: BaseException | None = None
        self._beat_s = time.monotonic()
        self._hang_logged_s = float("-inf")
        self._thread: threading.Thread | None = None

    def open(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        """Create a socket of this kind (`zmq.XPUB`, ...) for the caller to bind; the log calls it `endpoint`."""
        with self._lock:
            context = self._context or self._begin()
            self._sockets += 1
        made = context.socket(kind)
        made.set(zmq.HANDSHAKE_IVL, round(_HANDSHAKE_S * 1000))
        made.set(zmq.LINGER, round(_LINGER_S * 1000))  # ZeroMQ's default is forever
        if self._server is not None:
            made.set(zmq.CURVE_SERVER, 1)
            made.set(zmq.CURVE_PUBLICKEY, self._server.public.encode())
            made.set(zmq.CURVE_SECRETKEY, self._server.secret.encode())
            made.set(zmq.ZAP_DOMAIN, endpoint.encode()[:_LONGEST_DOMAIN])  # ZAP requests contain it
            made.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it ZeroMQ accepts every peer when there is no ZAP handler
        with self._lock:
            self._new.append(Watched(made.get_monitor_socket(EVENTS), endpoint, self._server is not None))
        self._wake_up()
        return made

    def _begin(self) -> zmq.Context[zmq.Socket[bytes]]:
        self._context = context = zmq.Context()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        zap = context.socket(zmq.ROUTER)
        zap.set(zmq.LINGER, 0)
        zap.bind(_ZAP)
        self._thread = threading.Thread(target=self._run, args=(zap, self._woken), name="access", daemon=True)
        self._thread.start()
        return context

    def close(self, one: zmq.Socket[bytes]) -> None:
        """Close a socket that was opened here. With the last one the thread ends; queued messages are sent first."""
        if one.closed:
            return
        one.disable_monitor()
        one.close()
        with self._lock:
            self._sockets -= 1
            if self._sockets:
                return
        self._stop.set()
        self._wake_up()
        if self._thread is not None:
            self._thread.join()
        if self._context is not None:
            self._context.destroy()
        for end in (self._woken, self._wake):
            if end is not None:
                end.close()

    def reload(self) -> None:
        """Reread the allow-list immediately. Changes are noticed without this, too."""
        self._reload.set()
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None:
            with suppress(OSError):  # the buffer is full, so that it will wake up anyway; or closed
                self._wake.send(b"x")

    def check(self) -> None:
        """Raise the error that the thread died of, if it did. Logs an error while it hangs."""
        if self._failure is not None:
            raise self._failure
        now_s = time.monotonic()
        if now_s - self._beat_s > _HANG_S and now_s - self._hang_logged_s > _HANG_S:
            self._hang_logged_s = now_s
            log.error(
                "new subscribers can't connect: the key folder has not responded for %.0f s", now_s - self._beat_s
            )

    def _run(self, zap: zmq.Socket[bytes], woken: socket.socket) -> None:
        poller = zmq.Poller()
        poller.register(zap, zmq.POLLIN)
        poller.register(woken, zmq.POLLIN)
        watched: dict[object, Watched] = {}
        checked_s = time.monotonic()
        try:
            while not self._stop.is_set():
                self._beat_s = now_s = time.monotonic()
                with self._lock:
                    while self._new:
                        one = self._new.pop()
                        watched[one.monitor] = one
                        poller.register(one.monitor, zmq.POLLIN)
                if self.keys is not None and (now_s - checked_s >= _CHECK_S or self._reload.is_set()):
                    checked_s = now_s
                    self._update(self.keys)
                self.refusals.poll()
                for ready, _ in poller.poll(round(_CHECK_S * 1000)):
                    if ready is zap:
                        self._answer(zap)
                    elif ready in watched:
                        self._monitor(watched[ready])
                    else:
                        woken.recv(4096)
            with self._lock:
                for one in (*watched.values(), *self._new):
                    one.monitor.close()
            zap.close()
        except BaseException as error:
            self._failure = error

    def _update(self, keys: KeyFolder) -> None:
        """Reread the allow-list if it has changed."""
        state, forced = keys.state(), self._reload.is_set()
        self._reload.clear()
        if state == self._state and not forced:
            return
        self._state = state
        try:
            found = keys.allow_list()
        except KeysError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.error("%s; the previous allow-list stays in force", error)
            return
        before, self._list = self._list, found
        removed = {name for key, name in before.allowed.items() if key not in found.allowed}
        added = {name for key, name in found.allowed.items() if key not in before.allowed}
        if removed:
            self.revocations += 1
            log.warning("keys: revoked %s; closing all connections, subscribers reconnect", ", ".join(sorted(removed)))
        if added:
            log.info("keys: allowed %s", ", ".join(sorted(added)))
        self._log_list()

    def _log_list(self) -> None:
        if self.keys is None:
            return
        empty = (
            "" if self._list.allowed else f"no subscriber is allowed yet: `earwitness keys new NAME` ({self.keys.path})"
        )
        problem = "; ".join([*self._list.faults, *([empty] if empty else [])])
        if problem and problem != self._problem:
            log.warning("keys: %s", problem)
        self._problem = problem

    def _answer(self, zap: zmq.Socket[bytes]) -> None:
        """Answer the pending handshakes (ZAP 1.0, RFC 27)."""
        for _ in range(_EVENTS_A_TURN):
            try:
                sender, _, version, number, domain, peer, _, mechanism, *credentials = zap.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            key = z85.encode(credentials[0]).decode() if mechanism == b"CURVE" and credentials else ""
            name = self._list.allowed.get(key)
            if name is None:
                known = self._list.revoked.get(key, "")
                reason = "revoked_key" if known else "unknown_key"
                self.refusals.push(reason, domain.decode(), peer.decode().removeprefix(MAPPED), known)
            status = (b"200", b"", name.encode()) if name is not None else (b"400", b"not on the allow-list", b"")
            zap.send_multipart([sender, b"", version, number, *status, b""])

    def _monitor(self, watched: Watched) -> None:
        """Process the events of one socket's monitor."""
        for _ in range(_EVENTS_A_TURN):
            try:
                event, value = struct.unpack("=HI", watched.monitor.recv_multipart(zmq.DONTWAIT)[0])
            except zmq.Again:
                return
            refused = watched.push(event, value)
            if refused is not None:
                self.refusals.push(*refused)
