from __future__ import annotations

import threading
from itertools import count
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.detect import Detector
from streamer.pipeline import Output, StreamPipeline
from streamer.runtime.intake import Closed, Intake, Item, Opened
from streamer.runtime.lane import Lane, Restart, Turn
from streamer.runtime.model import Model
from streamer.timeline import Timeline
from streamer.types import CELL, Anchor, CellScores, Chunk, Discontinuity, Offset, Onset, Picture
from streamer.windows import StreamSettings
from tests.models import bursts, factories, seeded_bundle

T = TypeVar("T")


class Stream:
    """A lane with its queue on a fake clock; everything else is real."""

    def __init__(self) -> None:
        bundle = seeded_bundle()
        ids = count()
        self.detector = Detector(bundle)
        self.now_s = 0.0
        self.intake = Intake(
            limit_s=1000.0,
            picture_limit=1000,
            clock_s=self._clock,
            dropped=lambda reason, number: pytest.fail(f"{number} dropped: {reason}"),
            wake=threading.Event().set,
        )
        self.generation = self.intake.attach()
        pipeline = StreamPipeline(
            "s", factories(), bundle.decoding, bundle.window_cells, StreamSettings(), lambda: f"e{next(ids)}"
        )
        model = Model(bundle, factories(), self.detector)
        self.lane = Lane("s", self.intake, pipeline, model, 5.0, self._clock)
        self.clocks: dict[int, Timeline] = {}
        self.out: list[Output] = []
        self.turns: list[Turn] = []

    def _clock(self) -> float:
        return self.now_s

    def put(self, *items: Item) -> None:
        for item in items:
            assert self.intake.put(item, self.generation)

    def hear(self, samples: NDArray[np.float32], start: int = 0, step: int = 2000) -> None:
        for first in range(0, len(samples), step):
            self.put(Chunk(22_100, start + first, samples[first : first + step]))

    def work(self) -> None:
        while (turn := self.lane.turn(self.now_s)) is not None:
            self.take(turn)

    def take(self, turn: Turn | None) -> None:
        assert turn is not None
        self.turns.append(turn)
        if turn.drain:
            drained = self.lane.pipeline.drain(self.detector.scores(turn.windows))
            self.out += [timed.output for timed in drained]
            self.clocks.update({timed.output.epoch: timed.timeline for timed in drained})

    def events(self, kind: type[T]) -> list[T]:
        return [one for one in self.out if isinstance(one, kind)]

    def cells(self, epoch: int) -> int:
        return sum(len(one.scores) for one in self.events(CellScores) if one.epoch == epoch)


def check_ends(stream: Stream, reason: str, epoch: int = 0) -> None:
    """Every onset has its offset, with end reason `reason` if the event was open at the epoch's end, as some were."""
    end = CELL * stream.cells(epoch)
    offsets = [one for one in stream.events(Offset) if one.epoch == epoch]
    assert {one.event_id for one in offsets} == {one.event_id for one in stream.events(Onset) if one.epoch == epoch}
    assert {one.end_reason for one in offsets if one.offset >= end} == {reason}
    assert {one.end_reason for one in offsets if one.offset < end} == {"silence"}


def in_an_event() -> Stream:
    """A stream that has pushed 6 s or more and has an open event."""
    stream = Stream()
    stream.put(Opened(1, True, False, live=True))
    audio = bursts(30.0)
    for first in range(0, len(audio), 4000):
        stream.hear(audio[first : first + 4000], start=first)
        stream.work()
        if first > 6 * 22_100 and stream.lane.pipeline.open_events:
            return stream
    raise AssertionError("no event")


def test_a_stall_closes_open_events_without_any_data() -> None:
    stream = in_an_event()
    stream.now_s = 4.9
    assert stream.lane.turn(stream.now_s) is None
    stream.now_s = 5.0
    stream.work()
    assert stream.turns[-1].stalled
    check_ends(stream, "gap")
    stream.now_s = 500.0
    assert stream.lane.turn(stream.now_s) is None, "a stall is told once"


def test_after_a_stall_the_same_connection_continues_in_a_new_epoch_from_zero() -> None:
    """Delayed media arrives in a burst, with positions that do not reflect the stall."""
    audio = bursts(20.0)
    half = 10 * 22_100
    stream, whole = Stream(), Stream()
    stream.put(Opened(1, True, False, live=True), Anchor(0, 1000.0, "arrival"), Anchor(0, 999.5, "rtcp"))
    stream.hear(audio[:half])
    stream.work()
    stream.now_s = 6.0
    stream.work()
    stream.hear(audio[half:], start=half)
    stream.work()
    base = half // 221 * 221
    clock = stream.clocks[1]
    assert clock.utc_s(0) == pytest.approx(999.5 + base / 22_100)
    assert clock.arrival_utc_s(0) == pytest.approx(1000.0 + base / 22_100)
    assert clock.source == "rtcp"
    stream.put(Closed("eof", "", "silence", final=True, failed=False))
    stream.work()
    assert stream.cells(0) == 151
    # The second epoch equals a stream of the second half alone, but for the samples before the base.
    whole.put(Opened(1, True, False, live=True), Chunk(22_100, half - base, audio[half:]))
    whole.put(Closed("eof", "", "silence", final=True, failed=False))
    whole.work()
    assert stream.cells(1) == whole.cells(0)
    first = [(one.label, one.onset, one.offset) for one in stream.events(Offset) if one.epoch == 1]
    assert first == [(one.label, one.onset, one.offset) for one in whole.events(Offset)]


def test_a_recording_never_stalls() -> None:
    stream = Stream()
    stream.put(Opened(1, True, False, live=False))
    stream.hear(bursts(4.0))
    stream.work()
    stream.now_s = 1000.0
    assert stream.lane.turn(stream.now_s) is None


@pytest.mark.parametrize("marker", [Discontinuity("hole"), Closed("eof", "", "gap", final=False, failed=True)])
def test_a_break_ends_the_epoch_with_gap(marker: Discontinuity | Closed) -> None:
    stream = Stream()
    stream.put(Opened(1, True, False, live=True))
    stream.hear(bursts(6.0))
    stream.put(marker)
    stream.hear(bursts(6.0, seed=1))
    stream.work()
    assert stream.lane.pipeline.epoch == 1
    check_ends(stream, "gap")


def test_shut_down_closes_open_events_with_shutdown() -> None:
    stream = in_an_event()
    stream.take(stream.lane.shut_down("shutdown"))
    check_ends(stream, "shutdown")


def test_one_turn_is_bounded() -> None:
    stream = Stream()
    stream.put(Opened(1, True, False, live=True))
    stream.hear(bursts(1.0), step=50)
    before = len(stream.intake)
    stream.take(stream.lane.turn(0.0))
    assert before - len(stream.intake) == 32


@settings(max_examples=60)
@given(at=st.integers(0, 10**9), early=st.integers(0, 800), size=st.integers(221, 3000))
def test_restart_shifts_both_rates_and_pictures_alike(at: int, early: int, size: int) -> None:
    restart = Restart()
    restart.ask()
    (first,) = restart.push(Chunk(22_100, at, np.ones(size, np.float32)))
    assert isinstance(first, Chunk)
    assert first.start == 0, "no cell begins with a hole"
    assert 0 <= size - len(first.samples) < 221
    base = at + size - len(first.samples)
    start_16k = max(base * 160 // 221 - early, 0)
    (moved,) = restart.push(Chunk(16_000, start_16k, np.arange(3000, dtype=np.float32)))
    assert isinstance(moved, Chunk)
    assert (moved.start, moved.samples[0]) == (0, base * 160 // 221 - start_16k)
    picture = Picture(at + 5 * CELL, np.zeros((1, 1, 3), np.uint8))
    (shown,) = restart.push(picture)
    assert isinstance(shown, Picture)
    assert shown.at == picture.at - base
    assert restart.push(Anchor(at, 5.0, "rtcp")) == [Anchor(at - base, 5.0, "rtcp")]
