"""The ZeroMQ sink, with real subscribers in other processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq

from streamer.client import Subscriber
from streamer.errors import SinkError
from streamer.sinks.base import Numberer
from streamer.sinks.wire import Message, decode, encode, topic
from streamer.sinks.zmq import ZmqSink
from tests import messages as make
from tests.listeners import LISTEN, NODE, listening, needs_node, wait_for


@contextmanager
def publishing(endpoint: str = "tcp://127.0.0.1:0", queue_messages: int = 10_000) -> Iterator[ZmqSink]:
    sink = ZmqSink(endpoint, queue_messages)
    try:
        yield sink
    finally:
        sink.close()


def _send(sink: ZmqSink, numberer: Numberer, *sent: Message) -> list[Message]:
    numbered = [numberer.number(message) for message in sent]
    for message in numbered:
        sink.send(message)
    return numbered


def _replayed(message: Message) -> Message:
    return msgspec.structs.replace(message, replay=True)


def test_a_late_subscriber_in_another_process_receives_the_current_state_then_new_messages() -> None:
    with publishing() as sink:
        numberer = make.numberer()
        status, _, _, open_event = _send(
            sink, numberer, make.status(), make.onset(event_id="a"), make.offset(event_id="a"), make.onset(event_id="b")
        )
        with listening(*LISTEN, sink.endpoint, "--count", "3") as listener:
            wait_for(lambda: len(listener.lines) == 2, lambda: sink.poll(0.02))
            (offset,) = _send(sink, numberer, make.offset(event_id="b"))
            assert listener.wait() == 0
        got = [decode(line.encode()) for line in listener.lines]
        assert got == [_replayed(status), _replayed(open_event), offset]


@needs_node
def test_node_reads_what_was_sent() -> None:
    with publishing() as sink:
        numberer = make.numberer()
        (status,) = _send(sink, numberer, make.status())
        with listening(*NODE, sink.endpoint, "7") as listener:
            wait_for(lambda: len(listener.lines) == 1, lambda: sink.poll(0.02))
            sent = _send(
                sink,
                numberer,
                make.onset(label="Töne, 1/2"),
                make.offset(label="Töne, 1/2"),
                make.tags(),
                make.scores(),
                make.status(state="backoff"),
                make.heartbeat(),
            )
            assert listener.wait() == 0, listener.errors()
        got = [json.loads(line) for line in listener.lines]
        expected = [_replayed(status), *sent]
        assert [one["topic"] for one in got] == [topic(message) for message in expected]
        assert [one["message"] for one in got] == [json.loads(encode(message)) for message in expected]


@needs_node
def test_in_node_too_a_prefix_does_not_match_a_longer_name() -> None:
    with publishing() as sink:
        numberer = make.numberer()
        _send(sink, numberer, make.status("cam2"), make.onset("cam2"), make.status("cam"), make.onset("cam"))
        with listening(*NODE, sink.endpoint, "3", "event/cam/", "status/cam/") as listener:
            wait_for(lambda: len(listener.lines) == 2, lambda: sink.poll(0.02))
            _send(sink, numberer, make.offset("cam2"), make.tags("cam"), make.offset("cam"))
            assert listener.wait() == 0, listener.errors()
        assert [json.loads(line)["message"]["seq"] for line in listener.lines] == [3, 4, 7]


def test_a_prefix_does_not_match_a_longer_name() -> None:
    with publishing() as sink, Subscriber(sink.endpoint, ["event/cam/", "status/cam/"]) as messages:
        numberer = make.numberer()
        _send(sink, numberer, make.status("cam2"), make.status("cam"))
        first: list[Message] = []
        wait_for(lambda: bool(first), lambda: _receive(sink, messages, first))
        _send(sink, numberer, make.onset("cam2"), make.tags("cam"), make.onset("cam"), make.offset("cam2"))
        second = messages.receive(5.0)
        assert [(type(m), m.stream) for m in (first[0], second)] == [  # type: ignore[union-attr]
            (type(make.status()), "cam"),
            (type(make.onset()), "cam"),
        ]
        assert messages.receive(0.2) is None


def _receive(sink: ZmqSink, messages: Subscriber, into: list[Message]) -> None:
    sink.poll(0.01)
    message = messages.receive(0.01)
    if message is not None:
        into.append(message)


def test_each_new_subscriber_receives_the_state_and_others_receive_it_marked_as_replay() -> None:
    with publishing() as sink:
        (status,) = _send(sink, make.numberer(), make.status())
        context = zmq.Context()
        raw = context.socket(zmq.SUB)  # like any other program's: does not filter replays
        raw.connect(sink.endpoint)
        raw.subscribe("status/")
        got: list[Message] = []
        try:
            wait_for(lambda: bool(raw.poll(10)), lambda: sink.poll(0.01))
            assert decode(raw.recv_multipart()[1]) == _replayed(status)
            with Subscriber(sink.endpoint, ["status/"]) as first:
                wait_for(lambda: len(got) == 1, lambda: _receive(sink, first, got))
                with Subscriber(sink.endpoint, ["status/"]) as second:
                    wait_for(lambda: len(got) == 2, lambda: _receive(sink, second, got))
                    assert first.receive(0.2) is None
            assert got == [_replayed(status)] * 2
            assert decode(raw.recv_multipart()[1]) == _replayed(status)
        finally:
            context.destroy(linger=0)


def test_only_a_frozen_subscriber_loses_messages_and_it_costs_no_memory() -> None:
    with publishing(queue_messages=500) as sink:
        numberer = make.numberer()
        _send(sink, numberer, make.status())
        with listening(*LISTEN, sink.endpoint) as frozen, Subscriber(sink.endpoint) as healthy:
            got: list[Message] = []
            wait_for(lambda: bool(got) and bool(frozen.lines), lambda: _receive(sink, healthy, got))
            os.kill(frozen.process.pid, signal.SIGSTOP)
            before = psutil.Process().memory_info().rss
            slowest_s, count, received = 0.0, 30_000, 0
            for index in range(count):
                message = numberer.number(make.tags())
                began_s = time.perf_counter()
                sink.send(message)
                slowest_s = max(slowest_s, time.perf_counter() - began_s)
                if index % 100 == 99:
                    while received < index + 1 and healthy.receive(5.0) is not None:
                        received += 1
            grown_mb = (psutil.Process().memory_info().rss - before) / 1e6
            assert received == count
            assert not healthy.missed["earwitness"]
            assert sink.overflows >= 1
            assert grown_mb < 20
            assert slowest_s < 1.0
            os.kill(frozen.process.pid, signal.SIGCONT)
            # It resumes, having missed some.
            wait_for(lambda: '"heartbeat"' in frozen.lines[-1], lambda: _beat(sink, numberer))
            assert len(frozen.lines) < count


def _beat(sink: ZmqSink, numberer: Numberer) -> None:
    sink.send(numberer.number(make.heartbeat()))
    time.sleep(0.05)


def test_closing_sends_what_is_queued() -> None:
    with publishing() as sink:
        numberer = make.numberer()
        _send(sink, numberer, make.status())
        with listening(*LISTEN, sink.endpoint, "--count", "3001", "--timeout", "20") as listener:
            wait_for(lambda: bool(listener.lines), lambda: sink.poll(0.02))
            _send(sink, numberer, *[make.tags()] * 3000)
            sink.close()
            assert listener.wait() == 0, listener.errors()


def test_closing_does_not_wait_for_a_frozen_subscriber() -> None:
    with publishing() as sink:
        numberer = make.numberer()
        _send(sink, numberer, make.status())
        with listening(*LISTEN, sink.endpoint) as frozen:
            wait_for(lambda: bool(frozen.lines), lambda: sink.poll(0.02))
            os.kill(frozen.process.pid, signal.SIGSTOP)
            _send(sink, numberer, *[make.scores()] * 9000)
            began_s = time.monotonic()
            sink.close()
            assert time.monotonic() - began_s < 3.0


@pytest.mark.parametrize(
    "host", ["*", "0.0.0.0", "192.168.1.5", "10.0.0.1", "eth0", "lo", "[::]", "[fe80::1]", "example.org", "128.0.0.1"]
)
def test_an_endpoint_beyond_this_machine_is_refused(host: str) -> None:
    with pytest.raises(SinkError, match="need keys: `earwitness keys new NAME`") as raised:
        ZmqSink(f"tcp://{host}:5557")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "5557",
        "127.0.0.1:5557",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1:abc",
        "tcp://:5557",
        "http://127.0.0.1:5557",
        "udp://127.0.0.1:5557",
        "inproc://here",
        "ipc://",
    ],
)
def test_an_invalid_endpoint_is_refused_in_one_line(endpoint: str) -> None:
    with pytest.raises(SinkError, match=r"is not a valid endpoint; use tcp://127.0.0.1:PORT") as raised:
        ZmqSink(endpoint)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:0", "tcp://localhost:0", "tcp://127.3.2.1:*", "tcp://[::1]:0"])
def test_on_this_machine_it_starts_and_says_where(endpoint: str) -> None:
    if "::1" in endpoint and not _has_ipv6():
        pytest.skip("no IPv6 here")
    with publishing(endpoint) as sink, Subscriber(sink.endpoint) as messages:
        assert sink.endpoint.rpartition(":")[2] not in ("0", "*")
        _send(sink, make.numberer(), make.status())
        got: list[Message] = []
        wait_for(lambda: bool(got), lambda: _receive(sink, messages, got))


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_a_port_in_use_is_reported_in_one_line_and_not_disturbed() -> None:
    with publishing() as sink:
        with pytest.raises(SinkError, match=r"is in use; stop the program that uses it .*, or choose another port"):
            ZmqSink(sink.endpoint)
        with Subscriber(sink.endpoint) as messages:
            _send(sink, make.numberer(), make.status())
            got: list[Message] = []
            wait_for(lambda: bool(got), lambda: _receive(sink, messages, got))


def test_ipc_paths(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/earwitness.sock"
    with publishing(endpoint) as sink, Subscriber(endpoint) as messages:
        _send(sink, make.numberer(), make.status())
        got: list[Message] = []
        wait_for(lambda: bool(got), lambda: _receive(sink, messages, got))
        with pytest.raises(SinkError, match="is in use"):
            ZmqSink(endpoint)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(f"{tmp_path}/killed.sock")
    assert (tmp_path / "killed.sock").is_socket()
    for left_behind in (endpoint, f"ipc://{tmp_path}/killed.sock"):
        with publishing(left_behind):
            pass
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(SinkError, match="not a socket; choose another path"):
        ZmqSink(f"ipc://{tmp_path}/notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "precious"
    with pytest.raises(SinkError, match="no such folder"):
        ZmqSink(f"ipc://{tmp_path}/no/such.sock")
    with pytest.raises(SinkError):
        ZmqSink(f"ipc://{tmp_path}/{'x' * 200}")


def test_a_removed_ipc_file_is_recreated(tmp_path: Path) -> None:
    """Otherwise new subscribers could not connect, and nobody would notice."""
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "earwitness.sock"
    endpoint = f"ipc://{path}"
    with publishing(endpoint) as sink, Subscriber(endpoint) as first:
        numberer = make.numberer()
        _send(sink, numberer, make.status())
        got: list[Message] = []
        wait_for(lambda: bool(got), lambda: _receive(sink, first, got))
        path.unlink()
        folder.rmdir()
        with pytest.raises(SinkError, match=r"new subscribers can.t connect: .* no such folder"):
            _send(sink, numberer, make.onset())
        folder.mkdir()
        _send(sink, numberer, make.offset())
        assert path.is_socket()
        # Existing subscribers have missed nothing, and new ones can connect again.
        assert [one.seq for one in (first.receive(5.0), first.receive(5.0)) if one is not None] == [2, 3]
        with Subscriber(endpoint) as second:
            late: list[Message] = []
            wait_for(lambda: bool(late), lambda: _receive(sink, second, late))
        path.unlink()
        sink.reopen()
        assert path.is_socket()
        path.unlink()
        path.write_text("precious")
        with pytest.raises(SinkError, match="not a socket"):
            sink.reopen()
        assert path.read_text() == "precious"


def test_throughput() -> None:
    """Printed, not asserted: how many messages a second one publishing thread sends here."""
    with publishing() as sink, Subscriber(sink.endpoint) as messages:
        numberer = make.numberer()
        _send(sink, numberer, make.status())
        got: list[Message] = []
        wait_for(lambda: bool(got), lambda: _receive(sink, messages, got))
        began_s = time.perf_counter()
        _send(sink, numberer, *[make.onset()] * 5000)
        sent_s = time.perf_counter() - began_s
        assert sum(messages.receive(5.0) is not None for _ in range(5000)) == 5000
        print(f"\nsent {5000 / sent_s:.0f} messages/s, received {5000 / (time.perf_counter() - began_s):.0f}/s")
