"""Answers subscribers that missed messages: a ROUTER socket, and the store behind it (docs/messages.md, "Catching up").

It has a thread and a database connection of its own, so that catching up does not delay live messages.
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
"""Messages in one reply, at most."""
LIMIT_BYTES = 256 * 1024
"""Bytes of messages in one reply, about."""
_LONGEST_REQUEST = 16 * 1024
"""Bytes. ZeroMQ closes a connection that sends more."""
_MOST_TOPICS = 100
_REPLIES_WAITING = 4
"""Replies that may wait for one requester to read them. Then it gets none until it has."""
_REQUESTS_WAITING = 16
_POLL_S = 0.1
_LONGEST_PAUSE_S = 0.25
RESULTS = ("answered", "garbage", "slow", "gone", "failed")
"""What becomes of a request: it got its reply; it is none; its sender does not read, or has gone; the store failed."""


class Request(Struct, frozen=True):
    """What a subscriber asks for: the messages after number `since` of the store `store`."""

    since: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    store: Annotated[str, Meta(max_length=64)] = ""  # empty: whichever is there
    topics: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=_MOST_TOPICS)] = ("",)
    limit: Annotated[int, Meta(ge=1)] = LIMIT  # of messages
    request: int = 0  # handed back in the reply


class Reply(Struct, kw_only=True, frozen=True):
    """The first frame of a reply. The messages follow, one a frame."""

    schema: int = SCHEMA
    publisher: str = ""
    store: str = ""  # id of the store that answers
    since: int = 0  # the request's, or 0 if it was about another store
    through: int = 0  # all that matches up to this number is here
    oldest: int = 1  # nothing that could match was removed from this number on
    newest: int = 0  # the highest number in the store
    more: bool = False  # ask again, with `since` at `through`
    request: int = 0  # the request's
    error: str = ""  # why there is no answer; then all else but `request` means nothing


class CatchUp:
    """Answers from `start` to `close`, one request after the other, and takes at most half of one processor core.

    A requester that sends nothing, sends garbage or does not read costs the others nothing: ZeroMQ takes one request
    from each in turn, and what does not fit into a requester's queue is dropped.
    """

    def __init__(self, endpoint: str, path: Path, publisher: str, access: Access | None = None) -> None:
        """Bind to `endpoint`, as `ZmqSink` does; `path` is the store's file, which may come later.

        Raises:
            SinkError: it is not such an endpoint, is taken, can't be bound, or reaches beyond this machine
                without keys.

        """
        options = (
            (zmq.ROUTER_MANDATORY, 1),  # makes sending to a peer that is gone, or does not read, an error
            (zmq.SNDHWM, _REPLIES_WAITING),
            (zmq.RCVHWM, _REQUESTS_WAITING),
            (zmq.MAXMSGSIZE, _LONGEST_REQUEST),
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
        self._trouble = ""
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="catch-up", daemon=True)
        self.endpoint: str = self._door.endpoint
        """Where subscribers ask, with the port that was chosen."""
        self.refused = self._door.access.refusals.counts
        """Refused connections by reason."""
        self.results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        """What became of requests."""
        self.messages = 0
        """Messages that were sent in replies."""

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def check(self) -> None:
        """Raise what the thread died of, if it did."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop answering. A second call has no effect."""
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
                    # Pause for as long as it took, so that a flood of requests uses at most half of a core.
                    self._stop.wait(min(time.monotonic() - began_s, _LONGEST_PAUSE_S))
        except BaseException as error:
            self._failure = error

    def _keep_door(self) -> None:
        try:
            self._door.keep()
        except SinkError as error:
            self._say(f"catching up: {error}")
            self._stop.wait(_POLL_S)

    def _serve(self) -> None:
        """Take one request and answer it."""
        try:
            sender, *frames = self._door.socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return
        # A REQ socket puts an empty frame in front, and wants it back.
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
        """What becomes of a request, and the frames of its reply."""
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
            self._say(str(error))
            return "failed", [self._error("the event store can't be read now; try again later", request.request)]
        self._trouble = ""
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

    def _say(self, text: str) -> None:
        """Log a trouble, once until it is over."""
        if text != self._trouble:
            self._trouble = text
            log.warning("%s", text)


_DECODER = msgspec.json.Decoder(Request)
