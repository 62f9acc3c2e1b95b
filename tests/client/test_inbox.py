"""Stored messages are delivered once and in order, whatever is lost, late or duplicated on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.client.cursor import Cursor, Gap, Stored
from streamer.client.feed import catch_up_endpoint
from streamer.client.inbox import Inbox, PendingRequest
from streamer.errors import WireError
from streamer.sinks.base import Numberer
from streamer.sinks.catch_up import Reply
from streamer.sinks.wire import HeartbeatMessage, Message, encode, topic
from tests import messages as make

CATCH_UP = "tcp://127.0.0.1:5558"


class SimulatedDaemon:
    """A simulated daemon with a store: its messages, and replies like those of `CatchUp`."""

    def __init__(self, store: str = "s1", run: str = "r1") -> None:
        self.store = store
        self.numberer: Numberer = make.numberer(run=run)
        self.kept: list[Message] = []
        self.oldest = 1

    def restart(self, run: str, *, store: str | None = None) -> None:
        self.numberer = make.numberer(run=run)
        if store is not None:
            self.store, self.kept = store, []

    def publish(self, message: Message) -> Message:
        numbered = self.numberer.number(message)
        if not isinstance(message, (type(make.onset()), type(make.offset()), type(make.status()))):
            return numbered
        kept = msgspec.structs.replace(numbered, store=self.store, stored_seq=len(self.kept) + 1)
        self.kept.append(kept)
        return kept

    def beat(self, *, replay: bool = False, catch_up: str = CATCH_UP) -> Message:
        beat = self.numberer.number(make.heartbeat())
        assert isinstance(beat, HeartbeatMessage)
        return msgspec.structs.replace(
            beat, store=self.store, stored_through=len(self.kept), catch_up=catch_up, replay=replay
        )

    def answer(self, request: PendingRequest, limit: int = 100) -> list[bytes]:
        asked = json.loads(request.data)
        since = asked["since"] if asked["store"] == self.store else 0
        rest = [one for one in self.kept if one.stored_seq > since and one.stored_seq >= self.oldest]
        page = rest[:limit]
        through = page[-1].stored_seq if len(page) < len(rest) else max(since, len(self.kept))
        head = Reply(
            publisher="earwitness",
            store=self.store,
            since=since,
            through=through,
            oldest=self.oldest,
            newest=len(self.kept),
            more=len(page) < len(rest),
            request=asked["request"],
        )
        wanted = [one for one in page if topic(one).startswith(tuple(asked["topics"]))]
        return [msgspec.json.encode(head), *map(encode, wanted)]


def parts(message: Message) -> list[bytes]:
    return [topic(message).encode(), encode(message)]


def taken(inbox: Inbox) -> list[Message]:
    found = []
    while (message := inbox.take()) is not None:
        found.append(message)
    return found


def inbox(topics: Sequence[str] = ("",), since: int | dict[str, int] | None = None, patience_s: float = 10.0) -> Inbox:
    return Inbox(topics, since, catch_up=True, patience_s=patience_s)


actions = st.lists(
    st.sampled_from(
        ["event", "lost event", "status", "lost status", "tags", "beat", "ask", "answer", "late", "restart"]
    )
    | st.sampled_from(["replay", "lost", "new store", "twice"]),
    max_size=60,
)


@settings(max_examples=300)
@given(actions, st.sampled_from([("",), ("event/",), ("event/cam/", "status/")]), st.integers(1, 4), st.booleans())
@example(["lost event", "event", "ask", "ask", "ask"], ("",), 1, False)  # no reply for longer than the usual patience
def test_each_stored_message_is_delivered_once_and_in_order(
    happens: list[str], topics: tuple[str, ...], page: int, resumed: bool
) -> None:
    """Any message or reply may be lost, late or duplicated, and the daemon may restart."""
    # The daemon replies in the end, so patience must not end before: what it skips is another test's.
    daemon, reader = SimulatedDaemon(), inbox(topics, 0 if resumed else None, patience_s=1e9)
    got: list[Message] = []
    everything: list[Message] = []  # stored, in order
    requests: list[PendingRequest] = []
    late: list[list[bytes]] = []
    now_s, runs = 0.0, 1
    reader.push(0, parts(daemon.beat()), now_s)
    for what in [*happens, "beat", *["ask", "answer"] * 80]:
        now_s += 4.0 if what == "ask" else 0.001
        arrives = not what.startswith("lost")
        if what.endswith(("event", "status")):
            message = make.onset(label="ab"[len(everything) % 2]) if what.endswith("event") else make.status()
            everything.append(daemon.publish(message))
            if arrives:
                reader.push(0, parts(everything[-1]), now_s)
        elif what == "tags":
            reader.push(0, parts(daemon.publish(make.tags())), now_s)
        elif what == "beat":
            reader.push(0, parts(daemon.beat()), now_s)
        elif what == "twice" and daemon.kept:
            reader.push(0, parts(daemon.kept[-1]), now_s)
        elif what == "replay" and daemon.kept:
            reader.push(0, parts(msgspec.structs.replace(daemon.kept[-1], replay=True)), now_s)
            reader.push(0, parts(daemon.beat(replay=True)), now_s)
        elif what in ("restart", "new store"):
            runs += 1
            if what == "new store":
                # Messages of the old store can't be requested any more: bring the reader up to date first.
                for _ in range(200):
                    now_s += 4.0
                    reader.push(0, parts(daemon.beat()), now_s)
                    for request in reader.requests(now_s):
                        reader.push_reply(daemon.answer(request, page), now_s)
                daemon.restart(f"r{runs}", store=f"s{runs}")
            else:
                daemon.restart(f"r{runs}")
        elif what == "ask":
            requests = reader.requests(now_s) or requests
        elif what == "late" and requests:
            late.append(daemon.answer(requests[-1], page))
        elif what == "answer" and requests:
            for answer in (*late, daemon.answer(requests.pop(), page)):
                reader.push_reply(answer, now_s)
            late.clear()
            reader.push(0, parts(daemon.beat()), now_s)
        got += taken(reader)
    stored = [one for one in got if one.stored_seq]
    expected = [one for one in everything if topic(one).startswith(topics)]
    assert [msgspec.structs.replace(one, replay=False) for one in stored] == expected
    assert reader.position[daemon.store] == len(daemon.kept)
    assert not [one for one in reader.gaps if "unavailable" in str(one)]


def test_a_cursor_requests_messages_from_its_position() -> None:
    cursor, daemon = Cursor("s1"), SimulatedDaemon()
    cursor.through(0)
    behind = [cursor.behind]
    one, two, three = (Stored("t", daemon.publish(make.onset()), caught_up=False) for _ in range(3))
    cursor.live(three)
    behind.append(cursor.behind)
    assert behind == [False, True]
    assert cursor.take() is None
    assert cursor.reply(0, 1, 1, [one]) is None
    assert cursor.take() == one
    assert cursor.skip_gap() == Gap(2, 2)
    assert cursor.take() == three
    assert (cursor.position, two.message.stored_seq) == (3, 2)


def test_unavailable_messages_are_reported_and_skipped() -> None:
    daemon, reader = SimulatedDaemon(), inbox()
    reader.push(0, parts(daemon.beat()), 0.0)
    for _ in range(10):
        daemon.publish(make.status())
    daemon.oldest = 5
    reader.push(0, parts(daemon.publish(make.onset())), 1.0)
    (request,) = reader.requests(1.0)
    reader.push_reply(daemon.answer(request), 1.1)
    assert [one.stored_seq for one in taken(reader) if one.stored_seq] == list(range(5, 12))
    assert str(reader.gaps.pop()) == (
        "publisher earwitness: stored messages 1 to 4 were removed from its store (`store.keep_days`, `store.keep_mb`)"
    )
    daemon.publish(make.status())
    reader.push(0, parts(daemon.publish(make.offset())), 2.0)
    asked = [bool(reader.requests(2.0 + after_s)) for after_s in (0.0, 1.0, 3.1, 6.2)]
    assert asked == [True, False, True, True]
    assert taken(reader) == []
    # A silent daemon is asked without limit; one that sends heartbeats but no replies is given up after a while.
    assert reader.requests(100.0)
    assert not reader.gaps
    reader.push(0, parts(daemon.beat()), 100.0)
    assert not reader.requests(100.1)
    assert [one.stored_seq for one in taken(reader) if one.stored_seq] == [13]
    assert str(reader.gaps.pop()) == (
        f"publisher earwitness: stored messages 12 to 12 are unavailable: {CATCH_UP} does not answer"
    )
    assert reader.missed == {"earwitness": 5}


def test_a_daemon_without_catch_up_endpoint_is_read_live_only() -> None:
    daemon, reader = SimulatedDaemon(), inbox()
    reader.push(0, parts(daemon.beat(catch_up="")), 0.0)
    daemon.publish(make.onset())
    reader.push(0, parts(daemon.publish(make.offset())), 1.0)
    assert reader.requests(1.0) == []
    assert [one.stored_seq for one in taken(reader)] == [0, 2]
    assert reader.missed == {"earwitness": 1}


def test_the_position_is_that_of_the_last_taken_message() -> None:
    daemon, reader = SimulatedDaemon(), inbox(("event/",))
    reader.push(0, parts(daemon.beat()), 0.0)
    for _ in range(3):
        reader.push(0, parts(daemon.publish(make.onset())), 0.0)
        reader.push(0, parts(daemon.publish(make.status())), 0.0)
    positions = [reader.position["s1"]]
    while reader.take() is not None:
        positions.append(reader.position["s1"])
    assert positions == [0, 2, 4, 6]
    again = inbox(("event/",), {"s1": 2, "elsewhere": 7})
    again.push(0, parts(daemon.beat(replay=True)), 0.0)
    again.push(0, parts(msgspec.structs.replace(daemon.kept[0], replay=True)), 0.0)  # received before
    (request,) = again.requests(0.0)
    again.push_reply(daemon.answer(request), 0.1)
    assert [one.stored_seq for one in taken(again)] == [3, 5]
    assert again.position == {"s1": 6, "elsewhere": 7}


def test_a_new_store_is_read_from_its_beginning_and_reported() -> None:
    daemon, reader = SimulatedDaemon(), inbox()
    reader.push(0, parts(daemon.beat()), 0.0)
    reader.push(0, parts(daemon.publish(make.onset())), 0.0)
    daemon.restart("r2", store="s2")
    daemon.publish(make.status())
    reader.push(0, parts(daemon.publish(make.offset())), 1.0)
    reader.push(0, parts(daemon.beat()), 1.0)
    (request,) = reader.requests(1.0)
    reader.push_reply(daemon.answer(request), 1.1)
    assert [(one.store, one.stored_seq) for one in taken(reader) if one.stored_seq] == [("s1", 1), ("s2", 1), ("s2", 2)]
    assert [str(one) for one in reader.gaps] == [
        "publisher earwitness: it has a new event store, s2, which is read from its beginning"
    ]
    assert reader.position == {"s2": 2}


def test_numbers_that_go_back_are_reported_and_followed() -> None:
    """A store that was restored from a backup."""
    daemon, reader = SimulatedDaemon(), inbox()
    reader.push(0, parts(daemon.beat()), 0.0)
    for _ in range(5):
        reader.push(0, parts(daemon.publish(make.onset())), 0.0)
    daemon.restart("r2")
    del daemon.kept[2:]
    reader.push(0, parts(daemon.publish(make.status())), 1.0)
    assert [one.stored_seq for one in taken(reader) if one.stored_seq] == [1, 2, 3, 4, 5, 3]
    assert "went back from 5 to 3" in str(reader.gaps.pop())


def test_a_message_sent_while_the_store_failed_is_delivered_once() -> None:
    daemon, reader = SimulatedDaemon(), inbox()
    reader.push(0, parts(daemon.beat()), 0.0)
    live = [daemon.numberer.number(make.onset(event_id=event_id)) for event_id in "abc"]
    for one in (live[0], live[2]):  # the second is lost
        reader.push(0, parts(one), 0.0)
    for one in live:
        daemon.kept.append(msgspec.structs.replace(one, store="s1", stored_seq=len(daemon.kept) + 1))
    reader.push(0, parts(daemon.publish(make.offset())), 1.0)
    (request,) = reader.requests(1.0)
    reader.push_reply(daemon.answer(request), 1.1)
    assert [one.seq for one in taken(reader)[1:]] == [2, 4, 3, 5]  # the heartbeat has seq 1
    assert reader.missed == {}


def test_two_endpoints_of_one_daemon_deliver_each_message_once() -> None:
    daemon, reader = SimulatedDaemon(), inbox(("event/",))
    for source in (0, 1):
        reader.push(source, parts(daemon.beat()), 0.0)
    for _ in range(3):
        message = daemon.publish(make.onset())
        for source in (0, 1):
            reader.push(source, parts(message), 0.0)
    assert [one.stored_seq for one in taken(reader)] == [1, 2, 3]


def test_an_invalid_reply_is_an_error() -> None:
    for frames in ([], [b""], [b"hello"], [b'{"since": "x"}']):
        with pytest.raises(WireError, match="not a catch-up reply"):
            inbox().push_reply(frames, 0.0)
    inbox().push_reply([b'{"request": 7}'], 0.0)  # there was no such request


@pytest.mark.parametrize(
    ("endpoint", "announced", "expected"),
    [
        ("tcp://127.0.0.1:5557", "tcp://127.0.0.1:5558", "tcp://127.0.0.1:5558"),
        ("tcp://localhost:5557", "tcp://127.0.0.1:5558", "tcp://127.0.0.1:5558"),
        ("tcp://10.1.2.3:5557", "tcp://0.0.0.0:5558", "tcp://10.1.2.3:5558"),
        ("tcp://[fe80::1]:5557", "tcp://[::]:5558", "tcp://[fe80::1]:5558"),
        ("tcp://127.0.0.1:5557", "tcp://192.168.1.1:5558", "tcp://127.0.0.1:5558"),  # through a tunnel
        ("ipc:///run/live", "ipc:///run/live.catch-up", "ipc:///run/live.catch-up"),
    ],
)
def test_catch_up_endpoint(endpoint: str, announced: str, expected: str) -> None:
    assert catch_up_endpoint(endpoint, announced) == expected
