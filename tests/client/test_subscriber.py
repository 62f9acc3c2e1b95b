"""The subscriber: what it delivers and counts, and how it reports silent publishers."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from streamer.client import Subscriber
from streamer.client.order import Order
from streamer.errors import HeartbeatLostError, UsageError, WireError
from streamer.sinks.base import Numberer
from streamer.sinks.wire import HeartbeatMessage, Message, OnsetMessage, StatusMessage, encode, topic
from streamer.sinks.zmq import ZmqSink
from tests import messages as make
from tests.listeners import wait_for
from tests.rtsp import free_port


class Sender:
    """A publisher in its own thread, as in the daemon, that sends the messages it is given."""

    def __init__(self, endpoint: str = "tcp://127.0.0.1:0", publisher: str = "earwitness", run: str = "r1") -> None:
        self._sink = ZmqSink(endpoint)
        self.endpoint = self._sink.endpoint
        self._numberer = make.numberer(publisher, run)
        self._to_send: list[Message] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def publish(self, *sent: Message) -> None:
        with self._lock:
            self._to_send.extend(sent)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set() or self._to_send:
            with self._lock:
                batch, self._to_send = self._to_send, []
            for message in batch:
                self._sink.send(self._numberer.number(message))
            self._sink.poll(0.005)
        self._sink.close()


@contextmanager
def sending(
    endpoint: str = "tcp://127.0.0.1:0", publisher: str = "earwitness", run: str = "r1", stream: str = "cam"
) -> Iterator[Sender]:
    """A publisher whose only stream has a status, so that a subscriber can tell when it is connected."""
    sender = Sender(endpoint, publisher, run)
    sender.publish(make.status(stream))
    try:
        yield sender
    finally:
        sender.close()


@contextmanager
def raw_publisher() -> Iterator[tuple[str, zmq.Socket[bytes]]]:
    """A socket for sending raw messages, and its endpoint."""
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    try:
        yield f"tcp://127.0.0.1:{port}", socket
    finally:
        context.destroy(linger=0)


def _send_raw(socket: zmq.Socket[bytes], *sent: Message) -> None:
    for message in sent:
        socket.send_multipart([topic(message).encode(), encode(message)])


def test_iteration_yields_typed_messages_and_ends_after_the_timeout() -> None:
    with sending() as sender, Subscriber(sender.endpoint, timeout_s=0.5) as messages:
        assert isinstance(next(messages), StatusMessage)
        sender.publish(make.onset(), make.offset())
        assert [message.seq for message in messages] == [2, 3]
        assert messages.receive(0.0) is None
        assert messages.missed == {}
    messages.close()


def test_one_prefix_may_be_given_as_a_string() -> None:
    with sending() as sender, Subscriber(sender.endpoint, "status/") as messages:
        assert isinstance(messages.receive(5), StatusMessage)


def test_losses_are_counted_by_seq_if_everything_is_subscribed_to() -> None:
    numberer = make.numberer()
    sent = [numberer.number(make.onset(label=label)) for label in "abcdefgh"]
    with raw_publisher() as (endpoint, socket), Subscriber(endpoint) as messages:
        assert socket.poll(5000)
        _send_raw(socket, *sent[:3], sent[5])  # 4 and 5 are lost
        _send_raw(socket, msgspec.structs.replace(sent[6], replay=True), sent[7])  # 7 is only replayed
        got = [messages.receive(5) for _ in range(6)]
        assert [message.seq for message in got if message] == [1, 2, 3, 6, 7, 8]
        assert messages.missed == {"earwitness": 2}


def test_losses_are_counted_by_topic_otherwise() -> None:
    numberer = make.numberer()
    sent = [numberer.number(message) for message in (make.onset(), make.tags(), make.offset(), make.onset())]
    with raw_publisher() as (endpoint, socket), Subscriber(endpoint, ["event/"]) as messages:
        assert socket.poll(5000)
        _send_raw(socket, sent[0], sent[1], sent[3])
        got = [messages.receive(5) for _ in range(2)]
        assert [message.seq for message in got if message] == [1, 4]
        assert messages.missed == {"earwitness": 1}


@given(st.lists(st.tuples(st.sampled_from(["Dog", "Speech", "Cat"]), st.booleans()), max_size=40), st.booleans())
def test_losses_are_counted_exactly_and_nothing_is_delivered_twice(
    sent: list[tuple[str, bool]], everything: bool
) -> None:
    """`sent`: topic, and whether it arrives. Each message that arrives does so twice, as over two endpoints."""
    order = Order(everything=everything)
    numberer = make.numberer()
    arrived: dict[str, list[Message]] = defaultdict(list)
    for label, arrives in sent:
        message = numberer.number(make.onset(label=label))
        if arrives:
            arrived[label if not everything else ""].append(message)
            assert order.push(label, message)
            assert not order.push(label, message)
            assert not order.push(label, msgspec.structs.replace(message, replay=True))
    expected = 0
    for group in arrived.values():
        numbers = [message.seq if everything else message.topic_seq for message in group]
        expected += sum(later - earlier - 1 for earlier, later in itertools.pairwise(numbers))
    assert sum(order.missed.values()) == expected


def test_two_publishers_are_distinguished() -> None:
    with (
        sending(publisher="north", stream="n") as north,
        sending(publisher="south", stream="s") as south,
        Subscriber([north.endpoint, south.endpoint]) as messages,
    ):
        assert {message.publisher for message in (messages.receive(5), messages.receive(5)) if message} == {
            "north",
            "south",
        }
        for _ in range(20):
            north.publish(make.onset("n"), make.offset("n"))
            south.publish(make.tags("s"))
        got = [messages.receive(5) for _ in range(60)]
        by_publisher = {name: [m.seq for m in got if m and m.publisher == name] for name in ("north", "south")}
        assert by_publisher == {"north": list(range(2, 42)), "south": list(range(2, 22))}
        assert messages.missed == {}


def test_a_restarted_publisher_is_received_from_its_first_message() -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with Subscriber(endpoint, ["status/", "event/"]) as messages:
        for run in ("r1", "r2", "r3"):
            with sending(endpoint, run=run) as sender:
                status = messages.receive(10)
                assert isinstance(status, StatusMessage)
                assert status.run == run
                sender.publish(make.onset(), make.offset())
                assert [m.seq for m in (messages.receive(5), messages.receive(5)) if m] == [2, 3]
        assert messages.missed == {}


def test_a_reconnected_subscriber_receives_nothing_twice() -> None:
    """The connection breaks but the publisher does not: it replays messages that were received before."""
    with sending() as sender:
        sender.publish(make.onset())
        with Subscriber(sender.endpoint, ["status/", "event/"]) as messages:
            assert [m.seq for m in (messages.receive(5), messages.receive(5)) if m] == [1, 2]
            socket = messages._feed.live[0].socket
            socket.disconnect(sender.endpoint)
            time.sleep(0.1)
            socket.connect(sender.endpoint)
            assert messages.receive(0.5) is None
            sender.publish(make.offset())
            offset = messages.receive(5)
            assert offset is not None
            assert offset.seq == 3


def test_an_absent_publisher_is_reported() -> None:
    with Subscriber(f"tcp://127.0.0.1:{free_port()}", lost_after_s=0.3) as messages:
        for _ in range(2):
            with pytest.raises(HeartbeatLostError, match=r"nothing heard for 0 s; is a daemon running\?") as raised:
                next(messages)
            assert raised.value.publisher is None


def test_a_silent_publisher_is_reported_once_and_may_return() -> None:
    lost: list[str | None] = []
    with (
        sending() as sender,
        Subscriber(
            sender.endpoint, ["event/"], lost_after_s=0.1, on_lost=lambda error: lost.append(error.publisher)
        ) as messages,
    ):
        # The heartbeat is received although its topic was not requested, and it is not delivered.
        sender.publish(make.onset())
        assert isinstance(messages.receive(5), OnsetMessage)
        for _ in range(4):
            sender.publish(make.heartbeat(interval_s=0.3))
            assert messages.receive(0.2) is None
        assert lost == []  # the heartbeat interval is 0.3 s, so 0.1 s of silence is not an error
        assert messages.receive(0.8) is None
        assert lost[:1] == ["earwitness"]
        assert "earwitness" not in lost[1:]
        sender.publish(make.offset())
        assert messages.receive(5) is not None


def test_a_busy_reader_does_not_report_a_lost_publisher() -> None:
    with sending() as sender, Subscriber(sender.endpoint, lost_after_s=0.3) as messages:
        assert isinstance(messages.receive(5), StatusMessage)
        for _ in range(8):
            sender.publish(make.heartbeat(interval_s=0.1))
            time.sleep(0.1)
        got = [messages.receive(0.01) for _ in range(8)]
        assert all(isinstance(message, HeartbeatMessage) for message in got)


def test_a_newer_schema_is_an_error_and_an_unknown_type_is_none() -> None:
    numberer: Numberer = make.numberer()
    first, second, third = (numberer.number(make.tags()) for _ in range(3))
    clip = {**json.loads(encode(second)), "type": "clip"}
    newer = {"schema": 9, "type": "onset"}
    with raw_publisher() as (endpoint, socket), Subscriber(endpoint) as messages:
        assert socket.poll(5000)
        _send_raw(socket, first)
        socket.send_multipart([b"clip/cam/", json.dumps(clip).encode()])
        _send_raw(socket, third)
        socket.send_multipart([b"event/cam/Dog/", json.dumps(newer).encode()])
        socket.send_multipart([b"hello"])
        socket.send_multipart([b"a", b"b"])
        assert [m.seq for m in (messages.receive(5), messages.receive(5)) if m] == [1, 3]
        assert messages.missed == {}
        with pytest.raises(WireError, match=r"schema 9.*update it"):
            messages.receive(5)
        with pytest.raises(WireError, match="1 parts instead of 2"):
            next(messages)
        with pytest.raises(WireError, match="not a message"):
            next(messages)
        _send_raw(socket, numberer.number(make.tags()))
        message = messages.receive(5)
        assert message is not None
        assert message.seq == 4


@pytest.mark.parametrize("endpoint", ["", "nowhere", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "http://127.0.0.1:5557"])
def test_an_invalid_endpoint_is_one_line(endpoint: str) -> None:
    with pytest.raises(UsageError, match="is not an endpoint to subscribe to; use tcp://HOST:PORT") as raised:
        Subscriber(endpoint)
    assert "\n" not in str(raised.value)


def test_a_subscriber_may_start_before_the_publisher() -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    got: list[Message | None] = []
    with Subscriber(endpoint) as messages:
        assert messages.receive(0.2) is None
        with sending(endpoint):
            wait_for(lambda: bool(got), lambda: got.append(messages.receive(5)))
    assert isinstance(got[0], StatusMessage)
