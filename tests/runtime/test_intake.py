from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from streamer.runtime.intake import Closed, Intake, Item, Opened
from streamer.types import Anchor, Chunk, Discontinuity, Picture


def chunk(index: int, rate_hz: int = 22_100) -> Chunk:
    return Chunk(rate_hz, index * rate_hz // 10, np.zeros(rate_hz // 10, np.float32))  # 0.1 s


def frame(index: int) -> Picture:
    return Picture(index, np.zeros((1, 1, 3), np.uint8))


class Queue:
    def __init__(self, *, lossy: bool) -> None:
        self.drops: dict[str, int] = {}
        self.wakes = 0
        self.now_s = 100.0
        self.intake = Intake(
            lossy=lossy,
            audio_limit_s=1.0,
            picture_limit=5,
            clock_s=lambda: self.now_s,
            dropped=self._dropped,
            wake=self._woken,
        )
        self.generation = self.intake.attach()

    def _dropped(self, reason: str, count: int) -> None:
        self.drops[reason] = self.drops.get(reason, 0) + count

    def _woken(self) -> None:
        self.wakes += 1

    def put(self, *items: Item) -> None:
        for item in items:
            assert self.intake.put(item, self.generation)

    def all(self) -> list[Item]:
        out: list[Item] = []
        while (item := self.intake.take()) is not None:
            out.append(item)
        return out


def test_live_drops_the_oldest_of_a_kind_and_counts_it() -> None:
    queue = Queue(lossy=True)
    queue.put(Opened(1, True, True))
    for index in range(30):
        queue.put(chunk(index), chunk(index, 16_000), frame(index))
    queue.put(Closed("eof", "", "gap", False, True))
    out = queue.all()
    assert isinstance(out[0], Opened)
    assert isinstance(out[-1], Closed)
    for rate_hz in (22_100, 16_000):
        starts = [one.start for one in out if isinstance(one, Chunk) and one.rate_hz == rate_hz]
        assert starts == [index * rate_hz // 10 for index in range(20, 30)]
    assert [one.at for one in out if isinstance(one, Picture)] == list(range(25, 30))
    assert queue.drops == {"queue_audio": 40, "queue_picture": 25}
    assert queue.wakes == 92


def test_markers_are_never_dropped() -> None:
    queue = Queue(lossy=True)
    for index in range(100):
        queue.put(Discontinuity("hole"), *(chunk(i) for i in range(index % 7)))
    assert sum(isinstance(one, Discontinuity) for one in queue.all()) == 100


def test_anchors_are_bounded() -> None:
    queue = Queue(lossy=False)
    queue.put(*(Anchor(at, 0.0, "rtcp") for at in range(1000)))
    assert queue.all() == [Anchor(at, 0.0, "rtcp") for at in range(936, 1000)]
    assert queue.drops == {"queue_anchor": 936}


def test_a_file_waits_for_room_and_loses_nothing() -> None:
    queue = Queue(lossy=False)
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
    queue = Queue(lossy=False)
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


def test_age_is_that_of_the_oldest() -> None:
    queue = Queue(lossy=True)
    assert queue.intake.age_s() == 0.0
    assert queue.intake.newest_s is None
    queue.put(chunk(0))
    queue.now_s += 0.5
    queue.put(chunk(1))
    assert queue.intake.age_s() == pytest.approx(0.5)
    assert queue.intake.newest_s == pytest.approx(100.5)
    queue.intake.take()
    assert queue.intake.age_s() == 0.0
    queue.intake.take()
    assert queue.intake.age_s() == 0.0


def test_a_chunk_longer_than_the_limit_still_gets_in() -> None:
    queue = Queue(lossy=False)
    queue.put(Chunk(22_100, 0, np.zeros(221_000, np.float32)))
    assert len(queue.all()) == 1
