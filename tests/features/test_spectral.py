"""Spectral cells: against torchaudio's own transform, and the same for any chunking."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.features.spectral import Spectral, SpectralSpec
from streamer.types import CELL, HOP, SAMPLE_RATE_HZ, Cells, Chunk, Picture, cells_in

FACTORY = Spectral()
REACH = FACTORY.reach


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def joined(parts: list[Cells]) -> Cells:
    assert [part.start for part in parts] == list(np.cumsum([0, *(len(part) for part in parts[:-1])]))
    return Cells(0, np.concatenate([p.values for p in parts]), np.concatenate([p.valid for p in parts]))


def whole(samples: NDArray[np.float32]) -> Cells:
    extractor = FACTORY.new()
    return joined([extractor.push(Chunk(SAMPLE_RATE_HZ, 0, samples)), extractor.flush(cells_in(len(samples)))])


def test_ten_seconds_are_151_cells_as_torchaudio_computes_them() -> None:
    samples = noise(10 * SAMPLE_RATE_HZ)
    reference = torchaudio.transforms.MelSpectrogram(
        sample_rate=SAMPLE_RATE_HZ,
        n_fft=2048,
        hop_length=HOP,
        n_mels=128,
        f_min=0,
        power=1,
        center=True,
        pad_mode="constant",
        norm=None,
        mel_scale="slaney",
        window_fn=torch.hamming_window,
    )(torch.from_numpy(samples)).T
    cells = whole(samples)
    assert len(reference) == 604
    assert cells.values.shape == (151, 4, 128)
    assert cells.valid.all()
    assert np.abs(cells.values.reshape(604, 128) - reference.numpy()).max() < 1e-4 * reference.max()


@settings(max_examples=40)
@given(length=st.integers(0, 9 * CELL), cuts=st.lists(st.integers(0, 9 * CELL), max_size=12), seed=st.integers(0, 99))
def test_any_chunking_gives_the_same_cells(length: int, cuts: list[int], seed: int) -> None:
    samples = noise(length, seed)
    edges = [0, *sorted(min(cut, length) for cut in cuts), length]
    extractor = FACTORY.new()
    parts = [extractor.push(Chunk(SAMPLE_RATE_HZ, start, samples[start:stop])) for start, stop in pairwise(edges)]
    cells = joined([*parts, extractor.flush(cells_in(length) if length else 0)])
    once = whole(samples) if length else cells
    assert np.array_equal(cells.values, once.values)
    assert np.array_equal(cells.valid, once.valid)


def test_a_cell_comes_out_as_soon_as_its_last_frame_is_complete() -> None:
    extractor = FACTORY.new()
    enough = 3 * HOP + REACH
    assert len(extractor.push(Chunk(SAMPLE_RATE_HZ, 0, noise(enough - 1)))) == 0
    assert len(extractor.push(Chunk(SAMPLE_RATE_HZ, enough - 1, noise(1)))) == 1


def test_cells_that_touch_a_hole_are_masked_and_the_others_are_not_moved() -> None:
    samples = noise(40 * CELL)
    hole = slice(20 * CELL, 21 * CELL)
    extractor = FACTORY.new()
    parts = [
        extractor.push(Chunk(SAMPLE_RATE_HZ, 0, samples[: hole.start])),
        extractor.push(Chunk(SAMPLE_RATE_HZ, hole.stop, samples[hole.stop :])),
        extractor.flush(cells_in(len(samples))),
    ]
    cells = joined(parts)
    once = whole(samples)
    touched = {
        cell
        for cell in range(len(cells))
        if cell * CELL - REACH < hole.stop and cell * CELL + 3 * HOP + REACH > hole.start
    }
    assert {int(cell) for cell in np.flatnonzero(~cells.valid)} == touched
    assert np.array_equal(cells.values[cells.valid], once.values[cells.valid])
    assert not cells.values[~cells.valid].any()


def test_audio_that_begins_late_is_a_hole_at_the_beginning() -> None:
    extractor = FACTORY.new()
    cells = joined([extractor.push(Chunk(SAMPLE_RATE_HZ, 5 * CELL, noise(10 * CELL))), extractor.flush(15)])
    assert not cells.valid[:4].any()
    assert cells.valid[6:].all()


def test_cells_beyond_the_audio_are_not_invented() -> None:
    extractor = FACTORY.new()
    cells = joined([extractor.push(Chunk(SAMPLE_RATE_HZ, 0, noise(10 * CELL))), extractor.flush(30)])
    assert len(cells) == 30
    assert cells.valid.sum() == cells_in(10 * CELL) == 10


def test_memory_does_not_grow_with_the_stream() -> None:
    extractor = FACTORY.new()
    for second in range(30):
        extractor.push(Chunk(SAMPLE_RATE_HZ, second * SAMPLE_RATE_HZ, noise(SAMPLE_RATE_HZ)))
        assert len(extractor._audio) < SAMPLE_RATE_HZ


def test_what_is_not_audio_at_the_master_rate_is_refused() -> None:
    extractor = FACTORY.new()
    with pytest.raises(ValueError, match="22100"):
        extractor.push(Chunk(16_000, 0, noise(10)))
    with pytest.raises(ValueError, match="22100"):
        extractor.push(Picture(0, np.zeros((224, 224, 3), np.uint8)))


def test_the_spec_makes_the_same_extractor_again() -> None:
    assert Spectral(SpectralSpec(**Spectral().spec())).spec() == {"window": 2048, "mels": 128}
