"""Numbering, and several sinks used as one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec

from streamer.errors import SinkError
from streamer.sinks.base import Fanout
from streamer.sinks.jsonl import JsonLinesSink
from streamer.sinks.wire import Message
from tests import messages as make


def test_numbers_rise_by_one_over_all_messages_and_within_each_topic() -> None:
    numberer = make.numberer()
    sent: list[Message] = [
        make.status(),
        make.onset(),
        make.tags(),
        make.offset(),
        make.onset(label="Speech"),
        make.tags(),
    ]
    numbered = [numberer.number(message) for message in sent]
    assert [message.seq for message in numbered] == [1, 2, 3, 4, 5, 6]
    assert [message.topic_seq for message in numbered] == [1, 1, 1, 2, 1, 2]
    assert {(message.publisher, message.run) for message in numbered} == {("earwitness", "r1")}
    assert numbered[1].sent_utc_s - numbered[0].sent_utc_s == 1.0


def test_all_sinks_get_the_same_messages_and_a_broken_one_does_not_affect_the_rest(tmp_path: Path) -> None:
    failures: list[tuple[str, str]] = []
    full = JsonLinesSink("/dev/full")
    sinks = [JsonLinesSink(str(tmp_path / "a")), full, JsonLinesSink(str(tmp_path / "b"))]
    worked: list[str] = []
    fanout = Fanout(make.numberer(), sinks, lambda name, error: failures.append((name, str(error))), worked.append)
    for message in (make.onset(), make.offset()):
        assert fanout.send([message]) != [None]
    fanout.poll(0.03)
    fanout.close()
    fanout.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert [json.loads(line)["seq"] for line in (tmp_path / "a").read_text().splitlines()] == [1, 2]
    assert failures == [("jsonl", "message to /dev/full lost: No space left on device")] * 2
    assert worked == ["wire", "jsonl", "jsonl"] * 2
    assert fanout.names == ["jsonl"] * 3


def test_a_message_that_cannot_be_encoded_is_reported_and_leaves_no_gap(tmp_path: Path) -> None:
    failures: list[tuple[str, SinkError]] = []
    fanout = Fanout(
        make.numberer(),
        [JsonLinesSink(str(tmp_path / "a"))],
        lambda name, error: failures.append((name, error)),
        lambda name: None,
    )
    broken = msgspec.structs.replace(make.onset(), score=math.nan)
    lost, numbered = fanout.send([broken, make.onset()])
    assert lost is None
    fanout.close()
    assert numbered is not None
    assert numbered.seq == 1
    assert [name for name, _ in failures] == ["wire"]


def test_no_sinks_at_all() -> None:
    fanout = Fanout(make.numberer(), [], lambda name, error: None, lambda name: None)
    assert fanout.send([make.heartbeat()]) != [None]
    fanout.poll(1.0)
    assert not fanout.all_gone
    fanout.close()
