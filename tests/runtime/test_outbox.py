"""The queue of messages, and what it drops when it is full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from streamer.runtime.outbox import Outbox
from streamer.sinks.wire import Message, ScoresMessage, TagsMessage
from tests import messages as make

_MAKERS: dict[str, Callable[[], Message]] = {
    "tags": make.tags,
    "scores": make.scores,
    "onset": make.onset,
    "offset": make.offset,
    "status": make.status,
    "heartbeat": make.heartbeat,
}


def _gives_way(message: Message) -> bool:
    return isinstance(message, (TagsMessage, ScoresMessage))


def _taken(outbox: Outbox) -> list[Message]:
    return [one.message for one in outbox.take(0.0)]


@given(kinds=st.lists(st.sampled_from(sorted(_MAKERS)), max_size=60), limit=st.integers(1, 20))
def test_tags_and_scores_are_dropped_first_oldest_first_and_every_loss_is_reported(
    kinds: list[str], limit: int
) -> None:
    """The drop policy against its definition: which messages remain after each `put`."""
    dropped: list[Message] = []
    outbox = Outbox(limit, dropped.append)
    expected: list[Message] = []
    lost: list[Message] = []
    for name in kinds:
        message = _MAKERS[name]()
        outbox.put(message)
        expected.append(message)
        if len(expected) > limit:
            weak = [i for i, one in enumerate(expected) if _gives_way(one)]
            lost.append(expected.pop(weak[0] if weak else 0))
        assert all(a is b for a, b in zip(dropped, lost, strict=True))
        assert outbox.lost == len(lost)
    left = _taken(outbox)
    assert all(a is b for a, b in zip(left, expected, strict=True))


def test_the_onsets_arrival_is_passed_on() -> None:
    outbox = Outbox(10, lambda message: None)
    outbox.put(make.onset(), 12.5)
    outbox.put(make.tags())
    assert [one.onset_arrival_utc_s for one in outbox.take(0.0)] == [12.5, None]


def test_take_waits_for_the_first_message_and_no_longer_than_the_timeout() -> None:
    outbox = Outbox(10, lambda message: None)
    began_s = time.monotonic()
    assert not _taken(outbox)
    assert not list(outbox.take(0.1))
    assert 0.09 < time.monotonic() - began_s < 2.0
    later = threading.Timer(0.1, outbox.put, (make.onset(),))
    later.start()
    began_s = time.monotonic()
    assert len(list(outbox.take(10.0))) == 1
    assert time.monotonic() - began_s < 5.0
    later.join()


def test_it_is_finished_when_it_is_closed_and_empty() -> None:
    outbox = Outbox(10, lambda message: None)
    finished = [outbox.finished]
    outbox.put(make.offset())
    outbox.close()
    finished.append(outbox.finished)
    assert len(_taken(outbox)) == 1
    finished.append(outbox.finished)
    assert finished == [False, False, True]
    began_s = time.monotonic()
    assert not list(outbox.take(10.0))
    assert time.monotonic() - began_s < 1.0
