"""Offline evaluation, `replay` and the stream's pipeline must be one and the same."""

from __future__ import annotations

import itertools
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.detect import Detector
from streamer.events import decode_clip
from streamer.features.spectral import Spectral
from streamer.networks.crnn import Posteriors
from streamer.pipeline import WHOLE_CLIP, WHOLE_CLIP_WINDOW, StreamPipeline, run
from streamer.replay.replayer import ClipResult, Replayer
from streamer.replay.truth import labelled
from streamer.types import SAMPLE_RATE_HZ, CellScores, Chunk, Offset, cells_in
from streamer.windows import StreamSettings
from tests.models import bursts, factories, seeded_bundle

BUNDLE = seeded_bundle()
DETECTOR = Detector(BUNDLE)


def offline(samples: NDArray[np.float32]) -> Posteriors:
    """What evaluation does: the whole clip through the extractor, all its cells through the network at once."""
    extractor = Spectral().new()
    blocks = [extractor.push(Chunk(SAMPLE_RATE_HZ, 0, samples)), extractor.flush(cells_in(len(samples)))]
    values = torch.from_numpy(np.concatenate([block.values for block in blocks])[None])
    valid = torch.from_numpy(np.concatenate([block.valid for block in blocks])[None])
    with torch.inference_mode():
        found: Posteriors = BUNDLE.network()({"spectral": values}, {"spectral": valid})
        return found


def replayed(path: Path, mode: str) -> ClipResult:
    return Replayer(BUNDLE, factories(), DETECTOR, mode).replay(str(path))


def write_wav(path: Path, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """A 16 bit file, and the samples as it holds them."""
    whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE_HZ)
        out.writeframes(whole.tobytes())
    return (whole / 32768).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.3, 2.4, 10.0, 13.7])
def test_replaying_a_clip_is_evaluating_it_offline(tmp_path: Path, seconds: float) -> None:
    samples = write_wav(tmp_path / "clip.wav", bursts(seconds, seed=3))
    wanted = offline(samples)
    result = replayed(tmp_path / "clip.wav", "clip")
    assert result.scores.shape == (cells_in(len(samples)), len(BUNDLE.classes))
    assert np.abs(result.scores - wanted.cells[0].numpy()).max() < 1e-5
    assert np.abs(result.tag_scores - wanted.clip[0].numpy()).max() < 1e-5
    assert result.events == labelled(decode_clip("clip", wanted.cells[0].numpy(), BUNDLE.decoding))
    assert result.duration_s == pytest.approx(seconds, abs=1e-4)


@settings(max_examples=10)
@given(st.integers(1, 100_000), st.lists(st.integers(0, 100_000), max_size=20))
def test_a_clip_in_any_pieces_is_the_same_clip(length: int, cuts: list[int]) -> None:
    samples = bursts(5.0, seed=1)[:length]
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    pieces = [Chunk(SAMPLE_RATE_HZ, a, samples[a:b]) for a, b in itertools.pairwise(edges)]
    pipeline = StreamPipeline("clip", factories(), BUNDLE.decoding, WHOLE_CLIP_WINDOW, WHOLE_CLIP, lambda: "id")
    outputs = [timed.output for timed in run(pieces, pipeline, DETECTOR)]
    wanted = offline(samples) if cells_in(length) else None
    scores = [output for output in outputs if isinstance(output, CellScores)]
    if wanted is None:
        assert not outputs
        return
    assert len(scores) == 1
    assert np.array_equal(scores[0].scores, wanted.cells[0].numpy())
    offsets = [output for output in outputs if isinstance(output, Offset)]
    assert labelled(offsets) == labelled(decode_clip("clip", scores[0].scores, BUNDLE.decoding))


def test_a_clip_of_less_than_a_window_and_its_lookahead_is_the_same_in_a_stream(tmp_path: Path) -> None:
    """Until the first hop has its lookahead, a stream has one window too."""
    write_wav(tmp_path / "clip.wav", bursts(0.9, seed=4))
    stream, clip = replayed(tmp_path / "clip.wav", "stream"), replayed(tmp_path / "clip.wav", "clip")
    assert np.array_equal(stream.scores, clip.scores)
    assert stream.events == clip.events


def test_a_stream_scores_as_many_cells_and_the_last_ones_with_the_same_window(tmp_path: Path) -> None:
    write_wav(tmp_path / "clip.wav", bursts(10.0, seed=4))
    stream, clip = replayed(tmp_path / "clip.wav", "stream"), replayed(tmp_path / "clip.wav", "clip")
    assert stream.scores.shape == clip.scores.shape == (151, len(BUNDLE.classes))
    assert stream.coverage == clip.coverage
    # The flush's window is the whole clip: it decides the cells that the last hop left open.
    last = 151 - 144 + StreamSettings().lookahead_cells
    assert np.abs(stream.scores[-last:] - clip.scores[-last:]).max() < 1e-5
