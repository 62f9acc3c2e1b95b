"""Replies to requests for missed messages, with plain ZeroMQ sockets; clients do not affect each other."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from streamer.client import Subscriber
from streamer.errors import SinkError
from streamer.sinks.access import Access
from streamer.sinks.catch_up import LIMIT, LIMIT_BYTES, CatchUp
from streamer.sinks.keys import ClientKey, KeyFolder
from streamer.sinks.store.retention import Limits
from streamer.sinks.store.tables import Storable
from streamer.sinks.store.writing import Store
from streamer.sinks.wire import Message, decode, topic
from streamer.sinks.zmq import ZmqSink
from tests import messages as make
from tests.listeners import wait_for
from tests.sinks.test_store import AMPLE, event, numbered


@contextmanager
def answering(path: Path) -> Iterator[CatchUp]:
    catch_up = CatchUp("tcp://127.0.0.1:0", path, "earwitness")
    catch_up.start()
    try:
        yield catch_up
    finally:
        catch_up.close()
    catch_up.check()


def filled(path: Path, events: int = 10) -> list[Storable]:
    """A store with `events` events, each followed by a status."""
    numberer = make.numberer()
    with closing(Store(path, AMPLE)) as store:
        return [
            one
            for number in range(events)
            for one in store.append([*event(numberer, f"e{number}"), numbered(numberer, make.status("cam2"))])
        ]


@contextmanager
def asking(catch_up: CatchUp, kind: int = zmq.DEALER) -> Iterator[Callable[..., tuple[dict[str, Any], list[bytes]]]]:
    context = zmq.Context()
    socket = context.socket(kind)
    socket.connect(catch_up.endpoint)

    def ask(data: bytes | None = None, wait_ms: int = 10_000, **fields: object) -> tuple[dict[str, Any], list[bytes]]:
        socket.send(json.dumps(fields).encode() if data is None else data)
        assert socket.poll(wait_ms)
        head, *messages = socket.recv_multipart()
        return json.loads(head), messages

    try:
        yield ask
    finally:
        context.destroy(linger=0)


def counted(catch_up: CatchUp, result: str, count: int) -> None:
    """A reply is sent before it is counted."""
    wait_for(lambda: catch_up.results[result] == count, lambda: time.sleep(0.001))


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_a_reply_has_the_messages_after_a_number_as_stored(tmp_path: Path, kind: int) -> None:
    kept = filled(tmp_path / "s")
    with answering(tmp_path / "s") as catch_up, asking(catch_up, kind) as ask:
        head, messages = ask(since=7, request=42)
        assert [decode(one) for one in messages] == kept[7:]
        assert head == {
            "schema": 1,
            "publisher": "earwitness",
            "store": kept[0].store,
            "since": 7,
            "through": 30,
            "oldest": 1,
            "newest": 30,
            "more": False,
            "request": 42,
            "error": "",
        }
        assert ask(since=30)[1] == []
        assert ask(since=30)[0]["through"] == 30
        assert [decode(one) for one in ask()[1]] == kept
        counted(catch_up, "answered", 4)
        assert catch_up.results.total() == 4
        assert catch_up.messages == 53


def test_a_reply_has_only_matching_messages_and_how_far_it_reaches(tmp_path: Path) -> None:
    kept = filled(tmp_path / "s")
    with answering(tmp_path / "s") as catch_up, asking(catch_up) as ask:
        for topics in (["event/cam/Dog/"], ["event/cam/"], ["event/"]):
            head, messages = ask(since=3, topics=topics)
            assert [decode(one) for one in messages] == [one for one in kept[3:] if topic(one).startswith("event/")]
            assert (head["through"], head["more"]) == (30, False)
        assert len(ask(topics=["event/cam/", "status/cam2/"])[1]) == 30
        assert ask(topics=["event/ca/", "tags/"])[1] == []
        head, messages = ask(topics=["status/"], limit=3)
        assert [decode(one).stored_seq for one in messages] == [3, 6, 9]
        assert (head["through"], head["more"]) == (11, True)  # there is no status in between
        assert ask(topics=[])[1] == []


def test_a_reply_is_bounded_and_has_more_set(tmp_path: Path) -> None:
    filled(tmp_path / "s", 500)
    with answering(tmp_path / "s") as catch_up, asking(catch_up) as ask:
        since, got, pages = 0, [], 0
        while True:
            head, messages = ask(since=since, limit=10**9)
            assert len(messages) <= LIMIT
            assert sum(map(len, messages)) <= LIMIT_BYTES
            assert head["since"] == since
            got += [decode(one).stored_seq for one in messages]
            since, pages = head["through"], pages + 1
            if not head["more"]:
                break
        assert got == list(range(1, 1501))
        assert 3 <= pages <= 6
        # If nothing matches, the number of messages that one page reads is bounded too.
        head, messages = ask(topics=["event/none/"])
        assert (messages, head["through"], head["more"]) == ([], 1000, True)


def test_another_store_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "s"
    kept = filled(path)
    with answering(path) as catch_up, asking(catch_up) as ask:
        head, messages = ask(since=20, store="an-older-one")
        assert (head["store"], head["since"], len(messages)) == (kept[0].store, 0, 30)
        path.unlink()
        head, messages = ask(since=20, store=kept[0].store)
        assert (head["error"], messages) == ("the event store can't be read at the moment; retry later", [])
        counted(catch_up, "failed", 1)
        filled(path, 2)
        head, messages = ask(since=20, store=kept[0].store)
        assert (head["since"], head["through"], len(messages)) == (0, 6, 6)
        assert head["store"] != kept[0].store


def test_a_reply_shows_which_messages_were_removed(tmp_path: Path) -> None:
    path, numberer = tmp_path / "s", make.numberer()
    with closing(Store(path, Limits(10_000, 200_000))) as store:
        store.append(event(numberer, "a"))
        for _ in range(20):
            store.append([numbered(numberer, make.status()) for _ in range(50)])
            store.alive(0.0)
    with answering(path) as catch_up, asking(catch_up) as ask:
        head, messages = ask()
        first = decode(messages[2]).stored_seq
        assert (len(messages), head["oldest"]) == (min(LIMIT, len(messages)), first)
        assert first > 3
        head, messages = ask(topics=["event/"])
        assert (len(messages), head["oldest"]) == (2, 1)


GARBAGE = [
    b"",
    b"hello",
    b"[]",
    b"\xff\xfe\x00",
    b"null",
    b'{"since": -1}',
    b'{"since": "7"}',
    b'{"since": 1e400}',
    b'{"since": 99999999999999999999}',
    b'{"topics": "event/"}',
    json.dumps({"topics": [""] * 101}).encode(),
    json.dumps({"topics": ["x" * 5000]}).encode(),
    b'{"limit": 0}',
    b"[" * 5000,
    b'{"since": 1' + b" " * 10_000,
]


def test_an_invalid_request_is_counted_and_gets_an_error(tmp_path: Path) -> None:
    kept = filled(tmp_path / "s")
    with answering(tmp_path / "s") as catch_up, asking(catch_up) as ask:
        for number, data in enumerate(GARBAGE, 1):
            head, messages = ask(data)
            assert head["error"].startswith(("not a request: ", "a request is one frame of JSON")), data
            assert messages == []
            counted(catch_up, "garbage", number)
        assert len(ask()[1]) == len(kept)


def test_a_too_long_request_closes_only_its_own_connection(tmp_path: Path) -> None:
    filled(tmp_path / "s")
    context = zmq.Context()
    try:
        with answering(tmp_path / "s") as catch_up, asking(catch_up) as ask:
            socket = context.socket(zmq.DEALER)
            socket.connect(catch_up.endpoint)
            for _ in range(20):
                socket.send(os.urandom(100_000))
                socket.send_multipart([b"a", b"b", b"c"])
            assert len(ask()[1]) == 30
            counted(catch_up, "answered", 1)
    finally:
        context.destroy(linger=0)


def test_clients_that_do_not_read_or_disconnect_do_not_affect_others(tmp_path: Path) -> None:
    filled(tmp_path / "s", 500)
    context = zmq.Context()
    try:
        with answering(tmp_path / "s") as catch_up, asking(catch_up) as ask:
            deaf = [context.socket(zmq.DEALER) for _ in range(3)]
            for socket in deaf:
                socket.set(zmq.RCVHWM, 1)
                socket.set(zmq.RCVBUF, 4096)
                socket.connect(catch_up.endpoint)
                for _ in range(200):
                    socket.send(b"{}")
            slowest_s = 0.0
            for _ in range(50):
                began_s = time.monotonic()
                assert len(ask(since=1400)[1]) == 100
                slowest_s = max(slowest_s, time.monotonic() - began_s)
            assert slowest_s < 2.0
            wait_for(lambda: catch_up.results["slow"] > 0, lambda: time.sleep(0.05))
            for socket in deaf:
                socket.send(b"{}")
                socket.close(linger=0)
            assert len(ask(since=1400)[1]) == 100
    finally:
        context.destroy(linger=0)


def test_a_store_is_read_completely_while_it_is_written(tmp_path: Path) -> None:
    path, numberer = tmp_path / "s", make.numberer()
    stop = threading.Event()

    def write() -> None:
        with closing(Store(path, AMPLE)) as store:
            while not stop.is_set():
                store.append(event(numberer, "e"))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with answering(path) as catch_up, asking(catch_up) as ask:
            since = 0
            end_s = time.monotonic() + 2.0
            while time.monotonic() < end_s or since < 100:
                head, messages = ask(since=since)
                if head["error"]:
                    time.sleep(0.05)  # it is not complete yet
                    continue
                assert [decode(one).stored_seq for one in messages] == list(range(since + 1, head["through"] + 1))
                since = head["through"]
    finally:
        stop.set()
        writer.join(10)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_unusable_endpoint_is_one_line(tmp_path: Path) -> None:
    with answering(tmp_path / "s") as catch_up:
        with pytest.raises(SinkError, match="is in use"):
            CatchUp(catch_up.endpoint, tmp_path / "s", "earwitness")
        with pytest.raises(SinkError, match="need keys"):
            CatchUp("tcp://0.0.0.0:0", tmp_path / "s", "earwitness")


def test_with_keys_only_allowed_clients_catch_up(tmp_path: Path) -> None:
    """Both sockets share one `Access`: revoking a key disconnects both."""
    path, keys = tmp_path / "s", KeyFolder(tmp_path / "keys")
    keys.new("kitchen", tmp_path / "kitchen.key")
    key = ClientKey.load(tmp_path / "kitchen.key")
    kept = filled(path)
    access = Access(keys)
    sink = ZmqSink("tcp://127.0.0.1:0", access=access)
    catch_up = CatchUp("tcp://127.0.0.1:0", path, "earwitness", access)
    catch_up.start()
    beat = msgspec.structs.replace(
        make.numberer().number(make.heartbeat()),
        store=kept[0].store,
        stored_through=30,
        catch_up=catch_up.endpoint,
    )
    got: list[Message] = []

    def receive(messages: Subscriber) -> None:
        sink.send(beat)
        sink.poll(0.01)
        message = messages.receive(0.05)
        got.extend([message] if message is not None else [])

    context = zmq.Context()
    keyless = context.socket(zmq.DEALER)
    try:
        with Subscriber(sink.endpoint, ["event/"], key=key, since=0) as messages:
            wait_for(lambda: len(got) == 20, lambda: receive(messages))
            assert got == [one for one in kept if topic(one).startswith("event/")]
            before = access.refusals.counts.total()
            keyless.connect(catch_up.endpoint)
            keyless.send(b"{}")
            wait_for(lambda: access.refusals.counts.total() > before, lambda: time.sleep(0.02))
            assert not keyless.poll(200)
            keys.revoke("kitchen")
            revoked = access.refusals.counts["revoked_key"]
            wait_for(lambda: access.refusals.counts["revoked_key"] > revoked, lambda: sink.poll(0.05))
        with asking(catch_up) as ask, pytest.raises(AssertionError):
            ask(wait_ms=500)
    finally:
        context.destroy(linger=0)
        catch_up.close()
        sink.close()
    catch_up.check()
