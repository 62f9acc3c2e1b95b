"""What late subscribers receive."""

from __future__ import annotations

import msgspec

from streamer.sinks.base import Numberer
from streamer.sinks.snapshot import Snapshot
from streamer.sinks.wire import HeartbeatMessage, Message
from tests import messages as make


def _filled(*sent: Message) -> Snapshot:
    numberer: Numberer = make.numberer()
    snapshot = Snapshot()
    for message in sent:
        snapshot.push(numberer.number(message))
    return snapshot


def _held(snapshot: Snapshot, *prefixes: str) -> list[int]:
    return [message.seq for message in snapshot.matching(prefixes)]


def test_the_newest_status_and_heartbeat_and_the_open_events_are_held() -> None:
    snapshot = _filled(
        make.status(state="connecting"),
        make.onset(event_id="a"),
        make.status(),
        make.onset(label="Speech", event_id="b"),
        make.offset(event_id="a"),
        make.tags(),
        make.heartbeat(),
    )
    assert _held(snapshot, "") == [3, 4, 7]
    assert _held(snapshot, "event/") == [4]
    assert _held(snapshot, "event/cam/Speech/", "event/") == [4]
    assert _held(snapshot) == []


def test_held_messages_are_marked_and_otherwise_unchanged() -> None:
    numbered = make.numberer().number(make.onset())
    snapshot = Snapshot()
    snapshot.push(numbered)
    (again,) = snapshot.matching([""])
    assert again.replay
    assert msgspec.structs.replace(again, replay=False) == numbered


def test_a_prefix_does_not_match_a_longer_name() -> None:
    snapshot = _filled(make.status("cam"), make.status("cam2"), make.onset("cam2"))
    assert _held(snapshot, "status/cam/") == [1]
    assert _held(snapshot, "event/cam/") == []


def test_an_onset_whose_offset_was_lost_is_not_held_for_ever() -> None:
    snapshot = _filled(make.onset(event_id="a"), make.onset(event_id="b"))
    assert _held(snapshot, "") == [2]
    snapshot = _filled(make.onset(event_id="a"), make.onset("cam2", event_id="b"), make.status(epoch=1))
    assert _held(snapshot, "") == [2, 3]


def test_a_heartbeat_says_what_was_sent_until_now() -> None:
    snapshot, numberer = Snapshot(), make.numberer()
    snapshot.push(msgspec.structs.replace(numberer.number(make.heartbeat()), store="s1", stored_through=4))
    snapshot.push(msgspec.structs.replace(numberer.number(make.offset()), store="s1", stored_seq=5))
    snapshot.push(numberer.number(make.tags()))
    (beat,) = snapshot.matching(["heartbeat/"])
    assert isinstance(beat, HeartbeatMessage)
    assert (beat.replay, beat.store, beat.stored_through) == (True, "s1", 5)
