"""The inference thread with real queues, pipelines and networks; its clock is faked where time matters."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest

from streamer.features.base import ExtractorFactory
from streamer.media.pace import Arrival
from streamer.pipeline import StreamPipeline
from streamer.runtime.board import Board, StreamView
from streamer.runtime.intake import Closed, Intake, Item, Opened
from streamer.runtime.lane import Lane
from streamer.runtime.load import Load
from streamer.runtime.metrics import Metrics
from streamer.runtime.model import Model
from streamer.runtime.outbox import Outbox
from streamer.runtime.stopwatch import Stopwatch
from streamer.runtime.worker import Parts, Worker
from streamer.sinks.wire import Message, OffsetMessage, OnsetMessage, ScoresMessage, TagsMessage, kind
from streamer.types import CELL, SAMPLE_RATE_HZ, Anchor, Chunk
from streamer.windows import StreamSettings
from tests.models import SlowGrey, bursts, factories, pictures, seeded_bundle


class Clock:
    """A clock that stands still until it is advanced, or follows the real one."""

    def __init__(self, *, real: bool) -> None:
        self._real = real
        self.now_s = 100.0

    def __call__(self) -> float:
        return time.monotonic() if self._real else self.now_s


class Stream:
    """A stream's queue, and ways to fill it."""

    def __init__(self, name: str, intake: Intake) -> None:
        self.name = name
        self.intake = intake
        self._generation = intake.attach()

    def put(self, *items: Item) -> None:
        for item in items:
            assert self.intake.put(item, self._generation)


class Working:
    """A worker of some streams that is not running yet."""

    def __init__(
        self,
        streams: int,
        *,
        threads: int = 1,
        modalities: Sequence[str] = ("spectral",),
        made: dict[str, ExtractorFactory] | None = None,
        real_time: bool = False,
        tags: bool = False,
        scores: bool = False,
        limit_s: float = 1000.0,
    ) -> None:
        bundle = seeded_bundle(modalities)
        made = made or factories(modalities)
        self.model = Model.of(bundle, made)
        names = [f"s{index}" for index in range(streams)]
        ids = count()
        self.clock = Clock(real=real_time)
        self.metrics = Metrics("0", "seeded", names, bundle.classes)
        self.board = Board([StreamView(name, "x") for name in names], self.metrics, self.clock)
        self.outbox = Outbox(100_000, lambda message: self.metrics.message_dropped(kind(message)))
        self.crashes: list[BaseException] = []
        wake = threading.Event()
        stopwatch = Stopwatch(self.metrics)
        self.streams: list[Stream] = []
        self.lanes: list[Lane] = []
        for name in names:

            def dropped(reason: str, number: int, name: str = name) -> None:
                self.metrics.dropped(name, reason, number)

            intake = Intake(limit_s=limit_s, picture_limit=1000, clock_s=self.clock, dropped=dropped, wake=wake.set)
            pipeline = StreamPipeline(
                name,
                made,
                bundle.decoding,
                bundle.window_cells,
                StreamSettings(),
                lambda: f"e{next(ids)}",
                stopwatch,
            )
            self.streams.append(Stream(name, intake))
            self.lanes.append(Lane(name, intake, pipeline, self.model, 5.0, self.clock))
        pictures_by = frozenset(name for name, factory in made.items() if factory.want.pictures)
        load = Load(stopwatch)
        load.uses_pictures(pictures_by, budget=0.5)
        parts = Parts(
            lanes=self.lanes,
            stopwatch=stopwatch,
            load=load,
            board=self.board,
            metrics=self.metrics,
            outbox=self.outbox,
            settings=StreamSettings(),
            threads=threads,
            with_tags=tags,
            with_scores=scores,
        )
        self.worker = Worker(parts, self.clock, wake, self.crashes.append)

    def opened(self, stream: int, *, live: bool, has_video: bool = False, has_audio: bool = True) -> None:
        """Open a connection of the stream."""
        name = self.streams[stream].name
        self.board.connecting(name)
        self.board.opened(name, 1, live=live, has_audio=has_audio, has_video=has_video)
        self.streams[stream].put(Opened(1, has_audio, has_video, live=live))

    def work(self) -> None:
        while self.worker.step():
            pass

    def sent(self, stream: int | None = None) -> list[Message]:
        name = None if stream is None else self.streams[stream].name
        return [one.message for one in self.outbox.take(0.0) if name in (None, getattr(one.message, "stream", ""))]

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"earwitness_{name}", labels) or 0.0


def hear(stream: Stream, seconds: float, seed: int = 0) -> None:
    audio = bursts(seconds, seed)
    for first in range(0, len(audio), 2000):
        stream.put(Chunk(SAMPLE_RATE_HZ, first, audio[first : first + 2000]))


def test_streams_share_a_batch_and_each_gets_the_same_scores_as_alone() -> None:
    together, alone = Working(2, tags=True), [Working(1, tags=True), Working(1, tags=True)]
    for index, single in enumerate(alone):
        for stream, working in ((index, together), (0, single)):
            working.opened(stream, live=True)
            hear(working.streams[stream], 8.0, seed=index)
            working.streams[stream].put(Closed("eof", "reached its end", "silence", final=True, failed=False))
    together.work()
    sent = together.sent()
    for index, single in enumerate(alone):
        single.work()
        mine = [one for one in sent if getattr(one, "stream", "") == f"s{index}"]
        expected = single.sent()
        assert [type(one) for one in mine] == [type(one) for one in expected]
        assert [
            (one.label, one.onset_s, one.offset_s, one.end_reason) for one in mine if isinstance(one, OffsetMessage)
        ] == [
            (one.label, one.onset_s, one.offset_s, one.end_reason) for one in expected if isinstance(one, OffsetMessage)
        ]
        assert any(isinstance(one, OffsetMessage) for one in mine)
    assert together.sample("batch_windows_sum") / together.sample("batch_windows_count") > 1.9
    assert together.board.view("s0").state == together.board.view("s1").state == "ended"


@pytest.mark.parametrize("tags", [False, True])
@pytest.mark.parametrize("scores", [False, True])
def test_tags_and_scores_are_sent_if_enabled(tags: bool, scores: bool) -> None:
    working = Working(1, tags=tags, scores=scores)
    working.opened(0, live=True)
    hear(working.streams[0], 6.0)
    working.work()
    sent = working.sent()
    assert any(isinstance(one, TagsMessage) for one in sent) is tags
    assert any(isinstance(one, ScoresMessage) for one in sent) is scores
    assert any(isinstance(one, OnsetMessage) for one in sent)
    assert (
        working.sample("scored_cells_total", stream="s0")
        == sum(len(one.scores) for one in sent if isinstance(one, ScoresMessage))
        or not scores
    )


def test_an_onset_carries_its_arrival_time() -> None:
    working = Working(1)
    working.opened(0, live=True)
    working.streams[0].put(Anchor(0, 1_790_000_000.0, "arrival"))
    hear(working.streams[0], 6.0)
    working.work()
    onsets = [one for one in working.outbox.take(0.0) if isinstance(one.message, OnsetMessage)]
    assert onsets
    for one in onsets:
        assert isinstance(one.message, OnsetMessage)
        assert one.onset_arrival_utc_s == pytest.approx(1_790_000_000.0 + one.message.onset_s)


def test_a_stalled_stream_is_reported_without_any_data() -> None:
    working = Working(2)
    for index in range(2):
        working.opened(index, live=True)
        hear(working.streams[index], 6.0)
    working.work()
    assert working.board.view("s0").state == "streaming"
    working.clock.now_s += 3.0
    hear_later = bursts(12.0)[6 * SAMPLE_RATE_HZ :]
    working.streams[1].put(Chunk(SAMPLE_RATE_HZ, 6 * SAMPLE_RATE_HZ, hear_later))
    working.clock.now_s += 3.0
    working.work()
    assert working.board.view("s0").state == "stalled"
    assert working.board.view("s1").state == "streaming"
    offsets = {one.event_id for one in working.sent(0) if isinstance(one, OffsetMessage)}
    assert offsets
    assert not working.lanes[0].pipeline.open_events


def test_lag_and_coverage_are_measured_by_the_clock() -> None:
    working = Working(1)
    working.opened(0, live=True)
    hear(working.streams[0], 6.0)
    working.work()
    working.clock.now_s += 2.0
    working.streams[0].put(Chunk(SAMPLE_RATE_HZ, 6 * SAMPLE_RATE_HZ, bursts(0.1)))
    working.clock.now_s += 0.75
    working.worker.step()
    assert working.board.view("s0").lag_s == pytest.approx(0.75)
    assert working.board.view("s0").coverage == 1.0
    working.board.lost("s0", "timeout", "no media")
    for _ in range(20):
        working.clock.now_s += 1.0
        working.worker.step()
    assert working.board.view("s0").coverage < 0.5


def test_media_early_in_a_burst_waits_for_late_media() -> None:
    working = Working(2)
    for stream in (0, 1):
        working.opened(stream, live=True)
    working.work()
    second = np.zeros(SAMPLE_RATE_HZ, np.float32)
    for index in range(20):
        early = Arrival(lead_s=float(index), patience_s=30.0)
        assert working.streams[0].intake.put(Chunk(SAMPLE_RATE_HZ, index * SAMPLE_RATE_HZ, second), 1, early)
        working.streams[1].put(Chunk(SAMPLE_RATE_HZ, index * SAMPLE_RATE_HZ, second))
    assert working.streams[0].intake.take() is not None  # the rest of the burst is due in a second
    working.clock.now_s += 0.5
    while len(working.streams[1].intake):
        assert working.worker.step()
        assert len(working.streams[0].intake) == 19
    working.work()
    assert len(working.streams[0].intake) == 0


def test_stopping_empties_the_queues_and_ends_every_epoch_with_shutdown() -> None:
    working = Working(1, real_time=True)
    working.opened(0, live=True)
    hear(working.streams[0], 8.0)
    working.worker.stop()
    working.worker.start()
    working.worker.join(20.0)
    assert not working.worker.is_alive()
    sent = working.sent()
    onsets = {one.event_id for one in sent if isinstance(one, OnsetMessage)}
    offsets = {one.event_id: one.end_reason for one in sent if isinstance(one, OffsetMessage)}
    assert onsets == set(offsets)
    assert "shutdown" in offsets.values()
    assert not working.crashes


def test_an_unexpected_exception_is_passed_on() -> None:
    working = Working(1, real_time=True)
    working.streams[0].put(Opened(1, True, False, live=True))
    working.streams[0].put(Chunk(SAMPLE_RATE_HZ, 0, np.zeros((1000, 2), np.float32)))  # two channels
    working.worker.start()
    working.worker.join(10.0)
    assert not working.worker.is_alive()
    assert len(working.crashes) == 1


def feed(stream: Stream, seconds: float, done: threading.Event) -> None:
    """Deliver audio like a camera, 0.1 s at a time, on the real clock."""
    audio, began_s = bursts(seconds, 3), time.monotonic()
    step = SAMPLE_RATE_HZ // 10
    for first in range(0, len(audio) - step + 1, step):
        time.sleep(max(0.0, began_s + (first + step) / SAMPLE_RATE_HZ - time.monotonic()))
        stream.put(Chunk(SAMPLE_RATE_HZ, first, audio[first : first + step]))
    done.set()


@pytest.mark.parametrize("recordings", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_recording_with_too_expensive_pictures_does_not_starve_a_live_stream(
    recordings: int,
) -> None:
    """VGG16 takes a third of a second per picture, in batches of eight; here it takes a fifth of that."""
    cost_s = 0.06
    pass_s = 8 * cost_s
    made = {**factories(("spectral",)), "vgg16": SlowGrey(cost_s)}
    working = Working(1 + recordings, modalities=("spectral", "vgg16"), made=made, real_time=True, limit_s=5.0)
    working.opened(0, live=True)
    for index in range(recordings):
        working.opened(1 + index, live=False, has_audio=False, has_video=True)
        working.streams[1 + index].put(*pictures(30.0, fps=15.0))
    done = threading.Event()
    feeder = threading.Thread(target=feed, args=(working.streams[0], 12.0, done))
    late_s: list[float] = []
    working.worker.start()
    feeder.start()
    while not done.wait(0.02):
        late_s.append(working.streams[0].intake.late_s())
    feeder.join()
    working.worker.stop()
    working.worker.join(20.0)
    print(f"\nlive media late by at most {max(late_s):.2f} s beside {recordings} recordings; a pass is {pass_s:.2f} s")
    assert not working.crashes
    assert working.sample("dropped_total", stream="s0", reason="queue_audio") == 0
    # A running pass can't be interrupted; then the live stream is served until it is on time again.
    assert max(late_s) < 2 * pass_s + 0.25
    # The recordings progressed meanwhile.
    assert working.sample("scored_cells_total", stream="s0") > 0
    assert made["vgg16"].looked_at > 12.0 / cost_s / 3  # type: ignore[attr-defined]


def test_recordings_take_turns_in_order() -> None:
    """If only one recording fits between two turns of the live stream, it is a different one each time."""
    made = {**factories(("spectral",)), "vgg16": SlowGrey(0.03)}
    working = Working(4, modalities=("spectral", "vgg16"), made=made, real_time=True)
    working.opened(0, live=True)
    for index in range(1, 4):
        working.opened(index, live=False, has_audio=False, has_video=True)
        working.streams[index].put(*pictures(20.0, fps=15.0))
    for _ in range(12):
        working.worker.step()
    left = [len(stream.intake) for stream in working.streams[1:]]
    assert max(left) - min(left) < 40
    assert max(left) < 290


def test_a_worker_that_is_behind_scores_less_often_and_loses_no_cell() -> None:
    working = Working(2, scores=True)
    for number in range(2):
        working.opened(number, live=True)
    sound = bursts(40.0)
    step = SAMPLE_RATE_HZ // 2
    for begin in range(0, len(sound), step):
        for stream in working.streams:
            stream.put(Chunk(SAMPLE_RATE_HZ, begin, sound[begin : begin + step]))
        working.clock.now_s += 0.5
    assert working.worker.step()  # 40 s are waiting
    assert working.sample("hop_stretch", stream="s0") == 2.0
    working.work()
    for lane in working.lanes:
        assert lane.pipeline.settings.hop_cells == 16
    scored = [one for one in working.sent(0) if isinstance(one, ScoresMessage)]
    starts = [round(one.start_s * SAMPLE_RATE_HZ / CELL) for one in scored]
    lengths = [len(one.scores) for one in scored]
    assert starts == [sum(lengths[:index]) for index in range(len(lengths))]
    assert 16 in lengths
    for _ in range(60):
        working.clock.now_s += 0.5
        working.worker.step()
    assert working.sample("hop_stretch", stream="s0") == 1.0
