"""Access control, with real subscribers in other processes: valid, wrong, revoked and missing keys, and garbage."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import zmq

from streamer.client import Subscriber
from streamer.errors import RefusedError, SinkError
from streamer.sinks.access import Access
from streamer.sinks.door import Door
from streamer.sinks.keys import ClientKey, KeyFolder
from streamer.sinks.refusals import ZMQ_REASONS, Refusals
from streamer.sinks.zmq import ZmqSink
from tests import messages as make
from tests.garbage import garbage
from tests.listeners import LISTEN, NODE, Listener, listening, needs_node, wait_for


class Guarded:
    """A sink with keys, and the key files of its subscribers."""

    def __init__(self, folder: Path, keyed: bool = True) -> None:
        self.folder = folder
        self.keys = KeyFolder(folder / "keys")
        self.file("one")
        self.sink = ZmqSink("tcp://127.0.0.1:0", access=Access(self.keys if keyed else None))
        self.port = int(self.sink.endpoint.rpartition(":")[2])
        self.numberer = make.numberer()
        self.sent = 0

    def file(self, name: str) -> str:
        path = self.folder / f"{name}.key"
        if not path.exists():
            self.keys.new(name, path)
        return str(path)

    def send(self) -> None:
        self.sink.send(self.numberer.number(make.onset()))
        self.sink.poll(0.02)
        self.sent += 1

    def until(self, done: object) -> None:
        assert callable(done)
        wait_for(done, self.send)

    def refused(self, reason: str) -> int:
        self.sink.poll(0.0)
        return self.sink.refused[reason]

    def listener(self, *key: str) -> tuple[str, ...]:
        return (*LISTEN, self.sink.endpoint, *(("--key", *key) if key else ()))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    made = Guarded(tmp_path)
    yield made
    made.sink.close()


@contextmanager
def following(guarded: Guarded) -> Iterator[Listener]:
    """A subscriber with a valid key, which receives messages."""
    with listening(*guarded.listener(guarded.file("one"))) as listener:
        guarded.until(lambda: len(listener.lines) >= 2)
        yield listener


def test_a_subscriber_with_a_key_receives_messages(guarded: Guarded) -> None:
    with following(guarded) as listener:
        assert json.loads(listener.lines[0])["type"] == "onset"
    assert not any(guarded.sink.refused.values())


@needs_node
def test_node_with_a_key_receives_messages(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARWITNESS_KEY", guarded.file("one"))
    with listening(*NODE, guarded.sink.endpoint, "3") as listener:
        guarded.until(lambda: len(listener.lines) >= 3)
        assert json.loads(listener.lines[0])["message"]["type"] == "onset"
        assert listener.wait() == 0


def test_refusals_are_reported_counted_and_logged(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    """With an unknown, revoked, missing or another daemon's key a subscriber gets an error and no message."""
    KeyFolder(guarded.folder / "elsewhere").new("two", guarded.folder / "elsewhere.key")
    stranger = ClientKey.load(guarded.folder / "elsewhere.key")
    ours = ClientKey.load(guarded.file("one"))
    unknown = guarded.folder / "unknown.key"
    text = (guarded.folder / "elsewhere.key").read_text()
    unknown.write_text(text.replace(stranger.server_public, ours.server_public))
    unknown.chmod(0o600)
    guarded.file("three")
    guarded.keys.revoke("three")
    refused = "refused this key: it is not on its allow-list, or was revoked"
    cases = {
        "unknown_key": ((str(unknown),), refused),
        "revoked_key": ((str(guarded.folder / "three.key"),), refused),
        "wrong_server_key": ((str(guarded.folder / "elsewhere.key"),), "this key is for another daemon"),
        "no_key": ((), "requires a key: --key FILE"),
    }
    with caplog.at_level(logging.INFO), following(guarded) as good:
        for reason, (key, expected) in cases.items():
            with listening(*guarded.listener(*key)) as listener:
                guarded.until(lambda listener=listener: listener.process.poll() is not None)
                assert listener.wait() == 1
                errors = listener.errors()
                assert expected in errors, reason
                assert errors.count("\n") == 1
                assert not listener.lines
            if reason != "no_key" or guarded.refused(reason):  # the subscriber may notice first: `closed`
                guarded.until(lambda reason=reason: f"{ZMQ_REASONS[reason]} ({reason})" in caplog.text)
                assert guarded.refused(reason) >= 1
            else:
                assert guarded.refused("closed") >= 1
        assert f"refused 127.0.0.1: {ZMQ_REASONS['unknown_key']}" in caplog.text
        assert f"refused 127.0.0.1 (three): {ZMQ_REASONS['revoked_key']}" in caplog.text
        _unbroken(guarded, good)
    secrets = [ours.secret, stranger.secret, guarded.keys.server().secret]
    assert not any(secret in caplog.text for secret in secrets)


def test_a_daemon_without_keys_and_a_subscriber_with_one(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, keyed=False)
    with listening(*guarded.listener(guarded.file("one"))) as listener:
        guarded.until(lambda: listener.process.poll() is not None)
        assert listener.wait() == 1
        assert "does not use keys" in listener.errors()
    assert guarded.refused("unwanted_key") + guarded.refused("closed") >= 1
    guarded.sink.close()


def test_plain_tcp_receives_no_part_of_any_message(guarded: Guarded) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port)) as plain, following(guarded):
        plain.settimeout(0.01)
        received = b""
        for _ in range(50):
            guarded.send()
            with suppress(TimeoutError):
                received += plain.recv(65_536)
        assert len(received) <= 64  # ZeroMQ's greeting
        assert b"event" not in received


def test_allowing_and_revoking_a_key_take_effect_at_once(guarded: Guarded) -> None:
    """Without a restart. The revoked subscriber's connection is closed; the other one misses nothing."""
    with following(guarded) as stays, listening(*guarded.listener(guarded.file("late"))) as goes:
        guarded.until(lambda: len(goes.lines) >= 2)
        guarded.keys.revoke("late")
        began_s = time.monotonic()
        guarded.until(lambda: goes.process.poll() is not None)
        assert time.monotonic() - began_s < 5.0
        heard = len(goes.lines)
        before = len(stays.lines)
        guarded.until(lambda: len(stays.lines) >= before + 50)
        assert goes.wait() == 1
        assert "was revoked" in goes.errors()
        assert len(goes.lines) == heard
        last = json.loads(goes.lines[-1])["seq"]
        assert guarded.sent - last >= 50
    assert guarded.refused("revoked_key") >= 1


def test_a_key_that_comes_back_on_the_list_is_heard_again(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeroMQ itself gives up for good where it is refused."""
    monkeypatch.setattr("streamer.client.feed._RETRY_REFUSED_S", 0.3)
    with Subscriber(guarded.sink.endpoint, key=guarded.file("one")) as subscriber:
        guarded.until(lambda: subscriber.receive(0.01) is not None)
        entry = guarded.keys.path / "clients/one.public"
        entry.rename(guarded.folder / "kept")
        with pytest.raises(RefusedError):
            guarded.until(lambda: subscriber.receive(0.01) is None and False)
        with pytest.raises(RefusedError):  # at each retry
            guarded.until(lambda: subscriber.receive(0.01) is None and False)
        (guarded.folder / "kept").rename(entry)
        deadline_s = time.monotonic() + 20
        before = guarded.sent
        while True:
            assert time.monotonic() < deadline_s
            guarded.send()
            with suppress(RefusedError):
                heard = subscriber.receive(0.1)
                if heard is not None and heard.seq > before:
                    break


def test_a_revoked_subscriber_receives_nothing_more(guarded: Guarded) -> None:
    """Not even what was queued for it, once the daemon has noticed."""
    subscriber = Subscriber(guarded.sink.endpoint, key=guarded.file("one"))
    guarded.until(lambda: subscriber.receive(0.0) is not None)
    for _ in range(3000):
        guarded.send() if _ % 300 == 0 else guarded.sink.send(guarded.numberer.number(make.scores()))
    guarded.keys.revoke("one")
    time.sleep(0.6)  # the allow-list is checked every 0.25 s
    marked = guarded.numberer.number(make.onset(event_id="after"))
    guarded.sink.send(marked)
    guarded.sink.poll(0.1)
    with pytest.raises(RefusedError):  # noqa: PT012
        for _ in range(10_000):
            message = subscriber.receive(1.0)
            assert message is None or message.seq < marked.seq
    subscriber.close()


def test_an_unreadable_allow_list_changes_nothing(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    with following(guarded) as listener:
        (guarded.folder / "keys/clients").rename(guarded.folder / "gone")
        guarded.until(lambda: "the previous allow-list stays in force" in caplog.text)
        before = len(listener.lines)
        guarded.until(lambda: len(listener.lines) >= before + 20)
        (guarded.folder / "gone").rename(guarded.folder / "keys/clients")
        (guarded.folder / "keys/clients/bad.public").write_text("nothing")
        guarded.until(lambda: "bad.public is not a key file" in caplog.text)
        _unbroken(guarded, listener)


def test_if_authentication_fails_the_sink_raises_and_refuses_all(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must neither accept all subscribers, nor refuse all of them without an error."""
    monkeypatch.setattr(Refusals, "push", _fail)
    with listening(*guarded.listener()) as listener:  # without a key: counting this refusal raises
        with pytest.raises(ZeroDivisionError):
            guarded.until(lambda: False)
        assert not listener.lines
    with listening(*guarded.listener(guarded.file("one"))) as listener:
        time.sleep(2.0)
        guarded.sink._send(guarded.numberer.number(make.onset()))
        time.sleep(0.5)
        assert not listener.lines


def _fail(*arguments: object) -> None:
    raise ZeroDivisionError(arguments)


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("kind", [zmq.XPUB, zmq.ROUTER], ids=["XPUB", "ROUTER"])
def test_a_port_scan_and_garbage_change_nothing_but_a_counter(tmp_path: Path, keyed: bool, kind: int) -> None:
    guarded = Guarded(tmp_path, keyed)
    access = Access(guarded.keys if keyed else None) if kind == zmq.ROUTER else None
    door = Door("tcp://127.0.0.1:0", zmq.ROUTER, access, [(zmq.MAXMSGSIZE, 4096)]) if access else None
    port = int(door.endpoint.rpartition(":")[2]) if door else guarded.port
    key = (guarded.file("one"),) if keyed else ()
    process = psutil.Process()
    try:
        with listening(*guarded.listener(*key)) as good, _half_open(port, 50):
            guarded.until(lambda: len(good.lines) >= 2)
            garbage(port)  # libraries keep the memory of their first use
            before_bytes, files = process.memory_info().rss, process.num_fds()
            for _ in range(3):
                garbage(port)
                for _ in range(20):
                    guarded.send()
            refused = door.access.refusals.counts if door else guarded.sink.refused

            def all_counted() -> bool:
                while door is not None and door.socket.poll(0):
                    door.socket.recv_multipart()  # without keys, garbage that looks like old ZeroMQ is accepted
                # The half-open ones time out. Without keys, random bytes may look like an old version of ZeroMQ.
                enough = refused["closed"] >= 4 * 50 and refused["timeout"] >= 50
                return enough and sum(refused.values()) >= 4 * (109 if keyed else 104) + 50

            guarded.until(all_counted)
            assert refused["not_zeromq"] >= 4
            _unbroken(guarded, good)
            guarded.until(lambda: process.num_fds() <= files)
            assert process.memory_info().rss - before_bytes < 50_000_000
            if door is not None:
                door.keep()
    finally:
        guarded.sink.close()
        if door is not None:
            door.close()


@contextmanager
def _half_open(port: int, count: int) -> Iterator[None]:
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    yield
    for one in connections:
        one.close()


def _unbroken(guarded: Guarded, listener: Listener) -> None:
    """The subscriber received all messages since its first one, in order."""
    last = guarded.sent
    guarded.until(lambda: json.loads(listener.lines[-1])["seq"] > last)
    numbers = [json.loads(line)["seq"] for line in list(listener.lines)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_a_port_taken_while_connections_are_closed(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and binding is retried until the port is free."""
    thief = socket.socket()
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door = guarded.sink._door
    real = door._disconnect_all

    def disconnect_all() -> None:
        real()
        deadline_s = time.monotonic() + 5
        while True:
            with suppress(OSError):
                thief.bind(("127.0.0.1", guarded.port))
                thief.listen()
                return
            assert time.monotonic() < deadline_s

    guarded.file("two")
    time.sleep(0.6)
    guarded.send()
    monkeypatch.setattr(door, "_disconnect_all", disconnect_all)
    guarded.keys.revoke("two")
    with pytest.raises(SinkError, match=r"new subscribers can't connect: .* is in use"):
        guarded.until(lambda: False)
    thief.close()
    with following(guarded):
        pass


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://[::]:0", "tcp://lo:0"])
def test_with_keys_it_listens_beyond_this_machine(tmp_path: Path, endpoint: str) -> None:
    if endpoint.startswith("tcp://[") and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    keys = KeyFolder(tmp_path / "keys")
    keys.new("one", tmp_path / "one.key")
    sink = ZmqSink(endpoint, access=Access(keys))
    at = f"tcp://127.0.0.1:{sink.endpoint.rpartition(':')[2]}"
    numberer = make.numberer()
    with Subscriber(at, key=tmp_path / "one.key") as subscriber:
        wait_for(
            lambda: subscriber.receive(0.02) is not None,
            lambda: sink.send(numberer.number(make.onset())),
        )
    sink.close()


def test_an_unknown_host_is_an_error(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")
    keys.new("one", tmp_path / "one.key")
    with pytest.raises(SinkError, match="no host or interface is called"):
        ZmqSink("tcp://nowhere.invalid:5557", access=Access(keys))


def test_many_refusals_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    refusals = Refusals(lambda: now_s[0])
    with caplog.at_level(logging.INFO):
        for number in range(6000):
            now_s[0] = number / 20
            refusals.push("closed", "tcp://0.0.0.0:5557", f"10.0.0.{number % 250}")
    assert refusals.counts["closed"] == 6000
    assert len(caplog.records) == 5
    assert caplog.messages[1].startswith("tcp://0.0.0.0:5557: refused 10.0.0.")
    assert caplog.messages[1].endswith("and 1199 more for this reason since it was last logged")


def test_refusals_without_an_address_are_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    refusals = Refusals(lambda: now_s[0])
    with caplog.at_level(logging.INFO):
        refusals.push("no_key", "tcp://0.0.0.0:5557", "")
        refusals.poll()
        assert not caplog.messages  # the peer may retry, and its address be known then
        refusals.push("no_key", "tcp://0.0.0.0:5557", "10.0.0.9")
        assert caplog.messages == [
            f"tcp://0.0.0.0:5557: refused 10.0.0.9: {ZMQ_REASONS['no_key']} (no_key); "
            "and 1 more for this reason since it was last logged"
        ]
        refusals.push("closed", "tcp://0.0.0.0:5557", "")
        now_s[0] = 3.0
        refusals.poll()
    assert "refused a peer whose address is unknown" in caplog.messages[1]
    assert caplog.messages[1].endswith("(closed)")
