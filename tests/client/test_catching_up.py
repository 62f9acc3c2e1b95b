"""Subscribers miss no stored message, although real daemons are killed and restarted and subscribers disconnect."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from streamer.client import AsyncSubscriber, Subscriber
from streamer.errors import GapError
from streamer.sinks.wire import Message, OffsetMessage, OnsetMessage, topic
from tests.client.daemons import Daemons
from tests.listeners import LISTEN, ROOT, listening, needs_node, wait_for
from tests.sinks.test_store import content

CATCH_UP_NODE = ("node", str(ROOT / "tests/node/catch_up.mjs"))


def events(messages: list[Message]) -> list[Message]:
    return [one for one in messages if topic(one).startswith("event/")]


def complete(path: Path) -> list[Message]:
    """All messages of a store, which must have no gaps and exactly one onset and one offset per event."""
    kept = content(path)
    assert [one.stored_seq for one in kept] == list(range(1, len(kept) + 1))
    counts = Counter((type(one), one.event_id) for one in kept if isinstance(one, OnsetMessage | OffsetMessage))
    assert set(counts.values()) <= {1}
    onsets, offsets = ({event_id for kind, event_id in counts if kind is one} for one in (OnsetMessage, OffsetMessage))
    assert onsets == offsets
    return kept


def receive_until(messages: Subscriber, number: int, timeout_s: float = 60.0) -> list[Message]:
    """The messages received until everything up to `number` has been."""
    got: list[Message] = []
    end_s = time.monotonic() + timeout_s
    while max(messages.position.values(), default=0) < number:
        message = messages.receive(0.2)
        if message is not None:
            got.append(message)
        assert time.monotonic() < end_s, f"{messages.position} of {number}"
    return got


def killed(folder: Path, times: int, seed: int) -> None:
    """A daemon that publishes continuously is killed at random times, while a subscriber receives."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    gaps: list[GapError] = []
    got: list[Message] = []
    with Daemons(folder) as daemons, Subscriber(daemons.live, ["event/", "status/"], since=0, on_gap=gaps.append) as to:
        for _ in range(times):
            daemons.start()
            daemons.publish("flood", wait=False)
            end_s = time.monotonic() + chance.uniform(0.0, 0.6)
            while (left_s := end_s - time.monotonic()) > 0:
                message = to.receive(left_s)
                got += [message] if message is not None else []
            daemons.kill()
        daemons.start()
        daemons.publish(1)
        got += receive_until(to, daemons.settle())
        daemons.end()
        got += receive_until(to, len(content(daemons.store)), 10.0) if to.position else []
    kept = complete(daemons.store)
    assert [one for one in got if not one.stored_seq] == []
    assert got == kept[: len(got)]  # each once, in order, as stored
    assert len(kept) - len(got) <= 1  # the status that the daemon sent last, at shutdown
    assert gaps == []
    assert sum(isinstance(one, OffsetMessage) and one.end_reason == "crash" for one in kept) <= times
    print(f"killed {times} times: {len(kept)} messages, {len(got)} received, none lost, none duplicated")


def test_five_random_kills_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    killed(tmp_path, 5, random.SystemRandom().randrange(10**6))


@pytest.mark.slow
def test_fifty_random_kills_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    killed(tmp_path, 50, random.SystemRandom().randrange(10**6))


def away(daemons: Daemons) -> None:
    """While a subscriber is disconnected: 1,000 events and two restarts of the daemon, one of them after a kill."""
    daemons.publish(400)
    daemons.publish("open")
    daemons.settle()
    daemons.kill()
    daemons.start()
    daemons.publish(300)
    daemons.end()
    daemons.start()
    daemons.publish(299)


def test_a_disconnected_subscriber_receives_all_missed_events_once_and_in_order(tmp_path: Path) -> None:
    """The length of the absence does not matter, so the events are published as fast as they can be stored."""
    with Daemons(tmp_path) as daemons:
        daemons.start()
        with Subscriber(daemons.live, ["event/"]) as messages:
            wait_for(lambda: bool(messages.position), lambda: assert_none(messages.receive(0.05)))
            daemons.publish(2)
            before = [messages.receive(10.0) for _ in range(4)]
            position = json.loads(json.dumps(messages.position))  # as a program saves it
        away(daemons)
        gaps: list[GapError] = []
        with Subscriber(daemons.live, ["event/"], since=position, on_gap=gaps.append) as messages:
            got = [one for one in (messages.receive(20.0) for _ in range(2000)) if one is not None]
            assert messages.receive(0.3) is None
            daemons.publish(1)
            got += [one for one in (messages.receive(5.0), messages.receive(5.0)) if one is not None]
            assert messages.missed == {}
        daemons.end()
    kept = events(complete(daemons.store))
    assert [*before, *got] == kept
    assert len(got) == 2002
    assert gaps == []
    assert [one.end_reason for one in kept if isinstance(one, OffsetMessage)].count("crash") == 1


def assert_none(message: Message | None) -> None:
    assert message is None


@needs_node
def test_a_node_subscriber_receives_all_missed_events(tmp_path: Path) -> None:
    position = str(tmp_path / "position.json")
    with Daemons(tmp_path) as daemons:
        daemons.start()
        with listening(*CATCH_UP_NODE, daemons.live, position, "4") as node:
            wait_for(lambda: len(node.lines) >= 4, lambda: daemons.publish(1), 30.0)
            assert node.wait() == 0, node.errors()
            lines = list(node.lines)
        away(daemons)
        with listening(*CATCH_UP_NODE, daemons.live, position) as node:
            newest = daemons.settle()
            wait_for(lambda: json.loads(Path(position).read_text())["seq"] >= newest, lambda: time.sleep(0.05), 30.0)
            daemons.publish(1)
            wait_for(lambda: f"r{daemons.runs}-300" in node.lines[-1], lambda: time.sleep(0.05))
            time.sleep(0.3)
            lines += node.lines
        daemons.end()
    kept = events(complete(daemons.store))
    got = [json.loads(line) for line in lines]
    first = got[0]["stored_seq"]
    assert [one["stored_seq"] for one in got] == [one.stored_seq for one in kept if one.stored_seq >= first]
    assert len(got) >= 2004


def test_an_asyncio_subscriber_receives_all_missed_events(tmp_path: Path) -> None:
    async def run(daemons: Daemons) -> list[Message]:
        got: list[Message] = []
        done = asyncio.Event()

        async def read(since: int | None) -> None:
            async with AsyncSubscriber(daemons.live, ["event/"], since=since, lost_after_s=30.0) as messages:
                async for message in messages:
                    got.append(message)
                    if len(got) >= 2010:
                        done.set()

        reader = asyncio.create_task(read(0))
        await asyncio.to_thread(daemons.publish, 5)
        await asyncio.to_thread(away, daemons)
        await asyncio.wait_for(done.wait(), 30.0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        async with AsyncSubscriber(daemons.live, timeout_s=0.2, catch_up=False) as messages:
            assert [one.replay async for one in messages][:2] == [True, True]
            assert await messages.receive(0.05) is None
        return got

    with Daemons(tmp_path) as daemons:
        daemons.start()
        got = asyncio.run(run(daemons))
        daemons.end()
    assert got == events(complete(daemons.store))[: len(got)]
    assert len(got) == 2010


def test_listen_since(tmp_path: Path) -> None:
    with Daemons(tmp_path) as daemons:
        daemons.start()
        daemons.publish(10)
        command = (*LISTEN, daemons.live, "--topic", "event/", "--since", "10", "--count", "11", "--timeout", "30")
        with listening(*command) as listener:
            assert listener.wait(40) == 0, listener.errors()
        assert [json.loads(line)["stored_seq"] for line in listener.lines] == list(range(11, 22))


def test_catching_up_does_not_delay_live_messages(tmp_path: Path) -> None:
    """Prints the latency of live messages while three others catch up, and checks it against a generous limit."""
    with Daemons(tmp_path) as daemons:
        daemons.start()
        daemons.publish(3000)
        daemons.settle()

        def slowest(messages: Subscriber) -> float:
            late: list[float] = []
            for _ in range(30):
                daemons.publish(1, wait=False)
                while not isinstance(message := messages.receive(10.0), OffsetMessage):
                    assert message is not None
                late.append(time.time() - message.sent_utc_s)
            return sorted(late)[len(late) * 9 // 10]

        with Subscriber(daemons.live, ["event/"]) as live:
            while live.receive(1.0) is not None:
                pass  # earlier messages are still being sent
            alone_s = slowest(live)
            command = (*LISTEN, daemons.live, "--since", "0", "--topic", "event/")
            with listening(*command), listening(*command), listening(*command):
                time.sleep(0.5)
                busy_s = slowest(live)
            print(f"\nlive: 90 % within {1000 * alone_s:.1f} ms alone, {1000 * busy_s:.1f} ms beside 3 catching up")
            assert busy_s < 1.0


def test_a_gap_is_skipped_and_reported_if_the_catch_up_endpoint_does_not_answer(tmp_path: Path) -> None:
    gaps: list[GapError] = []
    with Daemons(tmp_path) as daemons:
        daemons.start()
        daemons.publish(3)
        daemons.settle()
        nowhere = Daemons(tmp_path).catch_up
        with Subscriber(
            daemons.live, ["event/"], since=0, catch_up=nowhere, patience_s=1.0, on_gap=gaps.append
        ) as messages:
            wait_for(lambda: bool(gaps), lambda: assert_none(messages.receive(0.1)), 30.0)
            assert "does not answer" in str(gaps[0])
            daemons.publish(1)
            assert isinstance(messages.receive(5.0), OnsetMessage)
