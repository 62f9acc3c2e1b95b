"""The messages of all daemons that a subscriber has received but not delivered yet. Does no I/O, reads no clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from streamer.client.cursor import Cursor, Gap, Stored
from streamer.client.order import Order
from streamer.errors import GapError, WireError
from streamer.sinks.catch_up import Reply, Request
from streamer.sinks.wire import Head, HeartbeatMessage, Message, UnknownTypeError, decode, topic

STORED_TOPICS = ("event/", "status/")
_RESEND_S = 3.0
"""A request without a reply is repeated after this time."""
_RETRY_S = 0.5
"""The same after a reply that brought nothing new."""
_REPLY = msgspec.json.Decoder(Reply)


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request to the ROUTER of a daemon that is received over endpoint number `source`."""

    source: int
    catch_up: str  # its endpoint, as the daemon announces it
    data: bytes
    retry: bool  # the last request was not answered: the connection may be dead


@dataclass(slots=True)
class _Peer:
    """A publisher that is received over one endpoint."""

    source: int
    publisher: str
    heard_s: float
    catch_up: str | None = None  # None: no heartbeat yet; empty: it has none
    cursor: Cursor | None = None  # in its store
    resumed: bool = False  # it began at a given position
    request: int = 0  # number of the newest request; 0: it was answered
    ask_s: float = 0.0  # when to send the next request
    stuck_s: float | None = None  # since when replies have brought nothing new
    unanswered: bool = False


class Inbox:
    """Puts messages in order: `push` and `push_reply` what arrives, send the `requests`, and `take` the messages."""

    def __init__(
        self, topics: Sequence[str], since: int | Mapping[str, int] | None, *, catch_up: bool, patience_s: float
    ) -> None:
        """Deliver messages whose topics begin with one of `topics`.

        Args:
            topics: prefixes.
            since: begin after this `stored_seq`, or after one per store id; None: with live messages.
            catch_up: request missed messages.
            patience_s: skip missing messages if a daemon sends live messages but no reply for this long.

        """
        self._topics = tuple(topics)
        wanted = any(one.startswith(prefix) or prefix.startswith(one) for one in STORED_TOPICS for prefix in topics)
        self.catches_up = catch_up and wanted
        """Whether missed messages are requested. To see every gap, this needs a subscription to all stored topics."""
        self._since = since
        self._patience_s = patience_s
        self._order = Order(everything="" in topics)
        self._peers: dict[tuple[int, str], _Peer] = {}
        self._cursors: dict[str, Cursor] = {}  # by store id; two endpoints may lead to one daemon
        self._due: deque[tuple[Message, Stored | None]] = deque()
        self._positions: dict[str, int] = dict(since) if isinstance(since, Mapping) else {}
        self._request_count = 0
        self.gaps: deque[GapError] = deque(maxlen=1000)
        """Unavailable messages and replaced stores, to be reported."""

    @property
    def missed(self) -> Counter[str]:
        """Messages that were sent but not received, by publisher."""
        return self._order.missed

    @property
    def position(self) -> dict[str, int]:
        """By store id: the `stored_seq` up to which everything was taken from this inbox."""
        found = {**self._positions}
        for store, cursor in self._cursors.items():
            if cursor.position is not None:
                found[store] = cursor.position
        for _, stored in reversed(self._due):
            if stored is not None:
                found[stored.message.store] = stored.message.stored_seq - 1
        return found

    def push(self, source: int, parts: Sequence[bytes], now_s: float) -> Message | Head:
        """Accept the parts of a live message; returns the message. Raises `WireError` if they are not a message."""
        if len(parts) != 2:
            raise WireError(
                f"not a message: {len(parts)} parts instead of 2; is this the endpoint of an earwitness daemon?"
            )
        its_topic = parts[0].decode(errors="replace")
        message: Message | Head
        try:
            message = decode(parts[1])
        except UnknownTypeError as error:
            message = error.head
        peer = self._peers.setdefault((source, message.publisher), _Peer(source, message.publisher, now_s))
        peer.heard_s = now_s
        if self.catches_up and message.store:
            self._check_store(peer, message)
        if isinstance(message, HeartbeatMessage):
            peer.catch_up = message.catch_up
            if peer.cursor is not None and message.store == peer.cursor.store:
                peer.cursor.through(message.stored_through)
        if peer.cursor is not None and message.stored_seq:
            if message.store == peer.cursor.store:
                self._push_stored(peer, peer.cursor, its_topic, message)
            # Otherwise a replay: of the previous store, which is done, or of a new one, which is read from its start.
        elif its_topic.startswith(self._topics) and self._order.push(its_topic, message):
            self._put(message, None)
        return message

    def push_reply(self, frames: Sequence[bytes], now_s: float) -> None:
        """Accept the frames of a reply. Raises `WireError` if they are not a reply."""
        try:
            reply = _REPLY.decode(frames[0])
        except (msgspec.MsgspecError, UnicodeDecodeError, IndexError):
            raise WireError("not a catch-up reply; is this the endpoint of an earwitness daemon?") from None
        peer = next((one for one in self._peers.values() if one.request and one.request == reply.request), None)
        if peer is None or peer.cursor is None or peer.cursor.position is None:
            return  # too late: a newer request replaced it
        cursor, before = peer.cursor, peer.cursor.position
        peer.request = 0
        peer.unanswered = False
        peer.ask_s = now_s + _RETRY_S
        if reply.error or reply.store != cursor.store:
            return  # live messages announce a new store
        messages: list[Stored] = []
        for data in frames[1:]:
            try:
                message = decode(data)
            except UnknownTypeError:
                continue
            messages.append(Stored(topic(message), message, caught_up=True))
        gone = cursor.reply(reply.since, reply.through, reply.oldest, messages)
        if gone is not None:
            self._report_gap(peer, gone, "were removed from its store (`store.keep_days`, `store.keep_mb`)")
        if cursor.position != before:
            peer.ask_s, peer.stuck_s = now_s, None
        self._drain(cursor)

    def take(self) -> Message | None:
        """The next message; None: there is none now."""
        return self._due.popleft()[0] if self._due else None

    def requests(self, now_s: float) -> list[PendingRequest]:
        """The requests to send now; each is repeated until it is answered."""
        found = []
        for peer in self._peers.values():
            cursor = peer.cursor
            if cursor is None or not cursor.behind:
                peer.stuck_s = None
                continue
            peer.stuck_s = now_s if peer.stuck_s is None else peer.stuck_s
            heard = peer.heard_s > peer.stuck_s
            if peer.catch_up == "" or (heard and now_s - peer.stuck_s >= self._patience_s):
                why = "it has no catch-up endpoint" if peer.catch_up == "" else f"{peer.catch_up} does not answer"
                while (gap := cursor.skip_gap()) is not None:
                    self._report_gap(peer, gap, f"are unavailable: {why}")
                peer.stuck_s = None
                self._drain(cursor)
            elif peer.catch_up and now_s >= peer.ask_s:
                found.append(self._request(peer, cursor, peer.catch_up, now_s))
        return found

    def next_s(self) -> float:
        """When to call `requests` again, if nothing arrives."""
        times = [
            min(peer.ask_s, (peer.stuck_s or 0.0) + self._patience_s) if peer.catch_up else peer.heard_s + _RETRY_S
            for peer in self._peers.values()
            if peer.cursor is not None and peer.cursor.behind
        ]
        return min(times, default=float("inf"))

    def _request(self, peer: _Peer, cursor: Cursor, catch_up: str, now_s: float) -> PendingRequest:
        self._request_count += 1
        peer.request = self._request_count
        peer.ask_s = now_s + _RESEND_S
        retry, peer.unanswered = peer.unanswered, True
        request = Request(since=cursor.position or 0, store=cursor.store, topics=self._topics, request=peer.request)
        return PendingRequest(peer.source, catch_up, msgspec.json.encode(request), retry)

    def _check_store(self, peer: _Peer, message: Message | Head) -> None:
        """Switch to the store that the message names, if the publisher has begun a new one."""
        if peer.cursor is not None and peer.cursor.store == message.store:
            return
        if message.replay and not isinstance(message, HeartbeatMessage) and peer.cursor is not None:
            return  # a replay from the previous store
        before = peer.cursor
        peer.cursor = self._cursors.get(message.store)
        if peer.cursor is None:
            position, peer.resumed = self._beginning(message.store, renewed=before is not None)
            self._cursors[message.store] = peer.cursor = Cursor(message.store, position)
        peer.request, peer.ask_s = 0, 0.0
        if before is not None:
            while (gap := before.skip_gap()) is not None:
                self._report_gap(peer, gap, "are unavailable: the store no longer exists")
            self._drain(before)
            self._cursors.pop(before.store, None)
            self._report(peer, f"it has a new event store, {message.store}, which is read from its beginning")

    def _beginning(self, store: str, *, renewed: bool) -> tuple[int | None, bool]:
        """Where to begin in a store that is new to us, and whether that position was given."""
        if renewed:
            return 0, True
        if isinstance(self._since, Mapping):
            return self._since.get(store, 0 if self._since else None), bool(self._since)
        return self._since, self._since is not None

    def _push_stored(self, peer: _Peer, cursor: Cursor, its_topic: str, message: Message | Head) -> None:
        number, wanted = message.stored_seq, its_topic.startswith(self._topics)
        if message.replay:
            if cursor.position is not None and number > cursor.position:
                cursor.exists(number)
            elif wanted and not peer.resumed and self._order.push(its_topic, message):
                self._put(message, None)
            return
        if cursor.position is not None and number <= cursor.position:
            if not wanted or not self._order.is_new(its_topic, message):
                return  # a reply contained it already, or it arrived over another endpoint
            self._report(peer, f"the numbers in its event store went back from {cursor.position} to {number}")
            peer.cursor = cursor = self._cursors[cursor.store] = Cursor(cursor.store, number - 1)
        cursor.live(Stored(its_topic, message, caught_up=False))
        self._drain(cursor)

    def _drain(self, cursor: Cursor) -> None:
        """Move the ready messages of subscribed topics from the cursor to this inbox."""
        while (stored := cursor.take()) is not None:
            if stored.topic.startswith(self._topics) and self._order.record(
                stored.topic, stored.message, caught_up=stored.caught_up
            ):
                self._put(stored.message, stored)

    def _put(self, message: Message | Head, stored: Stored | None) -> None:
        if not isinstance(message, Head):  # a type from a newer daemon is counted but can't be decoded
            self._due.append((message, stored))

    def _report_gap(self, peer: _Peer, gap: Gap, why: str) -> None:
        self._report(peer, f"stored messages {gap.first} to {gap.last} {why}")

    def _report(self, peer: _Peer, text: str) -> None:
        self.gaps.append(GapError(peer.publisher, f"publisher {peer.publisher}: {text}"))
