from __future__ import annotations

import numpy as np
import pytest
import torch

from streamer.detect import MAX_BATCH, Detector
from streamer.types import Window
from tests.models import seeded_bundle

SHAPES: dict[str, tuple[int, ...]] = {"spectral": (4, 128), "vggish": (128,), "vgg16": (4096,)}


def window_of(
    modalities: tuple[str, ...], cells: int, emit: tuple[int, int], *, seed: int, start: int = 0, stream: str = "door"
) -> Window:
    random = np.random.default_rng(seed)
    return Window(
        stream=stream,
        epoch=1,
        start=start,
        features={name: random.random((cells, *SHAPES[name]), np.float32) for name in modalities},
        valid={name: random.random(cells) < 0.8 for name in modalities},
        emit_start=start + emit[0],
        emit_stop=start + emit[1],
    )


@pytest.mark.parametrize("modalities", [("spectral",), ("spectral", "vggish", "vgg16")])
def test_scores_are_the_network_s_for_the_decided_cells(modalities: tuple[str, ...]) -> None:
    bundle = seeded_bundle(modalities)
    window = window_of(modalities, 30, (5, 13), seed=1, start=40)
    (scores,) = Detector(bundle).scores([window])
    with torch.inference_mode():
        wanted = bundle.network()(
            {name: torch.from_numpy(window.features[name])[None] for name in modalities},
            {name: torch.from_numpy(window.valid[name])[None] for name in modalities},
        )
    assert np.array_equal(scores.scores, wanted.cells[0, 5:13].numpy())
    assert np.array_equal(scores.tags, wanted.clip[0].numpy())
    assert np.array_equal(scores.covered, np.any([window.valid[name][5:13] for name in modalities], axis=0))
    assert (scores.stream, scores.epoch, scores.start) == ("door", 1, 45)
    assert (scores.tags_start, scores.tags_stop) == (40, 70)


def test_windows_of_all_streams_and_lengths_come_back_in_their_order() -> None:
    detector = Detector(seeded_bundle())
    windows = [
        window_of(("spectral",), 20 + 4 * (index % 3), (index % 5, 12), seed=index, stream=f"stream{index % 4}")
        for index in range(3 * MAX_BATCH + 5)
    ]
    together = detector.scores(windows)
    for window, one in zip(windows, together, strict=True):
        (alone,) = detector.scores([window])
        assert (one.stream, one.start, len(one.scores)) == (window.stream, window.emit_start, alone.scores.shape[0])
        assert np.allclose(one.scores, alone.scores, atol=1e-5, rtol=0)
        assert np.allclose(one.tags, alone.tags, atol=1e-5, rtol=0)


def test_cells_without_any_modality_score_zero() -> None:
    window = window_of(("spectral",), 20, (0, 20), seed=3)
    window.valid["spectral"][:] = False
    (scores,) = Detector(seeded_bundle()).scores([window])
    assert not scores.scores.any()
    assert not scores.covered.any()
    assert not scores.tags.any()


def test_scores_do_not_share_memory_with_the_batch() -> None:
    window = window_of(("spectral",), 151, (0, 8), seed=4)
    (scores,) = Detector(seeded_bundle()).scores([window])
    assert scores.scores.base is None
    assert scores.tags.base is None


def test_nothing_in_nothing_out() -> None:
    assert Detector(seeded_bundle()).scores([]) == []
