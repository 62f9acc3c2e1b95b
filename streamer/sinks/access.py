"""Who may come in: CURVE keys for the daemon's sockets, an answer to each handshake, and a count of those who failed.

ZeroMQ asks for each handshake over ZAP (RFC 27) whether the key may come in. The one thread here answers, and follows
what becomes of every connection. If it dies nobody can come in any more, so `check` hands on what it died of.
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
"""A connection that has not said who it is by then is closed. A handshake takes two round trips."""
_LINGER_S = 2.0
"""How long a socket that is closed waits for peers to take what is queued for them."""
_LOOK_S = 0.25
"""How often it is looked whether the allow-list has changed."""
_HANGS_S = 30.0
_LONGEST_DOMAIN = 255
_EVENTS_A_TURN = 100


class Access:
    """Makes the sockets at which a daemon listens, and decides who may come in there.

    Without keys everybody may: for loopback alone. With keys a peer must have one of the allow-list, which is followed
    while the daemon runs. Sockets are made and closed by other threads than the one in here.
    """

    def __init__(self, keys: KeyFolder | None = None) -> None:
        """Raises `KeysError` if the daemon's key or the allow-list can't be read."""
        self.keys = keys
        self.refusals = Refusals(time.monotonic)
        self.revocations = 0
        """Grows when keys have been revoked. Whoever is connected was let in before: his connection must be cut."""
        self._server = keys.server() if keys is not None else None
        self._state = keys.state() if keys is not None else None
        self._list = keys.allow_list() if keys is not None else AllowList({}, {})
        self._trouble = ""  # what was last logged of the allow-list
        self._say_of_list()
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
        self._hang_told_s = float("-inf")
        self._thread: threading.Thread | None = None

    def open(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        """A socket of that kind that lets in whom it may, to be bound; `endpoint` is what the log calls it."""
        with self._lock:
            context = self._context or self._begin()
            self._sockets += 1
        made = context.socket(kind)
        made.set(zmq.HANDSHAKE_IVL, round(_HANDSHAKE_S * 1000))
        made.set(zmq.LINGER, round(_LINGER_S * 1000))  # ZeroMQ's own default is for ever
        if self._server is not None:
            made.set(zmq.CURVE_SERVER, 1)
            made.set(zmq.CURVE_PUBLICKEY, self._server.public.encode())
            made.set(zmq.CURVE_SECRETKEY, self._server.secret.encode())
            made.set(zmq.ZAP_DOMAIN, endpoint.encode()[:_LONGEST_DOMAIN])  # is handed back to us at each handshake
            made.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # else ZeroMQ lets all in when nobody answers
        with self._lock:
            self._new.append(Watched(made.get_monitor_socket(EVENTS), endpoint, self._server is not None))
        self._rouse()
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
        """Close a socket that was opened here. With the last one all ends; what is queued goes out first."""
        if one.closed:
            return
        one.disable_monitor()
        one.close()
        with self._lock:
            self._sockets -= 1
            if self._sockets:
                return
        self._stop.set()
        self._rouse()
        if self._thread is not None:
            self._thread.join()
        if self._context is not None:
            self._context.destroy()
        for end in (self._woken, self._wake):
            if end is not None:
                end.close()

    def reload(self) -> None:
        """Read the allow-list anew, soon; it is followed without this too."""
        self._reload.set()
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None:
            with suppress(OSError):  # full, and about to wake as it is; or closed
                self._wake.send(b"x")

    def check(self) -> None:
        """Raise what the thread died of, if it did: nobody can come in any more. Say it if it hangs."""
        if self._failure is not None:
            raise self._failure
        now_s = time.monotonic()
        if now_s - self._beat_s > _HANGS_S and now_s - self._hang_told_s > _HANGS_S:
            self._hang_told_s = now_s
            log.error("nobody new can connect: the folder of keys has not answered for %.0f s", now_s - self._beat_s)

    def _run(self, zap: zmq.Socket[bytes], woken: socket.socket) -> None:
        poller = zmq.Poller()
        poller.register(zap, zmq.POLLIN)
        poller.register(woken, zmq.POLLIN)
        watched: dict[object, Watched] = {}
        looked_s = time.monotonic()
        try:
            while not self._stop.is_set():
                self._beat_s = now_s = time.monotonic()
                with self._lock:
                    while self._new:
                        one = self._new.pop()
                        watched[one.monitor] = one
                        poller.register(one.monitor, zmq.POLLIN)
                if self.keys is not None and (now_s - looked_s >= _LOOK_S or self._reload.is_set()):
                    looked_s = now_s
                    self._look(self.keys)
                self.refusals.poll()
                for ready, _ in poller.poll(round(_LOOK_S * 1000)):
                    if ready is zap:
                        self._answer(zap)
                    elif ready in watched:
                        self._follow(watched[ready])
                    else:
                        woken.recv(4096)
            with self._lock:
                for one in (*watched.values(), *self._new):
                    one.monitor.close()
            zap.close()
        except BaseException as error:
            self._failure = error

    def _look(self, keys: KeyFolder) -> None:
        """Follow the allow-list."""
        state, forced = keys.state(), self._reload.is_set()
        self._reload.clear()
        if state == self._state and not forced:
            return
        self._state = state
        try:
            found = keys.allow_list()
        except KeysError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.error("%s; who had a key keeps it", error)
            return
        before, self._list = self._list, found
        gone = {name for key, name in before.allowed.items() if key not in found.allowed}
        come = {name for key, name in found.allowed.items() if key not in before.allowed}
        if gone:
            self.revocations += 1
            log.warning("keys: %s may not come in any more; all connections are made anew", ", ".join(sorted(gone)))
        if come:
            log.info("keys: %s may come in now", ", ".join(sorted(come)))
        self._say_of_list()

    def _say_of_list(self) -> None:
        if self.keys is None:
            return
        empty = (
            "" if self._list.allowed else f"no subscriber has a key yet: `earwitness keys new NAME` ({self.keys.path})"
        )
        trouble = "; ".join([*self._list.faults, *([empty] if empty else [])])
        if trouble and trouble != self._trouble:
            log.warning("keys: %s", trouble)
        self._trouble = trouble

    def _answer(self, zap: zmq.Socket[bytes]) -> None:
        """Answer the handshakes that wait, as ZAP 1.0 wants it (RFC 27)."""
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
            verdict = (b"200", b"", name.encode()) if name is not None else (b"400", b"not on the list", b"")
            zap.send_multipart([sender, b"", version, number, *verdict, b""])

    def _follow(self, watched: Watched) -> None:
        """Take in what has become of the connections to one socket."""
        for _ in range(_EVENTS_A_TURN):
            try:
                event, value = struct.unpack("=HI", watched.monitor.recv_multipart(zmq.DONTWAIT)[0])
            except zmq.Again:
                return
            refused = watched.push(event, value)
            if refused is not None:
                self.refusals.push(*refused)
