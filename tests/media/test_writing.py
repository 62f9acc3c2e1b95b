"""Clips that we write: sound and pictures begin together, as the daemon's own reader sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamer.errors import EarwitnessError, SourceError
from streamer.media.source import open_media
from streamer.media.writing import VideoFormat, write_clip
from streamer.types import SAMPLE_RATE_HZ, Chunk, Floats, Picture, Want

RATE_HZ = 22_050
FORM = VideoFormat(width=160, height=120, fps=5, keyframe_every=10, crf=23, preset="ultrafast")


def clicks() -> Floats:
    """Four seconds with a click at each full second."""
    samples = np.zeros(4 * RATE_HZ, np.float32)
    for second in (1, 2, 3):
        samples[second * RATE_HZ : second * RATE_HZ + 200] = 0.5
    return samples


def greys() -> list[np.ndarray]:
    """Twenty pictures, brighter by 30 levels at each full second."""
    return [np.full((120, 160, 3), 30 + 30 * (index // 5), np.uint8) for index in range(20)]


def test_sound_and_pictures_begin_together(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", clicks(), RATE_HZ, 64, greys(), FORM)
    sound = np.zeros(0, np.float32)
    pictures = []
    with open_media(str(tmp_path / "a.mp4"), Want(frozenset({SAMPLE_RATE_HZ}), pictures=True)) as media:
        for item in media:
            if isinstance(item, Chunk):
                assert item.start == len(sound)
                sound = np.concatenate([sound, item.samples])
            elif isinstance(item, Picture):
                pictures.append((item.at, float(item.pixels.mean())))
    for second in (1, 2, 3):
        onset = second * SAMPLE_RATE_HZ
        first = np.flatnonzero(np.abs(sound[onset - 2000 : onset + 2000]) > 0.25)[0] - 2000
        assert abs(first) <= SAMPLE_RATE_HZ // 1000
        before = [grey for at, grey in pictures if at < onset][-1]
        after = next((at, grey) for at, grey in pictures if grey > before + 20 and at > onset - SAMPLE_RATE_HZ)
        assert after[0] == onset
    assert len(sound) / SAMPLE_RATE_HZ == pytest.approx(4, abs=1024 / RATE_HZ)  # AAC fills its last frame
    assert [at for at, _ in pictures] == [index * SAMPLE_RATE_HZ // 5 for index in range(20)]


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (120, 160, 3), np.uint8) for _ in range(10)]
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, clicks(), RATE_HZ, 64, pictures, FORM)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_clip_can_have_no_video_track(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", clicks(), RATE_HZ, 64)
    with open_media(str(tmp_path / "a.mp4"), Want(frozenset({SAMPLE_RATE_HZ}), pictures=True)) as media:
        assert media.has_audio
        assert not media.has_video
    with pytest.raises(SourceError, match="no video"), open_media(str(tmp_path / "a.mp4"), Want(pictures=True)):
        pass


def test_a_file_that_cant_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(EarwitnessError, match=r"nowhere/a.mp4: can't be written: No such file"):
        write_clip(tmp_path / "nowhere" / "a.mp4", clicks(), RATE_HZ, 64)
