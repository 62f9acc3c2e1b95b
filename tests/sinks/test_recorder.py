"""Messages are stored before they are sent; while the store fails they are sent anyway, and stored later."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from streamer.errors import StoreError
from streamer.sinks.base import Numberer
from streamer.sinks.store.recorder import Recorder, StorePlan
from streamer.sinks.store.retention import Limits
from streamer.sinks.store.writing import Store
from streamer.sinks.wire import HeartbeatMessage, Message, OffsetMessage
from tests import messages as make
from tests.sinks.test_store import AMPLE, content


class Recording:
    """A recorder with a real file and a fake clock."""

    def __init__(self, path: Path, run: str = "r1", max_waiting: int = 100) -> None:
        self.now_s = 0.0
        self.numberer: Numberer = make.numberer(run=run)
        self.failures: list[tuple[str, int]] = []
        self.worked = 0
        plan = StorePlan(path, AMPLE, 600.0, max_waiting)
        self.recorder = Recorder(plan, run, lambda: self.now_s, self._failed, self._worked)

    def _failed(self, error: StoreError, lost: int) -> None:
        self.failures.append((str(error), lost))

    def _worked(self) -> None:
        self.worked += 1

    def send(self, *messages: Message, after_s: float = 0.0) -> list[Message]:
        self.now_s += after_s
        first = self.recorder.record([self.numberer.number(one) for one in self.recorder.open()])
        return first + self.recorder.record([self.numberer.number(one) for one in messages])

    def numbers(self, *messages: Message, after_s: float = 0.0) -> list[int]:
        return [one.stored_seq for one in self.send(*messages, after_s=after_s)]


@contextmanager
def recording(path: Path, run: str = "r1", max_waiting: int = 100) -> Iterator[Recording]:
    running = Recording(path, run, max_waiting)
    try:
        yield running
    finally:
        running.recorder.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_only_onsets_offsets_and_statuses_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with recording(path) as running:
        sent = running.send(make.onset(), make.tags(), make.offset(), make.scores(), make.status())
        assert [one.stored_seq for one in sent] == [1, 0, 2, 0, 3]
        assert content(path) == [one for one in sent if one.stored_seq]  # the store is still open
        assert {one.store for one in sent if not one.stored_seq} == {""}


def test_a_heartbeat_has_the_newest_sent_number(tmp_path: Path) -> None:
    with recording(tmp_path / "store.sqlite3") as running:
        running.recorder.catch_up = "tcp://127.0.0.1:5558"
        first, _, second, _, third = running.send(
            make.heartbeat(), make.onset(), make.heartbeat(), make.offset(), make.heartbeat()
        )
        for beat, through in ((first, 0), (second, 1), (third, 2)):
            assert isinstance(beat, HeartbeatMessage)
            assert (beat.stored_through, beat.stored_seq, beat.catch_up) == (through, 0, "tcp://127.0.0.1:5558")
            assert len(beat.store) == 12


def test_messages_of_an_outage_are_sent_and_stored_later_in_order(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with recording(path) as running:
        assert running.numbers(make.onset(event_id="a")) == [1]
        with locked(path):
            late = running.send(make.offset(event_id="a"), make.onset(event_id="b"))
            assert [one.stored_seq for one in late] == [0, 0]
            assert not running.recorder.works
            late += running.send(make.offset(event_id="b"))  # it is not retried yet
            assert len(running.failures) == 1
            late += running.send(make.status(), after_s=1.5)
            assert len(running.failures) == 2
            beat = running.send(make.heartbeat())[0]
            assert isinstance(beat, HeartbeatMessage)
            assert beat.stored_through == 1
        assert running.recorder.waiting == 4
        beat = running.send(make.heartbeat(), after_s=5.0)[0]
        assert isinstance(beat, HeartbeatMessage)
        assert beat.stored_through == 5  # so subscribers notice the gap and request the messages
        assert running.numbers(make.onset(event_id="c")) == [6]
        assert running.failures == [(f"event store {path}: another program is writing to it", 0)] * 2
    kept = content(path)
    assert [one.seq for one in kept] == [1, 2, 3, 4, 5, 8]
    assert [msgspec.structs.replace(one, store="", stored_seq=0) for one in kept[1:5]] == late


def test_the_waiting_queue_is_bounded_and_losses_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with recording(path, max_waiting=3) as running:
        running.send(make.status())
        with locked(path):
            for _ in range(5):
                running.send(make.status())
        assert sum(lost for _, lost in running.failures) == 2
        assert running.numbers(make.status(), after_s=2.0) == [5]
    assert [one.seq for one in content(path)] == [1, 4, 5, 6, 7]


def test_waiting_messages_are_retried_once_at_shutdown(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with recording(path) as running:
        running.send(make.onset())
        with locked(path):
            running.send(make.offset())
    assert len(content(path)) == 2
    with recording(path, run="r2") as running:
        running.send(make.onset())
        with locked(path):
            running.send(make.offset())
            running.recorder.close()
        assert running.failures[-1][1] == 1


def test_a_store_locked_by_another_daemon_is_used_when_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with recording(path) as first, recording(path, run="r2") as second:
        first.send(make.onset(event_id="a"))
        assert second.numbers(make.onset(event_id="b")) == [0]
        assert "is in use by another earwitness" in second.failures[0][0]
        assert second.recorder.failures == {"taken": 1}
        first.recorder.close()  # as if killed, with an open event
        sent = second.send(make.offset(event_id="b"), after_s=2.0)
        # The event that the killed run left open is closed first, then the waiting messages are stored.
        assert [(one.event_id, one.end_reason) for one in sent if isinstance(one, OffsetMessage)] == [
            ("a", "crash"),
            ("b", "silence"),
        ]
    kept = content(path)
    assert [one.stored_seq for one in kept] == [1, 2, 3, 4]
    assert [one.run for one in kept] == ["r1", "r2", "r2", "r2"]


def test_a_removed_store_is_recreated(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with recording(path) as running:
        (first,) = running.send(make.onset())
        path.unlink()
        (second,) = running.send(make.offset())
        assert (second.stored_seq, second.store != first.store) == (1, True)


def test_the_open_events_of_a_killed_run_are_closed_once(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    first = Recording(path)
    onset = first.send(make.onset(event_id="a"), make.onset(event_id="b"), make.offset(event_id="b"))[0]
    first.send(make.heartbeat())  # sent 3 s after the onset, by the numberer's clock
    first.recorder._close_store()  # as if killed
    with recording(path, run="r2") as second:
        (closed,) = second.send()
        assert isinstance(closed, OffsetMessage)
        assert (closed.event_id, closed.end_reason, closed.run, closed.stored_seq) == ("a", "crash", "r2", 4)
        assert closed.duration_s == 3.0
        assert onset.sent_utc_s == 1_790_000_000.0
    with recording(path, run="r3") as third:
        assert third.send() == []


def test_a_commit_that_succeeded_despite_an_error_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with recording(path) as running:
        running.send(make.status())
        running.recorder._close_store()
        waits = running.send  # the message is stored, but the recorder saw an error
        message = running.numberer.number(make.onset())
        with closing(Store(path, Limits(1e4, 10**9))) as store:
            store.append([message])  # type: ignore[list-item]
        running.recorder._waiting.append(message)  # type: ignore[arg-type]
        assert [one.stored_seq for one in waits(make.offset())] == [3]
    assert [one.seq for one in content(path)] == [1, 2, 3]
