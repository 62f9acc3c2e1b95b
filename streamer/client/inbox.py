"""What one subscriber has received and not passed on yet, of all its daemons. Does no I/O and reads no clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from streamer.client.line import Gap, Line, Stored
from streamer.client.order import Order
from streamer.errors import GapError, WireError
from streamer.sinks.catch_up import Reply, Request
from streamer.sinks.wire import Head, HeartbeatMessage, Message, UnknownTypeError, decode, topic

STORED_TOPICS = ("event/", "status/")
_REPLY_S = 3.0
"""A question that is not answered by then is asked again."""
_TRY_AGAIN_S = 0.5
"""The same after an answer that did not help."""
_REPLY = msgspec.json.Decoder(Reply)


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask the ROUTER of the daemon that is heard over the endpoint number `source`."""

    source: int
    catch_up: str  # its endpoint, as the daemon says it
    data: bytes
    again: bool  # the last question was not answered: the connection may be dead


@dataclass(slots=True)
class _Peer:
    """A publisher that is heard over one endpoint."""

    source: int
    publisher: str
    heard_s: float
    catch_up: str | None = None  # None: no heartbeat yet; empty: it has none
    line: Line | None = None  # of its store
    resumed: bool = False  # the line began with a position from outside
    request: int = 0  # of the newest question
    ask_s: float = 0.0  # when to ask (again)
    stuck_s: float | None = None  # since when questions are not answered
    unanswered: bool = False


class Inbox:
    """Puts what arrives in order: `push`, `push_reply`, then `take` what is due, and ask the `questions`."""

    def __init__(
        self, topics: Sequence[str], since: int | Mapping[str, int] | None, *, catch_up: bool, patience_s: float
    ) -> None:
        """Take messages of the topics that begin with one of `topics`.

        Args:
            topics: prefixes.
            since: where to begin in the stores: after this number, or by the store's id; None: with what is live.
            catch_up: ask for what was missed.
            patience_s: after so long without an answer from a daemon that is heard, go on without.

        """
        self._topics = tuple(topics)
        wanted = any(one.startswith(prefix) or prefix.startswith(one) for one in STORED_TOPICS for prefix in topics)
        self.catches_up = catch_up and wanted
        """Whether stored messages are asked for. Then all of them must be subscribed to, for gaps to be seen."""
        self._since = since
        self._patience_s = patience_s
        self._order = Order(everything="" in topics)
        self._peers: dict[tuple[int, str], _Peer] = {}
        self._lines: dict[str, Line] = {}  # by store; two endpoints may lead to one daemon
        self._due: deque[tuple[Message, Stored | None]] = deque()
        self._positions: dict[str, int] = dict(since) if isinstance(since, Mapping) else {}
        self._requests = 0
        self.gaps: deque[GapError] = deque(maxlen=1000)
        """Messages that can't be had, to be told."""

    @property
    def missed(self) -> Counter[str]:
        """Messages that were sent but not received, by publisher."""
        return self._order.missed

    @property
    def position(self) -> dict[str, int]:
        """By store: the number up to which everything was taken out of here."""
        found = {**self._positions}
        for store, line in self._lines.items():
            if line.position is not None:
                found[store] = line.position
        for _, stored in reversed(self._due):
            if stored is not None:
                found[stored.message.store] = stored.message.stored_seq - 1
        return found

    def push(self, source: int, parts: Sequence[bytes], now_s: float) -> Message | Head:
        """Take in the parts of a live message; returns it. Raises `WireError` if they are none."""
        if len(parts) != 2:
            raise WireError(f"not a message: {len(parts)} parts instead of 2; is this the endpoint of an earwitness?")
        its_topic = parts[0].decode(errors="replace")
        message: Message | Head
        try:
            message = decode(parts[1])
        except UnknownTypeError as error:
            message = error.head
        peer = self._peers.setdefault((source, message.publisher), _Peer(source, message.publisher, now_s))
        peer.heard_s = now_s
        if self.catches_up and message.store:
            self._follow(peer, message)
        if isinstance(message, HeartbeatMessage):
            peer.catch_up = message.catch_up
            if peer.line is not None and message.store == peer.line.store:
                peer.line.through(message.stored_through)
        if peer.line is not None and message.stored_seq:
            if message.store == peer.line.store:
                self._push_stored(peer, peer.line, its_topic, message)
            # Else it is sent again: of the store before, which is done, or of a new one, which is read from the start.
        elif its_topic.startswith(self._topics) and self._order.push(its_topic, message):
            self._put(message, None)
        return message

    def push_reply(self, frames: Sequence[bytes], now_s: float) -> None:
        """Take in the frames of an answer. Raises `WireError` if they are none."""
        try:
            reply = _REPLY.decode(frames[0])
        except (msgspec.MsgspecError, UnicodeDecodeError, IndexError):
            raise WireError("not an answer to what was missed; is this the endpoint of an earwitness?") from None
        peer = next((one for one in self._peers.values() if one.request and one.request == reply.request), None)
        if peer is None or peer.line is None or peer.line.position is None:
            return  # too late: it was asked again
        line, before = peer.line, peer.line.position
        peer.request = 0
        peer.unanswered = False
        peer.ask_s = now_s + _TRY_AGAIN_S
        if reply.error or reply.store != line.store:
            return  # a new store is told by live messages
        messages: list[Stored] = []
        for data in frames[1:]:
            try:
                message = decode(data)
            except UnknownTypeError:
                continue
            messages.append(Stored(topic(message), message, caught_up=True))
        gone = line.reply(reply.since, reply.through, reply.oldest, messages)
        if gone is not None:
            self._tell(peer, gone, "were removed by the limits of its store")
        if line.position != before:
            peer.ask_s, peer.stuck_s = now_s, None
        self._drain(line)

    def take(self) -> Message | None:
        """The next message; None: there is none now."""
        return self._due.popleft()[0] if self._due else None

    def questions(self, now_s: float) -> list[Question]:
        """What to ask now; each is asked again until it is answered."""
        found = []
        for peer in self._peers.values():
            line = peer.line
            if line is None or not line.wanting:
                peer.stuck_s = None
                continue
            peer.stuck_s = now_s if peer.stuck_s is None else peer.stuck_s
            heard = peer.heard_s > peer.stuck_s
            if peer.catch_up == "" or (heard and now_s - peer.stuck_s >= self._patience_s):
                why = "it answers no questions" if peer.catch_up == "" else f"{peer.catch_up} does not answer"
                while (gap := line.give_up()) is not None:
                    self._tell(peer, gap, f"can't be had: {why}")
                peer.stuck_s = None
                self._drain(line)
            elif peer.catch_up and now_s >= peer.ask_s:
                found.append(self._question(peer, line, peer.catch_up, now_s))
        return found

    def next_s(self) -> float:
        """When to ask for the `questions` again, if nothing arrives."""
        times = [
            min(peer.ask_s, (peer.stuck_s or 0.0) + self._patience_s) if peer.catch_up else peer.heard_s + _TRY_AGAIN_S
            for peer in self._peers.values()
            if peer.line is not None and peer.line.wanting
        ]
        return min(times, default=float("inf"))

    def _question(self, peer: _Peer, line: Line, catch_up: str, now_s: float) -> Question:
        self._requests += 1
        peer.request = self._requests
        peer.ask_s = now_s + _REPLY_S
        again, peer.unanswered = peer.unanswered, True
        request = Request(since=line.position or 0, store=line.store, topics=self._topics, request=peer.request)
        return Question(peer.source, catch_up, msgspec.json.encode(request), again)

    def _follow(self, peer: _Peer, message: Message | Head) -> None:
        """The message is of, or about, a store: is it the one that we read?"""
        if peer.line is not None and peer.line.store == message.store:
            return
        if message.replay and not isinstance(message, HeartbeatMessage) and peer.line is not None:
            return  # from before the store was changed
        before = peer.line
        peer.line = self._lines.get(message.store)
        if peer.line is None:
            position, peer.resumed = self._beginning(message.store, renewed=before is not None)
            self._lines[message.store] = peer.line = Line(message.store, position)
        peer.request, peer.ask_s = 0, 0.0
        if before is not None:
            while (gap := before.give_up()) is not None:
                self._tell(peer, gap, "can't be had: the store is not there any more")
            self._drain(before)
            self._lines.pop(before.store, None)
            self._say(peer, f"a new event store, {message.store}, was begun; it is read from its beginning")

    def _beginning(self, store: str, *, renewed: bool) -> tuple[int | None, bool]:
        """Where to begin in a store that was not known, and whether that was said from outside."""
        if renewed:
            return 0, True
        if isinstance(self._since, Mapping):
            return self._since.get(store, 0 if self._since else None), bool(self._since)
        return self._since, self._since is not None

    def _push_stored(self, peer: _Peer, line: Line, its_topic: str, message: Message | Head) -> None:
        number, wanted = message.stored_seq, its_topic.startswith(self._topics)
        if message.replay:
            if line.position is not None and number > line.position:
                line.exists(number)
            elif wanted and not peer.resumed and self._order.push(its_topic, message):
                self._put(message, None)
            return
        if line.position is not None and number <= line.position:
            if not wanted or not self._order.is_new(its_topic, message):
                return  # it was asked for before it arrived, or arrives over a second way
            self._say(peer, f"the numbers of its event store went back from {line.position} to {number}")
            peer.line = line = self._lines[line.store] = Line(line.store, number - 1)
        line.live(Stored(its_topic, message, caught_up=False))
        self._drain(line)

    def _drain(self, line: Line) -> None:
        """What is due of the line is due here, if it is wanted."""
        while (stored := line.take()) is not None:
            if stored.topic.startswith(self._topics) and self._order.record(
                stored.topic, stored.message, caught_up=stored.caught_up
            ):
                self._put(stored.message, stored)

    def _put(self, message: Message | Head, stored: Stored | None) -> None:
        if not isinstance(message, Head):  # of a newer daemon: it counts, but can't be read
            self._due.append((message, stored))

    def _tell(self, peer: _Peer, gap: Gap, why: str) -> None:
        self._say(peer, f"stored messages {gap.first} to {gap.last} {why}")

    def _say(self, peer: _Peer, text: str) -> None:
        self.gaps.append(GapError(peer.publisher, f"publisher {peer.publisher}: {text}"))
