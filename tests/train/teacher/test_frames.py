"""Frames of whole clips are those of the daemon's patches, and cells of any clip have their places among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from streamer.features.mn04 import FRAMES, HOP, PATCH, RATE_HZ, SILENCE, LogMel, log_of, power_of
from streamer.networks.mn04 import MELS, Mn04Network
from streamer.types import CELL, SAMPLE_RATE_HZ, Chunk, Want
from tests.models import bursts
from train.data.clip import clip_cells, clip_media
from train.data.dataset import Corpus
from train.teacher.frames import FRAMES_PER_CELL, clip_frames, frames_in, frames_of, stored_frames
from train.teacher.network import TeacherNetwork, _at_cells

LOG_MEL = LogMel()


def test_frames_of_a_clip_are_those_of_a_patch_where_its_edges_do_not_show() -> None:
    samples = bursts(3.0, rate_hz=RATE_HZ)
    whole = frames_of(samples, LOG_MEL)
    assert whole.shape == (300, MELS)
    for first in (0, 40, 203):
        start = first * HOP
        patch = LOG_MEL(torch.from_numpy(samples[None, start : start + PATCH]))[0].T.numpy()
        assert patch.shape == (FRAMES, MELS)
        inner = slice(2, FRAMES - 2)  # a frame is 800 samples long: two at each end are padded
        assert np.abs(whole[first : first + FRAMES][inner] - patch[inner]).max() < 1e-4


def test_powers_and_log_mel_values_are_each_others_inverse() -> None:
    powers = torch.tensor([0.0, 1e-3, 1.0, 50.0])
    assert torch.allclose(power_of(log_of(powers)), powers, rtol=1e-4, atol=1e-9)
    assert log_of(torch.zeros(1)).item() == pytest.approx(SILENCE)


@pytest.mark.parametrize("seconds", [0.08, 0.5, 1.23, 10.0])
def test_a_clip_of_any_length_has_the_cells_of_the_features(seconds: float, tmp_path: Path) -> None:
    path = tmp_path / "clip.flac"
    soundfile.write(path, bursts(seconds, rate_hz=22_050), 22_050)
    clip = clip_frames(path, LOG_MEL)
    assert clip.cells == clip_cells(path, {}).cells > 0
    assert len(clip.values) == pytest.approx(100 * seconds, abs=1)
    assert clip.cells == pytest.approx(seconds * SAMPLE_RATE_HZ / CELL, abs=1)
    network = TeacherNetwork(Mn04Network().features, 3).eval()
    with torch.inference_mode():
        log_odds = network(torch.from_numpy(clip.values.T[None].copy()), clip.cells)
    assert log_odds.shape == (1, clip.cells, 3)
    assert log_odds.isfinite().all()


def test_ten_seconds_are_151_cells_in_1000_frames(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.flac", bursts(10.0, rate_hz=RATE_HZ), RATE_HZ)
    clip = clip_frames(tmp_path / "clip.flac", LOG_MEL)
    assert (clip.cells, len(clip.values), frames_in(151)) == (151, 1000, 1000)
    assert pytest.approx(0.06624 * 100, abs=1e-3) == FRAMES_PER_CELL


def test_a_clip_without_sound_has_no_frames(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.flac", np.zeros(100), 22_050)
    clip = clip_frames(tmp_path / "clip.flac", LOG_MEL)
    assert (clip.cells, clip.values.shape) == (0, (0, MELS))


def test_a_cell_is_read_where_its_centre_lies_between_columns() -> None:
    columns = torch.arange(125.0)[None, None] * 8  # the frame that each column is centred on
    centres = (torch.arange(151) + 0.5) * FRAMES_PER_CELL
    assert torch.allclose(_at_cells(columns, 151, 8)[0, 0], centres.clamp(max=124 * 8), atol=1e-3)


def test_frames_are_computed_once_and_read_in_the_clips_order(
    source: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("frames").mkdir()
    clips = dict(source.annotated("train", tmp_path / "frames").media)
    frames = stored_frames(tmp_path / "frames", dict(list(clips.items())[:2]))
    assert len(frames) == 2
    assert stored_frames(tmp_path / "frames", clips).cells == frames.cells == 22
    monkeypatch.setattr("train.teacher.frames.clip_frames", None)  # nothing is computed again
    backwards = stored_frames(tmp_path / "frames", dict(reversed(clips.items())))
    batch = backwards.batch([3, 0], 200)
    assert batch.shape == (2, MELS, 200)
    assert (batch[:, :, 151:] == SILENCE).all()
    first = clip_frames(next(iter(clips)), LOG_MEL).values
    assert np.abs(batch[0, :, : len(first)].numpy() - first.T).max() < 2e-3  # float16


def test_a_clips_media_come_in_order(source: Corpus) -> None:
    (path, *_) = (source.folder / "audio" / "train").iterdir()
    ends: dict[int, int] = {}
    for item in clip_media(path, Want(frozenset({SAMPLE_RATE_HZ, RATE_HZ}))):
        assert isinstance(item, Chunk)
        assert item.start == ends.get(item.rate_hz, 0)
        ends[item.rate_hz] = item.end
    assert ends == {RATE_HZ: 48_000, SAMPLE_RATE_HZ: 33_150}
