"""Stored clips, streamed at any hop and lookahead: what the daemon would have reported, and when."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from streamer.bundle import Bundle
from streamer.detect import Detector
from streamer.errors import UsageError
from streamer.networks.stream_crnn import StreamForm
from streamer.networks.weights import WeightsStore
from streamer.onsets import NOT_EARLY
from streamer.pipeline import Output, StreamPipeline, run
from streamer.replay.replayer import Replayer
from streamer.timeline import seconds
from streamer.types import CELL, SAMPLE_RATE_HZ, CellScores, Chunk, Offset, Onset, Window
from streamer.windows import StreamSettings
from tests.models import bursts, factories, pictures, seeded_bundle
from tests.train.test_cache import features, make_corpus
from tests.train.test_corpus import CLASSES
from train.data.clip import ClipCells, clip_cells
from train.data.dataset import Corpus
from train.evaluation.lookaheads import StreamedClip, stream_clip, streamed
from train.evaluation.measuring import predictions
from train.evaluation.stored import predict

SETTINGS = [
    StreamSettings(hop, lookahead, early_threshold=NOT_EARLY) for hop in (4, 8, 12, 40) for lookahead in (0, 7, 45)
]


class Counting(Detector):
    """A detector that counts its windows."""

    windows = 0

    def scores(self, windows: Sequence[Window]) -> list[CellScores]:
        self.windows += len(windows)
        return super().scores(windows)


def as_stream(bundle: Bundle, samples: NDArray[np.float32], settings: StreamSettings) -> list[Output]:
    """What the daemon's pipeline makes of sound that arrives in small pieces."""
    ids = map(str, count())
    pipeline = StreamPipeline(
        "s",
        factories(bundle.modalities),
        bundle.decoding,
        bundle.window_cells,
        settings,
        lambda: next(ids),
        carried=bundle.carried,
    )
    items = [Chunk(SAMPLE_RATE_HZ, at, samples[at : at + 733]) for at in range(0, len(samples), 733)]
    return [timed.output for timed in run(items, pipeline, Detector(bundle))]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return seeded_bundle(window_cells=100)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClipCells]:
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(path, bursts(12.0, seed=5), SAMPLE_RATE_HZ, subtype="FLOAT")
    return path, clip_cells(path, factories())


@pytest.fixture(scope="module")
def all_streamed(bundle: Bundle, clip: tuple[Path, ClipCells]) -> list[StreamedClip]:
    cells = clip[1]
    return stream_clip("clip", cells.values, cells.valid, Detector(bundle), bundle, SETTINGS)


@pytest.mark.parametrize("index", range(len(SETTINGS)), ids=[f"{s.hop_cells}-{s.lookahead_cells}" for s in SETTINGS])
def test_events_and_posteriors_are_those_of_the_daemons_pipeline(
    bundle: Bundle, all_streamed: list[StreamedClip], index: int
) -> None:
    outputs = as_stream(bundle, bursts(12.0, seed=5), SETTINGS[index])
    found = all_streamed[index]
    scores = np.concatenate([one.scores for one in outputs if isinstance(one, CellScores)])
    assert np.allclose(found.posteriors.cells, scores, atol=1e-5)
    offsets = [one for one in outputs if isinstance(one, Offset)]
    assert offsets
    assert sorted((one.onset_s, one.offset_s, one.label) for one in found.events) == sorted(
        (seconds(one.onset), seconds(one.offset), one.label) for one in offsets
    )
    onsets = sorted((seconds(one.onset), one.label) for one in outputs if isinstance(one, Onset))
    assert sorted((one.onset_s, one.label) for one in found.decided) == onsets


def test_the_events_are_those_of_replay(bundle: Bundle, clip: tuple[Path, ClipCells]) -> None:
    path, cells = clip
    replayed = Replayer(bundle, factories(), Detector(bundle), "stream").replay(str(path))
    (found,) = stream_clip("clip", cells.values, cells.valid, Detector(bundle), bundle, [StreamSettings()])
    assert found.events == replayed.events
    assert np.allclose(found.posteriors.cells, replayed.scores, atol=1e-5)
    assert np.allclose(found.posteriors.clip, replayed.tag_scores, atol=1e-5)
    assert found.coverage == replayed.coverage
    tags = predictions([found], bundle.decoding)["clip"].tags
    assert tags == replayed.tags


def test_a_decision_comes_when_its_lookahead_has_arrived_and_no_later_than_a_hop_after(
    all_streamed: list[StreamedClip], bundle: Bundle
) -> None:
    half = {label: one.median_cells // 2 for label, one in zip(bundle.classes, bundle.decoding.per_class, strict=True)}
    live = 0
    for settings, clip in zip(SETTINGS, all_streamed, strict=True):
        for one in clip.decided:
            if one.at_end:
                continue
            live += 1
            waited = (one.decided_s - one.onset_s) / seconds(CELL)
            least = settings.lookahead_cells + half[one.label]
            assert least < waited
            assert round(one.decided_s / seconds(CELL)) % settings.hop_cells == 0
            assert waited <= least + settings.hop_cells + 8 + 1e-6  # an onset may be told up to 8 cells back
    assert live > 50


def test_a_clip_that_ends_before_a_decision_says_so(all_streamed: list[StreamedClip]) -> None:
    for settings, clip in zip(SETTINGS, all_streamed, strict=True):
        end_s = clip.posteriors.duration_s
        assert {one.decided_s for one in clip.decided if one.at_end} <= {end_s}
        for one in clip.decided:
            if one.onset_s > end_s - seconds(CELL * settings.lookahead_cells):
                assert one.at_end


def test_early_decisions_leave_posteriors_as_they_are(clip: tuple[Path, ClipCells], bundle: Bundle) -> None:
    _, cells = clip
    final, early = (StreamSettings(4, 45, early_threshold=one) for one in (NOT_EARLY, 0.4))
    late, soon = stream_clip("clip", cells.values, cells.valid, Detector(bundle), bundle, [final, early])
    assert np.array_equal(late.posteriors.cells, soon.posteriors.cells)
    waits = [[one.decided_s - one.onset_s for one in of.decided if not one.at_end] for of in (late, soon)]
    assert min(waits[1]) < min(waits[0]) - seconds(CELL * 20)


def test_pictures_and_sound_arrive_side_by_side() -> None:
    bundle = seeded_bundle(("spectral", "vgg16"), window_cells=60)
    made = factories(("spectral", "vgg16"))
    cells = {}
    for name, factory in made.items():
        extractor = factory.new()
        items = pictures(6.0) if factory.want.pictures else [Chunk(SAMPLE_RATE_HZ, 0, bursts(6.0))]
        blocks = [*(extractor.push(item) for item in items), extractor.flush(90)]
        cells[name] = (
            np.concatenate([one.values for one in blocks])[:90],
            np.concatenate([one.valid for one in blocks])[:90],
        )
    cells["vgg16"][1][40:50] = False  # a hole in the picture alone
    values, valid = ({name: of[place] for name, of in cells.items()} for place in (0, 1))
    (found,) = stream_clip("c", values, valid, Detector(bundle), bundle, [StreamSettings(8, 45)])
    assert (found.coverage.cells, found.coverage.covered) == (90, 90)
    assert found.coverage.masked == {"spectral": 0, "vgg16": 10}
    assert not any(found.coverage.late_dropped.values())


def test_the_network_runs_once_for_each_window_and_once_for_the_multiples_of_a_hop(
    bundle: Bundle, clip: tuple[Path, ClipCells], all_streamed: list[StreamedClip]
) -> None:
    cells = clip[1]
    detector = Counting(bundle)
    stream_clip("clip", cells.values, cells.valid, detector, bundle, SETTINGS)
    assert detector.windows == -(-cells.cells // 4)  # every fourth cell, and the last one
    few = [
        StreamSettings(hop, 7, early_threshold=NOT_EARLY) for hop in (12, 8)
    ]  # neither holds the windows of the other
    assert [one.events for one in stream_clip("clip", cells.values, cells.valid, detector, bundle, few)] == [
        all_streamed[SETTINGS.index(one)].events for one in few
    ]


def test_a_clip_without_anything_has_no_events(bundle: Bundle) -> None:
    nothing = {"spectral": np.zeros((0, 4, 128), np.float32)}
    (found,) = stream_clip("c", nothing, {"spectral": np.zeros(0, bool)}, Detector(bundle), bundle, [StreamSettings()])
    assert (found.events, found.decided, found.posteriors.cells.shape) == ((), (), (0, 3))


def test_a_part_is_streamed_in_its_order_by_several_processes(tmp_path: Path) -> None:
    source, bundle = make_corpus(tmp_path, clip_s=5.0), seeded_bundle(classes=CLASSES, window_cells=60)
    bundle.save(tmp_path / "bundle")
    assert features(source, tmp_path / "features") == 0
    part = Corpus.read(source).part("train", tmp_path / "features", ["spectral"])
    settings = [StreamSettings(), StreamSettings(8, 8)]
    found = streamed(tmp_path / "bundle", part, settings, workers=2)
    assert list(found) == settings
    assert [one.posteriors.name for one in found[settings[0]]] == list(part.rows)
    for name, clip in zip(part.clips, found[settings[0]], strict=True):
        replayed = Replayer.of(bundle, WeightsStore(tmp_path, {}), "stream").replay(str(name))
        assert clip.events == replayed.events
    with pytest.raises(UsageError, match="a hop of 8 and a lookahead of 60 cells exceed the 60 cells of a window"):
        streamed(tmp_path / "bundle", part, [StreamSettings(8, 60)], workers=1)
    seeded_bundle(classes=CLASSES, stream=StreamForm(3)).save(tmp_path / "stream")
    with pytest.raises(UsageError, match="a lookahead of 2 cells is less than the 3 that seeded needs"):
        streamed(tmp_path / "stream", part, [StreamSettings(4, 2)], workers=1)


def test_decoding_whole_clips_is_not_streaming(bundle: Bundle, all_streamed: list[StreamedClip]) -> None:
    """With a short lookahead the two differ, or the curve would be flat."""
    offline = predict([all_streamed[0].posteriors], bundle.decoding)["clip"].events
    assert offline != all_streamed[2].events


@pytest.mark.parametrize("settings", [StreamSettings(4, 6), StreamSettings(8, 20)])
def test_a_network_of_the_stream_form_is_the_daemons_too(
    clip: tuple[Path, ClipCells], settings: StreamSettings
) -> None:
    bundle = seeded_bundle(stream=StreamForm())
    outputs = as_stream(bundle, bursts(12.0, seed=5), settings)
    (found,) = stream_clip("clip", clip[1].values, clip[1].valid, Detector(bundle), bundle, [settings])
    scores = np.concatenate([one.scores for one in outputs if isinstance(one, CellScores)])
    assert np.allclose(found.posteriors.cells, scores, atol=1e-5)
    onsets = sorted((one.label, seconds(one.onset)) for one in outputs if isinstance(one, Onset))
    assert sorted((one.label, one.onset_s) for one in found.decided) == onsets
    assert onsets
