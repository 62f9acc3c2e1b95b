from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.bundle import Bundle
from streamer.detect import Detector
from streamer.errors import SourceError
from streamer.pipeline import WHOLE_CLIP, WHOLE_CLIP_WINDOW, Output, StreamPipeline, TimedOutput, run
from streamer.types import (
    CELL,
    SAMPLE_RATE_HZ,
    Anchor,
    CellScores,
    Chunk,
    Discontinuity,
    MediaItem,
    Offset,
    Onset,
    Picture,
    Window,
    cells_in,
)
from streamer.windows import StreamSettings
from tests.models import GreyExtractor, bursts, factories, pictures, seeded_bundle

ALL = ("spectral", "vggish", "vgg16")
SHORT = 40  # cells of a window that keeps tests fast
SETTINGS = StreamSettings(lookahead_cells=15)  # that fit in it
BUNDLES: dict[tuple[str, ...], Bundle] = {
    names: seeded_bundle(names, window_cells=SHORT) for names in (("spectral",), ("spectral", "vgg16"), ALL)
}
DETECTORS: dict[tuple[str, ...], Detector] = {names: Detector(bundle) for names, bundle in BUNDLES.items()}
FACTORIES = factories(ALL)


def pipeline_of(
    modalities: tuple[str, ...] = ("spectral",),
    stream_settings: StreamSettings | None = None,
    window_cells: int = SHORT,
) -> StreamPipeline:
    ids = count()
    return StreamPipeline(
        "door",
        {name: FACTORIES[name] for name in modalities},
        BUNDLES[modalities].decoding,
        window_cells,
        stream_settings or SETTINGS,
        lambda: f"event{next(ids)}",
    )


def chunks(
    samples: NDArray[np.float32], cuts: Sequence[int] = (), rate_hz: int = SAMPLE_RATE_HZ, start: int = 0
) -> list[Chunk]:
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    return [Chunk(rate_hz, start + first, samples[first:last]) for first, last in pairwise(edges)]


def every(samples: NDArray[np.float32], step: int, rate_hz: int = SAMPLE_RATE_HZ) -> list[Chunk]:
    return chunks(samples, range(step, len(samples), step), rate_hz)


def in_time(*tracks: Sequence[Chunk | Picture]) -> list[MediaItem]:
    """Items as a demuxer gives them: by the time of their last sample."""

    def when(item: Chunk | Picture) -> float:
        return item.end / item.rate_hz if isinstance(item, Chunk) else item.at / SAMPLE_RATE_HZ

    together: list[Chunk | Picture] = [item for track in tracks for item in track]
    return [*sorted(together, key=when)]


def scored(
    items: Sequence[MediaItem], pipeline: StreamPipeline, modalities: tuple[str, ...] = ("spectral",)
) -> list[Output]:
    return [timed.output for timed in run(items, pipeline, DETECTORS[modalities])]


def untimed(outputs: Sequence[TimedOutput]) -> list[Output]:
    return [timed.output for timed in outputs]


def windows_of(items: Sequence[MediaItem], pipeline: StreamPipeline, modalities: tuple[str, ...]) -> list[Window]:
    """All windows; the network is asked too, because the pipeline wants its answers."""
    windows: list[Window] = []
    for item in items:
        due = pipeline.push(item)
        pipeline.drain(DETECTORS[modalities].scores(due))
        windows += due
    last = pipeline.finish("silence")
    pipeline.drain(DETECTORS[modalities].scores(last))
    return windows + last


def events_of(outputs: Sequence[Output]) -> list[Offset]:
    return sorted((e for e in outputs if isinstance(e, Offset)), key=lambda event: (event.label, event.onset))


def assert_same_events(one: list[Offset], other: list[Offset]) -> None:
    """Ids aside; windows that shared a batch differ by rounding."""
    assert [(e.label, e.onset, e.offset, e.end_reason) for e in one] == [
        (e.label, e.onset, e.offset, e.end_reason) for e in other
    ]
    assert [(e.confidence, e.peak) for e in one] == [pytest.approx((e.confidence, e.peak), abs=1e-5) for e in other]


def cells_of(outputs: Sequence[Output], epoch: int = 0) -> list[int]:
    return [
        one.start + index
        for one in outputs
        if isinstance(one, CellScores) and one.epoch == epoch
        for index in range(len(one.scores))
    ]


def assert_same_windows(one: list[Window], other: list[Window]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert (left.start, left.emit_start, left.emit_stop) == (right.start, right.emit_start, right.emit_stop)
        for name in left.features:
            assert np.array_equal(left.valid[name], right.valid[name])
            assert np.array_equal(left.features[name], right.features[name])


AUDIO = bursts(6.0, seed=5)
AT_ONCE = windows_of(chunks(AUDIO), pipeline_of(), ("spectral",))
EVENTS = events_of(scored(chunks(AUDIO), pipeline_of()))


@settings(max_examples=12)
@given(st.lists(st.integers(0, len(AUDIO)), max_size=60))
def test_any_chunking_gives_the_same_windows_bit_for_bit_and_the_same_events(cuts: list[int]) -> None:
    pieces = chunks(AUDIO, cuts)
    assert_same_windows(windows_of(pieces, pipeline_of(), ("spectral",)), AT_ONCE)
    outputs = scored(pieces, pipeline_of())
    assert cells_of(outputs) == list(range(cells_in(len(AUDIO))))
    assert_same_events(events_of(outputs), EVENTS)
    assert len(EVENTS) > 5  # or this would test nothing


@settings(max_examples=8)
@given(st.lists(st.integers(1, 4000), min_size=2, max_size=2), st.integers(0, 3))
def test_all_three_modalities_in_any_packets_give_the_same_windows(steps: list[int], seed: int) -> None:
    sound, sound_16k = bursts(4.0, seed), bursts(4.0, seed, 16_000)
    sight = pictures(4.0, seed=seed)
    whole = pipeline_of(ALL, replace(SETTINGS, skew_cells=1000))
    wanted = windows_of([*chunks(sound), *chunks(sound_16k, rate_hz=16_000), *sight], whole, ALL)
    items = in_time(every(sound, steps[0]), every(sound_16k, steps[1], 16_000), sight)
    streamed = pipeline_of(ALL)
    assert_same_windows(windows_of(items, streamed, ALL), wanted)
    assert streamed.coverage.cells == streamed.coverage.covered == cells_in(len(sound))
    assert not any(streamed.coverage.late_dropped.values())


@settings(max_examples=15)
@given(st.integers(1, 60_000), st.integers(1, 12), st.integers(0, 20))
def test_every_cell_of_a_clip_of_any_length_is_decided_once(samples: int, hop: int, lookahead: int) -> None:
    pipeline = pipeline_of(stream_settings=StreamSettings(hop, lookahead))
    outputs = scored(every(AUDIO[:samples], 700), pipeline)
    assert cells_of(outputs) == list(range(cells_in(samples)))


def test_one_window_a_clip_decides_all_at_once() -> None:
    pipeline = pipeline_of(("spectral", "vgg16"), WHOLE_CLIP, WHOLE_CLIP_WINDOW)
    late_pictures: list[MediaItem] = [
        *every(AUDIO, 1024),
        *pictures(6.0),
    ]  # a file whose tracks lie one behind the other
    (window,) = windows_of(late_pictures, pipeline, ("spectral", "vgg16"))
    assert (window.start, window.emit_start, window.emit_stop) == (0, 0, cells_in(len(AUDIO)))
    assert window.valid["vgg16"].all()


def test_a_discontinuity_closes_events_with_gap_and_begins_an_epoch_of_its_own() -> None:
    second = bursts(3.0, seed=8)
    pipeline = pipeline_of()
    outputs = scored([*every(AUDIO, 1000), Discontinuity("pts_jump"), *every(second, 1000)], pipeline)
    assert pipeline.epoch == 2
    assert cells_of(outputs, 0) == list(range(cells_in(len(AUDIO))))
    assert cells_of(outputs, 1) == list(range(cells_in(len(second))))
    first_half = [one for one in outputs if one.epoch == 0]
    assert outputs[: len(first_half)] == first_half
    opened = {e.event_id: e.epoch for e in outputs if isinstance(e, Onset)}
    closed = {e.event_id: e.epoch for e in outputs if isinstance(e, Offset)}
    assert opened == closed
    ends = {e.end_reason for e in first_half if isinstance(e, Offset) and e.offset == cells_in(len(AUDIO)) * CELL}
    assert ends == {"gap"}
    alone = scored(every(second, 1000), pipeline_of())
    assert_same_events(events_of([one for one in outputs if one.epoch == 1]), events_of(alone))


def test_an_event_that_is_open_at_the_end_gets_the_reason() -> None:
    for reason in ("gap", "shutdown", "silence"):
        pipeline = pipeline_of()
        outputs: list[Output] = []
        for item in every(AUDIO, 1000):
            outputs += untimed(pipeline.drain(DETECTORS["spectral",].scores(pipeline.push(item))))
            if pipeline.open_events and item.end > 40_000:
                break
        assert pipeline.open_events
        outputs += untimed(pipeline.drain(DETECTORS["spectral",].scores(pipeline.finish(reason))))
        closed = [event for event in outputs if isinstance(event, Offset)]
        assert {event.event_id for event in closed} == {event.event_id for event in outputs if isinstance(event, Onset)}
        end = (max(cells_of(outputs, 0)) + 1) * CELL
        assert {event.end_reason for event in closed if event.offset == end} == {reason}
        assert {event.end_reason for event in closed if event.offset < end} == {"silence"}
        assert not pipeline.open_events


def test_long_events_are_closed_and_go_on() -> None:
    limit_s = 0.5
    outputs = scored(every(AUDIO, 1000), pipeline_of(stream_settings=replace(SETTINGS, max_event_s=limit_s)))
    offsets = [one for one in outputs if isinstance(one, Offset)]
    assert max(one.offset - one.onset for one in offsets) <= limit_s * SAMPLE_RATE_HZ
    assert "max_duration" in {one.end_reason for one in offsets}


def test_a_short_hole_is_masked_and_counted() -> None:
    hole = 30 * CELL, 36 * CELL
    items = [*chunks(AUDIO[: hole[0]], [9000]), *chunks(AUDIO[hole[1] :], [9000], start=hole[1])]
    pipeline = pipeline_of()
    outputs = scored(items, pipeline)
    assert cells_of(outputs) == list(range(cells_in(len(AUDIO))))
    uncovered = [
        one.start + index
        for one in outputs
        if isinstance(one, CellScores)
        for index, there in enumerate(one.covered)
        if not there
    ]
    assert set(range(30, 36)) <= set(uncovered) <= set(range(28, 38))
    assert pipeline.coverage.cells - pipeline.coverage.covered == len(uncovered)
    assert pipeline.coverage.masked == {"spectral": len(uncovered)}


def test_pictures_that_stall_do_not_hold_up_sound() -> None:
    modalities = ("spectral", "vgg16")
    stalled = [frame for frame in pictures(6.0) if frame.at < SAMPLE_RATE_HZ]
    pipeline = pipeline_of(modalities)
    heard = 0
    for item in in_time(every(AUDIO, 500), stalled):
        for window in (due := pipeline.push(item)):
            heard = window.start + len(window)
        pipeline.drain(DETECTORS[modalities].scores(due))
    assert heard >= cells_in(len(AUDIO)) - StreamSettings().hop_cells - 1
    pipeline.drain(DETECTORS[modalities].scores(pipeline.finish("silence")))
    coverage = pipeline.coverage
    assert coverage.cells == coverage.covered == cells_in(len(AUDIO))
    assert coverage.masked["vgg16"] >= cells_in(len(AUDIO)) - 16 - StreamSettings().skew_cells
    assert coverage.masked["spectral"] == 0


def test_a_source_without_pictures_is_scored_with_them_masked() -> None:
    pipeline = pipeline_of(("spectral", "vgg16"))
    pipeline.source_has(audio=True, pictures=False)
    outputs = scored(every(AUDIO, 1000), pipeline, ("spectral", "vgg16"))
    assert cells_of(outputs) == list(range(cells_in(len(AUDIO))))
    assert pipeline.coverage.masked == {"spectral": 0, "vgg16": cells_in(len(AUDIO))}


def test_what_the_source_has_may_change_between_epochs_only() -> None:
    pipeline = pipeline_of(("spectral", "vgg16"))
    pipeline.source_has(audio=True, pictures=False)
    scored(every(AUDIO, 1000), pipeline, ("spectral", "vgg16"))
    pipeline.source_has(audio=True, pictures=True)
    items = in_time(every(AUDIO, 1000), pictures(6.0))
    windows = windows_of(items[:-1], pipeline, ("spectral", "vgg16"))
    assert all(window.valid["vgg16"].all() for window in windows)
    pipeline.push(items[0])
    with pytest.raises(RuntimeError, match="within an epoch"):
        pipeline.source_has(audio=True, pictures=False)


def test_a_source_with_nothing_for_the_model_is_refused() -> None:
    with pytest.raises(SourceError, match="door: the source has none of the model's inputs") as caught:
        pipeline_of().source_has(audio=False, pictures=True)
    assert caught.value.reason == "no_audio"


@pytest.mark.parametrize(
    ("items", "cells"),
    [
        (chunks(AUDIO[:30_000]), cells_in(30_000)),
        (chunks(bursts(2.0, rate_hz=16_000), rate_hz=16_000), cells_in(2 * SAMPLE_RATE_HZ)),
        ([frame for frame in pictures(2.0) if frame.at < 29 * CELL], 29),
        (chunks(AUDIO[:100]), 0),
        (chunks(AUDIO[:0]), 0),
    ],
)
def test_an_epoch_ends_with_its_sound_or_else_with_its_last_picture(items: list[MediaItem], cells: int) -> None:
    outputs = scored(items, pipeline_of(ALL), ALL)
    assert cells_of(outputs) == list(range(cells))


def test_what_comes_out_has_the_clock_of_its_own_epoch_whenever_it_is_read() -> None:
    pipeline = pipeline_of()
    outputs: list[TimedOutput] = []
    second: list[MediaItem] = [Anchor(0, 2000.0, "arrival"), *every(AUDIO, 1000)]
    first: list[MediaItem] = [Anchor(0, 1000.0, "rtcp"), *every(AUDIO, 1000), Discontinuity("hole")]
    for item in [*first, *second]:
        outputs += pipeline.drain(DETECTORS["spectral",].scores(pipeline.push(item)))
    clocks = {timed.output.epoch: timed.timeline for timed in outputs}
    assert [clocks[epoch].utc_s(SAMPLE_RATE_HZ) for epoch in (0, 1)] == [1001.0, 2001.0]
    assert [clocks[epoch].source for epoch in (0, 1)] == ["rtcp", "arrival"]


def test_an_epoch_without_media_leaves_no_trace() -> None:
    pipeline = pipeline_of()
    pipeline.push(Anchor(0, 1000.0, "arrival"))
    assert pipeline.finish("gap") == []
    assert pipeline.drain([]) == []
    assert (pipeline.epoch, pipeline.clock) == (0, None)
    assert pipeline.finish("gap") == []


def test_windows_must_be_drained_before_going_on() -> None:
    pipeline = pipeline_of()
    windows = pipeline.push(chunks(AUDIO)[0])
    assert windows
    with pytest.raises(RuntimeError, match="drain the returned windows"):
        pipeline.push(chunks(AUDIO)[0])
    with pytest.raises(RuntimeError, match="drain the returned windows"):
        pipeline.finish("silence")
    with pytest.raises(RuntimeError, match=f"got 0 scores for {len(windows)} windows"):
        pipeline.drain([])


def test_pictures_can_be_shed_at_any_time_and_in_every_later_epoch() -> None:
    pipeline = pipeline_of(("spectral", "vgg16"))
    looked_at = []
    for stride in (1, 4, 0):
        pipeline.picture_stride = stride
        scored(in_time(every(AUDIO, 1000), pictures(6.0)), pipeline, ("spectral", "vgg16"))
        extractor = pipeline._extraction._extractors["vgg16"]
        assert isinstance(extractor, GreyExtractor)
        looked_at.append(extractor.looked_at)
    assert looked_at == [90, 23, 0]
    assert pipeline.picture_stride == 0


def test_a_timer_sees_each_modality() -> None:
    seen: list[str] = []

    class Watch:
        @contextmanager
        def stage(self, name: str) -> Iterator[None]:
            seen.append(name)
            yield

    made = {name: FACTORIES[name] for name in ("spectral", "vgg16")}
    bundle = BUNDLES["spectral", "vgg16"]
    pipeline = StreamPipeline("door", made, bundle.decoding, SHORT, SETTINGS, lambda: "id", Watch())
    pipeline.push(every(AUDIO, 1000)[0])
    pipeline.push(pictures(1.0)[0])
    pipeline.finish("silence")
    assert seen == ["spectral", "vgg16", "spectral", "vgg16"]


def test_an_ended_event_has_the_level_of_its_sound() -> None:
    samples = bursts(20)
    ended = [
        (timed.output, timed.level)
        for timed in run(every(samples, 4000), pipeline_of(), DETECTORS[("spectral",)])
        if isinstance(timed.output, Offset)
    ]
    assert ended
    for event, level in ended:
        assert level is not None
        power = float(samples[event.onset : event.offset].astype(np.float64).var())
        expected_dbfs = 10 * np.log10(power) if power > 0 else -150.0
        assert level.level_dbfs == pytest.approx(expected_dbfs, abs=0.5)  # cells have their own constant offsets
