"""Sends subscribers the messages that they missed, from the store, over a ROUTER socket (docs/messages.md).

It has its own thread and database connection, so that requests do not delay live messages.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import zmq
from msgspec import Meta, Struct

from streamer.errors import SinkError, StoreError
from streamer.sinks.access import Access
from streamer.sinks.door import Door
from streamer.sinks.store.history import History
from streamer.sinks.wire import SCHEMA

log = logging.getLogger(__name__)

LIMIT = 500
"""Maximum number of messages in one reply."""
LIMIT_BYTES = 256 * 1024
"""Approximate maximum of bytes in one reply."""
_MAX_REQUEST_BYTES = 16 * 1024
"""ZeroMQ closes the connection of a client that sends a longer frame."""
_MAX_TOPICS = 100
_MAX_QUEUED_REPLIES = 4
"""Replies queued for one client. When its queue is full, further replies to it are dropped."""
_MAX_QUEUED_REQUESTS = 16
_POLL_S = 0.1
_MAX_PAUSE_S = 0.25
RESULTS = ("answered", "garbage", "slow", "gone", "failed")
"""Of a request: replied to; invalid request; the client does not read; it has disconnected; the store failed."""


class Request(Struct, frozen=True):
    """A subscriber's request for the messages after number `since` of the store `store`."""

    since: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    store: Annotated[str, Meta(max_length=64)] = ""  # empty: the daemon's current one
    topics: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=_MAX_TOPICS)] = ("",)
    limit: Annotated[int, Meta(ge=1)] = LIMIT  # of messages
    request: int = 0  # returned in the reply


class Reply(Struct, kw_only=True, frozen=True):
    """The first frame of a reply. The messages follow, one a frame."""

    schema: int = SCHEMA
    publisher: str = ""
    store: str = ""  # id of the daemon's store
    since: int = 0  # the request's, or 0 if it named another store
    through: int = 0  # every matching message up to this number is in the reply
    oldest: int = 1  # no message that could match was removed from this number on
    newest: int = 0  # the highest assigned number
    more: bool = False  # request again, with `since` set to `through`
    request: int = 0  # the request's
    error: str = ""  # why the request failed; then only `request` is valid


class CatchUp:
    """Answers requests one at a time, from `start` to `close`, with at most half of one processor core.

    A client that sends nothing, sends garbage or does not read does not affect the others: ZeroMQ takes one request
    from each client in turn, and drops replies that do not fit into a client's queue.
    """

    def __init__(self, endpoint: str, path: Path, publisher: str, access: Access | None = None) -> None:
        """Bind to `endpoint`, as `ZmqSink` does. `path` is the store's file, which need not exist yet.

        Raises:
            SinkError: the endpoint is invalid, in use, can't be bound, or reaches beyond this machine without
                keys.

        """
        options = (
            (zmq.ROUTER_MANDATORY, 1),  # sending to a client that disconnected or does not read is an error
            (zmq.SNDHWM, _MAX_QUEUED_REPLIES),
            (zmq.RCVHWM, _MAX_QUEUED_REQUESTS),
            (zmq.MAXMSGSIZE, _MAX_REQUEST_BYTES),
            (zmq.LINGER, 0),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_KEEPALIVE_IDLE, 30),
            (zmq.TCP_KEEPALIVE_INTVL, 10),
            (zmq.TCP_KEEPALIVE_CNT, 3),
        )
        self._door = Door(endpoint, zmq.ROUTER, access or Access(), options)
        self._publisher = publisher
        self._history = History(path)
        self._stop = threading.Event()
        self._problem = ""
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="catch-up", daemon=True)
        self.endpoint: str = self._door.endpoint
        """The bound endpoint, with the actual port."""
        self.refused = self._door.access.refusals.counts
        """Number of refused connections by reason."""
        self.results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        """Number of requests by result."""
        self.messages = 0
        """Number of messages sent in replies."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def check(self) -> None:
        """Raise the error that ended the thread, if there was one."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop the thread and close the socket. A second call has no effect."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._door.close()
        self._history.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._keep_door()
                if self._door.socket.poll(round(_POLL_S * 1000)):
                    began_s = time.monotonic()
                    self._serve()
                    # Pause for as long as that took: clients that never stop requesting take half of a core at most.
                    self._stop.wait(min(time.monotonic() - began_s, _MAX_PAUSE_S))
        except BaseException as error:
            self._failure = error

    def _keep_door(self) -> None:
        try:
            self._door.keep()
        except SinkError as error:
            self._warn(f"catch-up endpoint: {error}")
            self._stop.wait(_POLL_S)

    def _serve(self) -> None:
        """Receive one request and reply to it."""
        try:
            sender, *frames = self._door.socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return
        # A REQ socket sends an empty delimiter frame first, and expects it in the reply.
        envelope = [sender, b""] if len(frames) > 1 and not frames[0] else [sender]
        result, reply = self._reply(frames[len(envelope) - 1 :])
        try:
            self._door.socket.send_multipart([*envelope, *reply], zmq.DONTWAIT)
        except zmq.Again:
            result = "slow"
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            result = "gone"
        self.results[result] += 1
        if result == "answered":
            self.messages += len(reply) - 1

    def _reply(self, frames: list[bytes]) -> tuple[str, list[bytes]]:
        """The result of a request (see `RESULTS`), and the frames of its reply."""
        if len(frames) != 1:
            return "garbage", [self._error(f"a request is one frame of JSON, not {len(frames)} frames")]
        try:
            request = _DECODER.decode(frames[0])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return "garbage", [self._error(f"not a request: {error}")]
        try:
            limit = min(request.limit, LIMIT)
            page = self._history.page(request.store, request.since, request.topics, limit, LIMIT_BYTES)
        except StoreError as error:
            self._warn(str(error))
            return "failed", [self._error("the event store can't be read at the moment; retry later", request.request)]
        self._problem = ""
        head = Reply(
            publisher=self._publisher,
            store=page.store,
            since=page.since,
            through=page.through,
            oldest=page.oldest,
            newest=page.newest,
            more=page.more,
            request=request.request,
        )
        return "answered", [msgspec.json.encode(head), *page.messages]

    def _error(self, text: str, request: int = 0) -> bytes:
        return msgspec.json.encode(Reply(publisher=self._publisher, request=request, error=text))

    def _warn(self, text: str) -> None:
        """Log a problem, once until it is solved."""
        if text != self._problem:
            self._problem = text
            log.warning("%s", text)


_DECODER = msgspec.json.Decoder(Request)
