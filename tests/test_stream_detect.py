"""Streams of the stream form: windows of new cells, what is remembered of each epoch, batches across streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.bundle import Bundle
from streamer.decoding import Decoding
from streamer.detect import Detector
from streamer.events import decode_clip
from streamer.networks.context_gru import Context, spans
from streamer.networks.crnn import linear_pooling
from streamer.networks.stream_crnn import StreamCrnn, StreamForm
from streamer.onsets import BACKDATE_CELLS
from streamer.pipeline import WHOLE_CLIP, WHOLE_CLIP_WINDOW, StreamPipeline, run
from streamer.replay.replayer import Replayer
from streamer.replay.truth import labelled
from streamer.types import SAMPLE_RATE_HZ, Cells, CellScores, Chunk, Discontinuity, Floats, MediaItem, Offset, Window
from streamer.windows import Coverage, StreamSettings, Windower
from tests.make_media import make_clip
from tests.models import SHAPES, bursts, factories, seeded_bundle

FORM = StreamForm(ahead_cells=2)
MODALITIES = ("spectral", "vggish")
BUNDLE = seeded_bundle(MODALITIES, stream=FORM, window_cells=40)
DETECTOR = Detector(BUNDLE)
SPECTRAL = seeded_bundle(stream=FORM)
TOLERANCE = 1e-5


def media(cells: int, seed: int) -> dict[str, Cells]:
    random = np.random.default_rng(seed)
    made = {}
    for name in MODALITIES:
        valid = random.random(cells) < 0.9
        values = np.abs(random.normal(0, 3, (cells, *SHAPES[name]))).astype(np.float32)
        values[~valid] = 0
        made[name] = Cells(0, values, valid)
    return made


def part(cells: Cells, start: int, stop: int) -> Cells:
    return Cells(start, cells.values[start:stop], cells.valid[start:stop])


def ended(windower: Windower, data: dict[str, Cells]) -> list[Window]:
    """The windows at the end: an extractor gives its last cell when it is flushed."""
    cells = len(data["spectral"])
    return windower.flush(cells, {name: part(one, cells - 1, cells) for name, one in data.items()})


def windower_of(hop: int, lookahead: int, stream: str = "door") -> Windower:
    return Windower(
        stream,
        0,
        {name: SHAPES[name] for name in MODALITIES},
        MODALITIES,
        window_cells=BUNDLE.window_cells,
        hop_cells=hop,
        lookahead_cells=lookahead,
        skew_cells=1000,
        carried=True,
    )


def offline(bundle: Bundle, data: dict[str, Cells], context: Context | None) -> Floats:
    """The whole epoch at once, each cell in its context, (cells, classes)."""
    network = bundle.network()
    assert isinstance(network, StreamCrnn)
    network.context = context
    with torch.inference_mode():
        out = network(
            {name: torch.from_numpy(cells.values[None]) for name, cells in data.items()},
            {name: torch.from_numpy(cells.valid[None]) for name, cells in data.items()},
        )
    return np.asarray(out.cells[0].numpy())


def joined(scores: Sequence[CellScores]) -> Floats:
    assert [cell for one in scores for cell in range(one.start, one.start + len(one.scores))] == list(
        range(scores[-1].start + len(scores[-1].scores))
    )
    return np.concatenate([one.scores for one in scores])


settings_of_streams = st.tuples(st.integers(1, 12), st.integers(2, 20))


@settings(max_examples=30)
@given(st.integers(1, 90), settings_of_streams, st.lists(st.integers(0, 90), max_size=20), st.integers(0, 2**32 - 1))
def test_cells_in_any_pieces_have_the_scores_of_the_whole_epoch(
    cells: int, hop_and_lookahead: tuple[int, int], cuts: list[int], seed: int
) -> None:
    hop, lookahead = hop_and_lookahead
    data = media(cells, seed)
    windower = windower_of(hop, lookahead)
    scores: list[CellScores] = []
    for start, stop in pairwise([0, *sorted({min(cut, cells - 1) for cut in cuts}), cells - 1]):
        windows: list[Window] = []
        for name in MODALITIES:
            windows += windower.push(name, part(data[name], start, stop))
        scores += DETECTOR.scores(windows)
    scores += DETECTOR.scores(ended(windower, data))
    wanted = offline(BUNDLE, data, Context(lookahead, hop))
    assert np.abs(joined(scores) - wanted).max() <= TOLERANCE
    there = np.any([one.valid for one in data.values()], axis=0)
    assert np.array_equal(np.concatenate([one.covered for one in scores]), there)
    missing = {name: cells - int(one.valid.sum()) for name, one in data.items()}
    assert windower.coverage == Coverage(cells, int(there.sum()), missing, dict.fromkeys(MODALITIES, 0))


def test_a_window_has_new_cells_alone_and_tags_and_newest_scores_of_the_last_window() -> None:
    data = media(100, 4)
    windower = windower_of(8, 10)
    windows = [
        window
        for cell in range(99)
        for name in MODALITIES
        for window in windower.push(name, part(data[name], cell, cell + 1))
    ]
    windows += ended(windower, data)
    assert [len(window) for window in windows] == [16, *[8] * 10, 4]
    assert [window.start for window in windows] == [0, *range(16, 104, 8)]
    for one, window in zip(DETECTOR.scores(windows), windows, strict=True):
        assert one.newest is not None
        last = window is windows[-1]
        stop = window.start + len(window) - (0 if last else FORM.ahead_cells)
        assert (one.tags_stop, one.newest.stop) == (stop, window.start + len(window))
        assert one.tags_start == one.newest.start == max(window.start + len(window) - BUNDLE.window_cells, 0)
        known = torch.from_numpy(one.newest.scores[: stop - one.newest.start])
        assert np.array_equal(one.tags, linear_pooling(known[None])[0].numpy())


def test_where_an_event_may_begin_the_cells_before_it_are_scored_again_with_all_that_is_known() -> None:
    """Backwards; what the second layer made of them forwards stays as it was when they were decided."""
    moved = 0
    for cells in range(40, 70):
        data = media(cells, cells)
        windower = windower_of(4, 6)
        windows = [window for name in MODALITIES for window in windower.push(name, part(data[name], 0, cells - 1))]
        *before, last = DETECTOR.scores(windows + ended(windower, data))
        assert last.newest is not None
        again = slice(last.start - BACKDATE_CELLS, last.start)
        found = last.newest.scores[again.start - last.newest.start : again.stop - last.newest.start]
        final = joined(before)[again]
        if np.array_equal(found, final):
            continue
        known = scored_again(data, Context(6, 4))[again]
        assert np.abs(found - known).max() <= TOLERANCE
        moved += bool(np.abs(found - final).max() > 1e-4)
    assert moved > 5


def scored_again(data: dict[str, Cells], context: Context) -> Floats:
    """All cells of an epoch as they were decided forwards, and with all of it backwards, (cells, classes)."""
    network = BUNDLE.network()
    assert isinstance(network, StreamCrnn)
    features = {name: torch.from_numpy(cells.values[None]) for name, cells in data.items()}
    valid = {name: torch.from_numpy(cells.valid[None]) for name, cells in data.items()}
    state, size, heard = network.begin(features), network.gru.hidden_size, []
    with torch.inference_mode():
        for one in (context, None):
            decided = spans(len(data["spectral"]), one, network.ahead_cells)
            fused, tails, covered = network._whole(features, valid, state.peak, [span.edge for span in decided[:-1]])
            heard.append(network.gru(fused, state.hidden, decided, tails))
        logits = network._classified(torch.cat([heard[0][:, :, :size], heard[1][:, :, size:]], dim=2))
    return np.asarray((torch.sigmoid(logits) * covered[:, :, None])[0].numpy())


def test_where_no_event_may_begin_nothing_is_scored_again() -> None:
    high = tuple(replace(one, onset_threshold=1.0) for one in BUNDLE.decoding.per_class)
    tensors = {**BUNDLE.tensors, "classify.weight": BUNDLE.tensors["classify.weight"] / 10}  # no score is rounded to 1
    detector = Detector(replace(BUNDLE, decoding=Decoding(BUNDLE.classes, high), tensors=tensors))
    data = media(60, 3)
    windower = windower_of(4, 6)
    windows = [window for name in MODALITIES for window in windower.push(name, part(data[name], 0, 59))]
    *before, last = detector.scores(windows + ended(windower, data))
    assert last.newest is not None
    known = last.newest.scores[: last.start - last.newest.start]
    assert np.array_equal(known, joined(before)[last.newest.start :])


def test_streams_share_batches_and_do_not_mix() -> None:
    streams = {f"stream{index}": media(60, index) for index in range(5)}
    windowers = {name: windower_of(4, 6, name) for name in streams}
    found: dict[str, list[CellScores]] = {name: [] for name in streams}
    for start, stop in [(0, 9), (9, 31), (31, 59)]:
        due: list[Window] = []
        for index, (name, data) in enumerate(streams.items()):
            # Some streams are behind others, and bring several windows at once.
            first, end = max(start - 2 * index, 0), stop - 2 * index if stop < 59 else 59
            for modality in MODALITIES:
                due += windowers[name].push(modality, part(data[modality], first, end))
        for window, one in zip(due, DETECTOR.scores(due), strict=True):
            assert window.stream == one.stream
            found[one.stream].append(one)
    for name, data in streams.items():
        found[name] += DETECTOR.scores(ended(windowers[name], data))
        assert np.abs(joined(found[name]) - offline(BUNDLE, data, Context(6, 4))).max() <= TOLERANCE


def test_settings_that_change_decide_each_cell_once() -> None:
    data = media(120, 2)
    windower = windower_of(4, 6)
    scores: list[CellScores] = []
    for cell in range(119):
        if cell in (30, 60, 90):
            hop, lookahead = {30: (8, 20), 60: (2, 2), 90: (12, 9)}[cell]
            windower.retune(hop_cells=hop, lookahead_cells=lookahead, skew_cells=30)
        for name in MODALITIES:
            scores += DETECTOR.scores(windower.push(name, part(data[name], cell, cell + 1)))
    scores += DETECTOR.scores(ended(windower, data))
    assert len(joined(scores)) == 120


def test_a_lookahead_that_is_too_short_is_said() -> None:
    windower = windower_of(4, 1)
    data = media(20, 1)
    windower.push("spectral", part(data["spectral"], 0, 20))
    with pytest.raises(ValueError, match="the lookahead is shorter than the network's"):
        DETECTOR.scores(windower.push("vggish", part(data["vggish"], 0, 20)))


def test_a_window_without_memory_is_refused() -> None:
    data = media(20, 1)
    window = Window(
        "door", 0, 0, {n: one.values for n, one in data.items()}, {n: one.valid for n, one in data.items()}, 0, 9
    )
    with pytest.raises(ValueError, match="windows that carry its memory"):
        DETECTOR.scores([window])


def pipeline_of(hop: int = 4, lookahead: int = 6, *, whole: bool = False) -> StreamPipeline:
    ids = count()
    return StreamPipeline(
        "door",
        factories(),
        SPECTRAL.decoding,
        WHOLE_CLIP_WINDOW if whole else SPECTRAL.window_cells,
        WHOLE_CLIP if whole else StreamSettings(hop, lookahead),
        lambda: f"event{next(ids)}",
        carried=True,
    )


def chunks(samples: NDArray[np.float32], step: int = 1000) -> list[MediaItem]:
    return [Chunk(SAMPLE_RATE_HZ, start, samples[start : start + step]) for start in range(0, len(samples), step)]


def scores_of(items: Sequence[MediaItem], pipeline: StreamPipeline, epoch: int = 0) -> Floats:
    outputs = [timed.output for timed in run(items, pipeline, Detector(SPECTRAL))]
    return joined([one for one in outputs if isinstance(one, CellScores) and one.epoch == epoch])


def test_an_epoch_remembers_nothing_of_the_one_before() -> None:
    first, second = bursts(4.0, seed=1), bursts(3.0, seed=2)
    both = scores_of([*chunks(first), Discontinuity("pts_jump"), *chunks(second)], pipeline_of(), epoch=1)
    assert np.array_equal(both, scores_of(chunks(second), pipeline_of()))


@settings(max_examples=8)
@given(st.integers(1, 40_000), st.integers(2_000, 60_000))
def test_sound_in_any_chunks_has_the_same_scores(step: int, length: int) -> None:
    samples = bursts(3.0, seed=5)[:length]
    found = scores_of(chunks(samples, step), pipeline_of())
    assert np.array_equal(found, scores_of(chunks(samples, len(samples)), pipeline_of()))


def test_replay_knows_both_modes(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.wav", audio="pcm", rate_hz=SAMPLE_RATE_HZ, samples=bursts(14.0, seed=3))
    whole = Replayer(SPECTRAL, factories(), Detector(SPECTRAL), "clip").replay(str(tmp_path / "clip.wav"))
    settings = StreamSettings(lookahead_cells=30)
    replayer = Replayer(SPECTRAL, factories(), Detector(SPECTRAL), "stream", settings=settings)
    stream = replayer.replay(str(tmp_path / "clip.wav"))
    assert len(whole.runs) == 1
    assert whole.scores.shape == stream.scores.shape
    assert whole.events == labelled(decode_clip("clip", whole.scores, SPECTRAL.decoding))
    assert len(whole.events) > 3
    last = slice(-settings.lookahead_cells, None)
    assert np.abs(whole.scores[last] - stream.scores[last]).max() <= TOLERANCE, "the last cells hear all there is"
    assert whole.coverage == stream.coverage


def test_events_of_a_stream_are_decided_by_their_final_scores() -> None:
    samples = bursts(10.0, seed=9)
    outputs = [timed.output for timed in run(chunks(samples), pipeline_of(), Detector(SPECTRAL))]
    final = joined([one for one in outputs if isinstance(one, CellScores)])
    wanted = labelled(decode_clip("door", final, SPECTRAL.decoding))
    found = labelled(one for one in outputs if isinstance(one, Offset))
    assert sorted((one.label, one.offset_s) for one in found) == sorted((one.label, one.offset_s) for one in wanted)
    assert len(found) > 2
