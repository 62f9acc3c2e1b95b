"""The level of an input, and whether it holds any sound."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.media.level import (
    CANCELLING_S,
    FLOOR_DBFS,
    SILENT_S,
    TOO_QUIET_S,
    InputWatch,
    Level,
    LevelMeter,
    input_detail,
    input_state,
)
from streamer.media.source import open_media
from streamer.types import Floats, Want
from tests.make_media import make_clip, tone

RATE = 8_000


def measured(channels: Floats, *, channel: int | None = None, rate_hz: int = RATE) -> list[Level]:
    meter = LevelMeter()
    heard = channels.mean(axis=0) if channel is None else channels[channel]
    return meter.push(rate_hz, channels, heard, mixed=channel is None) + meter.flush()


def stereo(left: Floats, right: Floats) -> Floats:
    return np.stack([left, right]).astype(np.float32)


SINE = tone(3, RATE, level=0.5)
NOISE = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)


def test_levels_match_their_definitions() -> None:
    """A sine of half of full scale has a peak of -6.02 dBFS and an RMS of -9.03; whole seconds and the rest."""
    levels = measured(SINE[None, : 2 * RATE + 2_000])
    assert [level.seconds for level in levels] == [1, 1, 0.25]
    for level in levels:
        assert level.rms_dbfs == pytest.approx(-9.03, abs=0.01)
        assert level.peak_dbfs == pytest.approx(-6.02, abs=0.01)
        assert level.loudest_dbfs == level.rms_dbfs


@given(cuts=st.lists(st.integers(1, 3 * RATE - 1), max_size=20))
def test_cutting_changes_no_level(cuts: list[int]) -> None:
    channels = stereo(NOISE, SINE)
    meter, levels = LevelMeter(), []
    for part in np.split(channels, sorted(set(cuts)), axis=1):
        levels += meter.push(RATE, part, part.mean(axis=0), mixed=True)
    levels += meter.flush()
    for got, expected in zip(levels, measured(channels), strict=True):
        assert got.seconds == expected.seconds
        assert got.rms_dbfs == pytest.approx(expected.rms_dbfs, abs=1e-3)
        assert got.peak_dbfs == pytest.approx(expected.peak_dbfs, abs=1e-3)


@pytest.mark.parametrize("length", [1, 4_095, 4_096, 4_097, RATE, RATE + 1, RATE + 4_096])
def test_sound_of_any_length_is_measured(length: int) -> None:
    levels = measured(np.resize(SINE, (2, length)))
    assert sum(level.seconds for level in levels) == length / RATE
    assert LevelMeter().push(RATE, NOISE[None, :0], NOISE[:0], mixed=True) == []


@pytest.mark.parametrize(
    ("state", "channels", "channel"),
    [
        ("ok", SINE[None], None),
        ("ok", stereo(SINE, SINE), None),
        ("ok", stereo(NOISE, SINE), None),
        ("ok", stereo(SINE, 0 * SINE), None),
        ("ok", stereo(SINE, -0.5 * SINE), None),
        ("ok", stereo(SINE, -SINE), 0),
        ("ok", 4e-4 * NOISE[None], None),  # -88 dBFS
        ("cancelling", stereo(SINE, -SINE), None),
        ("cancelling", stereo(NOISE, -NOISE + 1e-4 * SINE), None),
        ("silent", 0 * SINE[None], None),
        ("silent", 0 * SINE[None] + 0.25, None),  # a stuck converter
        ("silent", stereo(SINE, 0 * SINE), 1),
        ("too_quiet", 2.5e-4 * NOISE[None], None),  # -92 dBFS
        ("too_quiet", 1e-4 * NOISE[None] + 0.5, None),  # beside a constant offset
        ("out_of_range", 1e6 * NOISE[None], None),
    ],
)
def test_the_state_of_an_input(state: str, channels: Floats, channel: int | None) -> None:
    levels = measured(channels, channel=channel)
    assert input_state(levels) == state
    detail = input_detail(input_state(levels), levels)
    assert (detail == "") == (state == "ok")
    assert "\n" not in detail


@pytest.mark.parametrize(
    ("state", "seconds", "channels"),
    [
        ("silent", SILENT_S, stereo(0 * SINE, 0 * SINE)),
        ("cancelling", CANCELLING_S, stereo(SINE, -SINE)),
        ("too_quiet", TOO_QUIET_S, stereo(1e-5 * SINE, 1e-5 * SINE)),
    ],
)
def test_a_state_is_reported_only_once_it_has_lasted(state: str, seconds: int, channels: Floats) -> None:
    (good, *_), (bad, *_) = measured(stereo(SINE, SINE)), measured(channels)
    watch = InputWatch()
    assert (watch.state, watch.level, watch.detail) == ("unknown", None, "")
    for _ in range(3):
        watch.push(good)
    for _ in range(seconds - 1):
        watch.push(bad)
        assert (watch.state, watch.detail) == ("ok", "")
    watch.push(bad)
    assert watch.state == state
    assert watch.detail
    watch.push(good)
    assert (watch.state, watch.detail) == ("ok", "")
    assert watch.level == good


def test_the_state_is_unknown_before_any_audio() -> None:
    assert input_state([]) == "unknown"
    assert input_detail("unknown", []) == ""
    assert LevelMeter().flush() == []


# Files ----------------------------------------------------------------------------------------------------------------


def levels_of(path: Path) -> list[Level]:
    with open_media(str(path), Want(frozenset({22_100}))) as media:
        levels = [level for _ in media for level in media.ear.take_levels()]
        return levels + media.ear.take_levels()


@pytest.mark.parametrize("codec", ["pcm", "pcm_u8", "pcm_s24le", "pcm_f32le", "pcma", "flac"])
def test_levels_of_decoded_files(tmp_path: Path, codec: str) -> None:
    path = tmp_path / ("a.flac" if codec == "flac" else "a.mov" if codec == "pcma" else "a.wav")
    levels = levels_of(make_clip(path, audio=codec, rate_hz=RATE, samples=SINE))
    assert sum(level.seconds for level in levels) == pytest.approx(3, abs=0.01)
    assert [level.rms_dbfs for level in levels] == pytest.approx([-9.03] * 3, abs=0.2)


def test_floats_that_are_integers_are_out_of_range(tmp_path: Path) -> None:
    """24 bits in 32, which FFmpeg takes for another format, so that its floats are garbage."""
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(4)
        file.setframerate(RATE)
        file.writeframes((np.random.default_rng(0).normal(0, 1e8, 2 * RATE)).astype("<i4").tobytes())
    data = bytearray(path.read_bytes())
    data[20:22] = (3).to_bytes(2, "little")  # WAVE_FORMAT_IEEE_FLOAT
    path.write_bytes(data)
    assert input_state(levels_of(path)) == "out_of_range"


def test_silence_has_a_level_that_json_can_hold(tmp_path: Path) -> None:
    (level,) = levels_of(make_clip(tmp_path / "a.wav", audio="pcm", rate_hz=RATE, samples=np.zeros(RATE, np.float32)))
    assert (level.rms_dbfs, level.peak_dbfs, level.loudest_dbfs) == (FLOOR_DBFS,) * 3
