from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from streamer.media.pace import Arrival
from streamer.runtime.intake import Closed, Intake, Item, Opened
from streamer.types import Anchor, Chunk, Discontinuity, Picture

IN_TIME = Arrival()


def chunk(index: int, rate_hz: int = 22_100) -> Chunk:
    return Chunk(rate_hz, index * rate_hz // 10, np.zeros(rate_hz // 10, np.float32))  # 0.1 s


def frame(index: int) -> Picture:
    return Picture(index, np.zeros((1, 1, 3), np.uint8))


class Queue:
    """A queue of 1 s of audio and 5 pictures on a fake clock; `live` is None: nothing was opened yet."""

    def __init__(self, *, live: bool | None) -> None:
        self.drops: dict[str, int] = {}
        self.wakes = 0
        self.now_s = 100.0
        self.intake = Intake(
            limit_s=1.0,
            picture_limit=5,
            clock_s=lambda: self.now_s,
            dropped=self._dropped,
            wake=self._woken,
        )
        self.generation = self.intake.attach()
        if live is not None:
            self.put(Opened(1, True, True, live=live))
            self.intake.take()

    def _dropped(self, reason: str, count: int) -> None:
        self.drops[reason] = self.drops.get(reason, 0) + count

    def _woken(self) -> None:
        self.wakes += 1

    def put(self, *items: Item, arrival: Arrival = IN_TIME) -> None:
        for item in items:
            assert self.intake.put(item, self.generation, arrival)

    def all(self) -> list[Item]:
        out: list[Item] = []
        while (item := self.intake.take()) is not None:
            out.append(item)
        return out


def test_live_drops_the_oldest_of_a_kind_and_counts_it() -> None:
    """Media arrives evenly while the worker takes nothing."""
    queue = Queue(live=True)
    queue.put(Opened(2, True, True, live=True))
    for index in range(30):
        queue.now_s += 0.1
        queue.put(chunk(index), chunk(index, 16_000), *([frame(index)] if index % 2 == 0 else []))
    queue.put(Closed("eof", "", "gap", False, True))
    out = queue.all()
    assert isinstance(out[0], Opened)
    assert isinstance(out[-1], Closed)
    for rate_hz in (22_100, 16_000):
        starts = [one.start for one in out if isinstance(one, Chunk) and one.rate_hz == rate_hz]
        assert starts == [index * rate_hz // 10 for index in range(20, 30)]
    assert [one.at for one in out if isinstance(one, Picture)] == [20, 22, 24, 26, 28]
    assert queue.drops == {"queue_audio": 40, "queue_picture": 10}


def test_a_live_burst_waits_for_a_worker_that_keeps_up_and_loses_nothing() -> None:
    """6 s arrive at once for a queue of 1 s, and the worker takes them at four times real time."""
    queue = Queue(live=True)
    reader = threading.Thread(
        target=lambda: queue.put(*(chunk(index) for index in range(60)), arrival=Arrival(6.0, 9.0))
    )
    reader.start()
    taken: list[Item] = []
    while reader.is_alive() or len(queue.intake):
        item = queue.intake.take()
        if item is not None:
            taken.append(item)
            queue.now_s += 0.025
            assert len(queue.intake) <= 11
        time.sleep(0.001)
    reader.join(5)
    assert [one.start for one in taken if isinstance(one, Chunk)] == [index * 2210 for index in range(60)]
    assert queue.drops == {}
    assert queue.intake.patience_s == 9.0


def test_a_live_source_too_fast_for_the_worker_drops_the_oldest_and_stays_on_time() -> None:
    """Bursts of 2 s every 2 s, and a worker of half that speed: nothing it takes is later than the limit allows."""
    queue = Queue(live=True)
    done = threading.Event()

    def read() -> None:
        for burst in range(10):
            while queue.now_s < 100.0 + 2.0 * burst:
                time.sleep(0.0005)
            for index in range(20):
                due_s = 100.0 + 2.0 * burst + index / 10
                queue.put(chunk(20 * burst + index), arrival=Arrival(due_s - queue.now_s, 3.0))
        done.set()

    reader = threading.Thread(target=read)
    reader.start()
    late_s, taken = [0.0], 0
    while not done.is_set() or len(queue.intake):
        item = queue.intake.take()
        if isinstance(item, Chunk):
            taken += 1
            late_s.append(queue.now_s - 100.0 - item.start / 22_100)
        queue.now_s += 0.2
        time.sleep(0.002)
    reader.join(5)
    assert taken + queue.drops["queue_audio"] == 200
    assert queue.drops["queue_audio"] > 60
    # Late by the limit when it was last looked at, and by what a full queue takes longer than its own second.
    assert max(late_s) <= 1.0 + 1.0 + 0.5


def test_media_older_than_the_limit_is_dropped_even_if_little_is_queued() -> None:
    """Half of the audio is lost on the way, so one second of it spans two."""
    queue = Queue(live=True)
    for index in range(60):
        queue.now_s += 0.2
        queue.put(Anchor(index, 0.0, "arrival"), chunk(2 * index), *([frame(index)] if index % 5 == 0 else []))
        assert queue.intake.age_s() <= 1.0 + 1e-6


def test_a_recording_waits_even_if_it_is_late() -> None:
    queue = Queue(live=False)
    queue.put(*(chunk(index) for index in range(10)))
    queue.now_s += 100.0
    reader = threading.Thread(target=lambda: queue.put(chunk(10)))
    reader.start()
    time.sleep(0.05)
    assert reader.is_alive()
    assert queue.intake.take() is not None
    reader.join(5)
    assert queue.drops == {}


def test_nothing_is_live_before_it_was_opened() -> None:
    fresh = Queue(live=None)
    seen = [fresh.intake.live]
    for live in (True, False):
        fresh.put(Opened(1, True, True, live=live))
        seen.append(fresh.intake.live)
    assert seen == [False, True, False]


def test_a_replaced_reader_can_not_act() -> None:
    queue = Queue(live=True)
    said: list[str] = []
    assert queue.intake.when_attached(queue.generation, lambda: said.append("first"))
    second = queue.intake.attach()
    assert not queue.intake.when_attached(queue.generation, lambda: said.append("late"))
    assert not queue.intake.put(Opened(9, True, True, live=False), queue.generation)
    assert queue.intake.live
    assert queue.intake.when_attached(second, lambda: said.append("second"))
    assert said == ["first", "second"]


def test_silence_is_counted_from_the_end_of_a_burst() -> None:
    queue = Queue(live=True)
    assert queue.intake.silent_s(queue.now_s) == 0.0
    queue.put(chunk(0))
    assert queue.intake.silent_s(queue.now_s + 3.0) == pytest.approx(3.0)
    queue.put(chunk(1), arrival=Arrival(6.0, 9.0))
    assert queue.intake.silent_s(queue.now_s + 8.0) == 0.0
    assert queue.intake.silent_s(queue.now_s + 12.0) == pytest.approx(3.0)
    queue.put(Opened(2, True, True, live=True))
    assert queue.intake.patience_s == 0.0


def test_markers_are_never_dropped() -> None:
    queue = Queue(live=True)
    for index in range(100):
        queue.now_s += 1.1
        queue.put(Discontinuity("hole"), *(chunk(i) for i in range(index % 7)))
    assert sum(isinstance(one, Discontinuity) for one in queue.all()) == 100


def test_anchors_are_bounded() -> None:
    queue = Queue(live=False)
    queue.put(*(Anchor(at, 0.0, "rtcp") for at in range(1000)))
    assert queue.all() == [Anchor(at, 0.0, "rtcp") for at in range(936, 1000)]
    assert queue.drops == {"queue_anchor": 936}


def test_a_file_waits_for_room_and_loses_nothing() -> None:
    queue = Queue(live=False)
    reader = threading.Thread(target=lambda: queue.put(*(chunk(index) for index in range(50))))
    reader.start()
    time.sleep(0.1)
    assert len(queue.intake) == 10
    assert reader.is_alive()
    taken = []
    while reader.is_alive() or len(queue.intake):
        item = queue.intake.take()
        if item is not None:
            taken.append(item)
    reader.join(5)
    assert [one.start for one in taken if isinstance(one, Chunk)] == [index * 2210 for index in range(50)]
    assert queue.drops == {}


def test_a_reader_that_was_replaced_is_refused_even_while_it_waits() -> None:
    queue = Queue(live=False)
    queue.put(*(chunk(index) for index in range(10)))
    answers = []
    reader = threading.Thread(target=lambda: answers.append(queue.intake.put(chunk(10), queue.generation)))
    reader.start()
    time.sleep(0.05)
    queue.generation = queue.intake.attach()
    reader.join(5)
    assert answers == [False]
    assert queue.drops == {"abandoned": 1}
    assert len(queue.all()) == 10


def test_the_age_is_that_of_the_oldest_media() -> None:
    queue = Queue(live=True)
    queue.put(Opened(2, True, True, live=True), Anchor(0, 0.0, "rtcp"))
    queue.now_s += 7.0
    assert queue.intake.age_s() == 0.0
    queue.put(chunk(0))
    queue.now_s += 0.5
    queue.put(chunk(1))
    assert queue.intake.age_s() == pytest.approx(0.5)
    for _ in range(3):
        queue.intake.take()
    assert queue.intake.age_s() == 0.0
    queue.intake.take()
    assert queue.intake.age_s() == 0.0


def test_media_early_in_a_burst_is_not_late_before_it_is_due() -> None:
    queue = Queue(live=True)
    queue.put(chunk(0), arrival=Arrival(6.0, 9.0))
    queue.now_s += 6.5
    assert queue.intake.age_s() == pytest.approx(6.5)
    assert queue.intake.late_s() == pytest.approx(0.5)


def test_a_chunk_longer_than_the_limit_still_gets_in() -> None:
    queue = Queue(live=False)
    queue.put(Chunk(22_100, 0, np.zeros(221_000, np.float32)))
    assert len(queue.all()) == 1
