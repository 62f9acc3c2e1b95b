"""Media: real files, real servers, real damage."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional as vision

from streamer.errors import SourceError
from streamer.media.audio import AudioTrack, channels_of, mix
from streamer.media.epoch import EpochBuilder
from streamer.media.pictures import PictureChooser, Scaler
from streamer.media.source import Interrupt, Media, MediaOptions, open_media
from streamer.types import CELL, SAMPLE_RATE_HZ, Anchor, Chunk, Discontinuity, Floats, MediaItem, Picture, Want
from tests.make_media import make_clip, noise_bursts, picture, tone
from tests.rtsp import RtspServer, needs_rtsp
from tests.send import http_server, live_ts, needs_ffmpeg, pushing_rtmp, rtmp_server

MAIN = SAMPLE_RATE_HZ
ALL = Want(frozenset({22_100, 16_000}), pictures=True)
SOUND = Want(frozenset({22_100}), pictures=False)
PICTURES = Want(frozenset(), pictures=True)


@dataclass
class Taken:
    """The media of one epoch."""

    chunks: list[Chunk] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    anchors: list[Anchor] = field(default_factory=list)
    ended_by: str | None = None

    def audio(self, rate_hz: int = MAIN) -> Floats:
        """All samples on the epoch's clock, holes as zeros; checks that chunks never overlap."""
        parts, position = [], 0
        for chunk in self.chunks:
            if chunk.rate_hz == rate_hz:
                assert chunk.start >= position
                parts += [np.zeros(chunk.start - position, np.float32), chunk.samples]
                position = chunk.end
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def holes(self, rate_hz: int = MAIN) -> list[tuple[int, int]]:
        found, position = [], 0
        for chunk in self.chunks:
            if chunk.rate_hz == rate_hz:
                if chunk.start > position:
                    found.append((position, chunk.start))
                position = chunk.end
        return found


def epochs(items: Iterator[MediaItem]) -> list[Taken]:
    taken = [Taken()]
    for item in items:
        if isinstance(item, Chunk):
            assert item.samples.dtype == np.float32
            assert item.samples.ndim == 1
            taken[-1].chunks.append(item)
        elif isinstance(item, Picture):
            assert item.pixels.shape == (224, 224, 3)
            assert item.pixels.dtype == np.uint8
            taken[-1].pictures.append(item)
        elif isinstance(item, Anchor):
            taken[-1].anchors.append(item)
        else:
            taken[-1].ended_by = item.reason
            taken.append(Taken())
    return taken


def take(url: str | Path, want: Want = ALL, options: MediaOptions | None = None) -> Taken:
    """The only epoch of a file."""
    with open_media(str(url), want, options) as media:
        (only,) = epochs(iter(media))
    return only


def take_live(url: str, want: Want = ALL, options: MediaOptions | None = None) -> tuple[list[Taken], SourceError]:
    """The epochs of a live source, and the error that ended it."""
    items: list[MediaItem] = []
    with open_media(url, want, options) as media:
        assert media.live
        with pytest.raises(SourceError) as caught:
            items.extend(media)  # extend keeps what came before the error
    return epochs(iter(items)), caught.value


def onset_s(samples: Floats, rate_hz: int = MAIN) -> float:
    """When it first becomes loud."""
    return float(np.argmax(np.abs(samples) > 0.1)) / rate_hz


def error_of(url: str | Path, want: Want = ALL, options: MediaOptions | None = None) -> SourceError:
    """The error of opening or reading; it has one line and no other exception attached."""
    with pytest.raises(SourceError) as caught, open_media(str(url), want, options) as media:
        list(media)
    error = caught.value
    assert "\n" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "audio", "rate_hz", "layout", "slack_s"),
    [
        ("a.wav", "pcm", 44_100, "stereo", 0),
        ("a.wav", "pcm_u8", 8_000, "mono", 0),
        ("a.wav", "pcm_s24le", 48_000, "stereo", 0),
        ("a.wav", "pcm_f32le", 22_100, "mono", 0),
        ("a.wav", "pcm_f64le", 96_000, "mono", 0),
        ("a.flac", "flac", 48_000, "5.1", 0),
        ("a.mov", "pcmu", 8_000, "mono", 0),
        ("a.mov", "pcma", 8_000, "mono", 0),
        ("a.mp3", "mp3", 44_100, "stereo", 0),
        ("a.mkv", "opus", 48_000, "stereo", 0.001),
        ("a.webm", "opus", 48_000, "mono", 0.001),
        ("a.mp4", "aac", 48_000, "5.1", 0.022),
        ("a.mp4", "aac", 16_000, "mono", 0.064),
        ("a.ts", "aac", 44_100, "stereo", 0.047),
        ("a.flv", "aac", 44_100, "mono", 0.047),
        ("a.avi", "mp3", 32_000, "mono", 0.1),
    ],
)
def test_sample_counts_and_positions(
    tmp_path: Path, name: str, audio: str, rate_hz: int, layout: str, slack_s: float
) -> None:
    clip = make_clip(
        tmp_path / name,
        audio=audio,
        rate_hz=rate_hz,
        layout=layout,
        samples=noise_bursts(3.0, rate_hz, bursts=((1.0, 2.0),)),
    )
    taken = take(clip)
    assert taken.holes() == []
    for out_hz in (22_100, 16_000):
        samples = taken.audio(out_hz)
        assert 3.0 * out_hz <= len(samples) <= (3.0 + slack_s) * out_hz
        # MP3 and AAC in containers that can't state the encoder's delay begin up to 50 ms late.
        assert onset_s(samples, out_hz) == pytest.approx(1.0, abs=0.06 if slack_s or audio == "mp3" else 0.002)


def test_ten_seconds_are_221000_samples(tmp_path: Path) -> None:
    for rate_hz in (8_000, 16_000, 44_100, 48_000):
        clip = make_clip(tmp_path / f"{rate_hz}.wav", audio="pcm", rate_hz=rate_hz, samples=tone(10, rate_hz))
        taken = take(clip)
        assert len(taken.audio(22_100)) == 221_000
        assert len(taken.audio(16_000)) == 160_000


def test_resampling_is_exact(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.wav", audio="pcm_f32le", rate_hz=48_000, samples=tone(3, 48_000, hz=1000))
    middle = slice(2_000, -2_000)
    for out_hz in (22_100, 16_000):
        expected = tone(3, out_hz, hz=1000)
        assert np.abs(take(clip).audio(out_hz) - expected)[middle].max() < 1e-4


def test_mono_is_the_mean_of_any_layout(tmp_path: Path) -> None:
    wave_ = tone(1, MAIN)
    same = make_clip(tmp_path / "same.wav", audio="pcm_f32le", rate_hz=MAIN, layout="7.1", samples=wave_)
    np.testing.assert_allclose(take(same).audio(), wave_, atol=1e-6)
    halves = np.stack([wave_, np.zeros_like(wave_)])
    left = make_clip(tmp_path / "left.wav", audio="pcm_f32le", rate_hz=MAIN, layout="stereo", samples=halves)
    np.testing.assert_allclose(take(left).audio(), wave_ / 2, atol=1e-6)


@pytest.mark.parametrize("format_name", ["u8", "u8p", "s16", "s16p", "s32", "flt", "fltp", "dbl", "dblp"])
def test_mono_of_every_sample_format(format_name: str) -> None:
    source = av.AudioFrame.from_ndarray(np.stack([tone(0.1, 8_000)] * 2), format="fltp", layout="stereo")
    source.sample_rate = 8_000
    (frame,) = av.AudioResampler(format=format_name, layout="stereo", rate=8_000).resample(source)
    np.testing.assert_allclose(mix(channels_of(frame)), tone(0.1, 8_000), atol=0.01 if "u8" in format_name else 1e-4)


def test_damaged_floats_become_numbers() -> None:
    bad = np.array([[0.5, np.nan, np.inf, -np.inf]], np.float32)
    assert mix(channels_of(av.AudioFrame.from_ndarray(bad, format="fltp", layout="mono"))).tolist() == [
        0.5,
        0.0,
        1.0,
        -1.0,
    ]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=40), st.sampled_from([8_000, 22_100, 44_100, 48_000]))
def test_resampling_does_not_depend_on_chunking(sizes: list[int], rate_hz: int) -> None:
    samples = noise_bursts(sum(sizes) / rate_hz, rate_hz, bursts=((0, 99),))
    rates = frozenset({22_100, 16_000})

    def run(cuts: list[int]) -> Taken:
        track, taken, start = AudioTrack(rates, Fraction(0)), Taken(), 0
        for size in cuts:
            part = samples[start : start + size]
            taken.chunks += track.push(Fraction(start, rate_hz), rate_hz, part)
            start += size
        taken.chunks += track.flush()
        return taken

    whole, pieces = run([len(samples)]), run(sizes)
    for out_hz in rates:
        assert np.array_equal(whole.audio(out_hz), pieces.audio(out_hz))


def test_audio_only_video_only_both(tmp_path: Path) -> None:
    both = make_clip(tmp_path / "both.mp4", seconds=1, video="h264")
    silent = make_clip(tmp_path / "silent.mp4", seconds=1, audio=None, video="h264")
    with open_media(str(both), ALL) as media:
        assert (media.has_audio, media.has_video, media.live) == (True, True, False)
        assert media.duration_s == pytest.approx(1.0, abs=0.05)
    with open_media(str(both), SOUND) as media:
        assert (media.has_audio, media.has_video) == (True, False)
        assert not any(isinstance(item, Picture) for item in media)
    with open_media(str(silent), ALL) as media:
        assert (media.has_audio, media.has_video) == (False, True)
        assert {type(item) for item in media} == {Picture, Anchor}
    assert error_of(silent, SOUND).reason == "no_audio"
    assert error_of(make_clip(tmp_path / "a.wav", seconds=1, audio="pcm"), PICTURES).reason == "no_video"


def test_two_audio_parameter_sets_in_one_stream(tmp_path: Path) -> None:
    """MPEG-TS with AAC states rate and channels in each packet; joining two files changes them midway."""
    first = make_clip(tmp_path / "1.ts", rate_hz=48_000, layout="stereo", samples=tone(2, 48_000))
    second = make_clip(
        tmp_path / "2.ts", rate_hz=16_000, layout="mono", samples=tone(2, 16_000), retime=lambda t: t + 2.02
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    taken = take(joined, SOUND)
    assert len(taken.audio()) / MAIN == pytest.approx(4.0, abs=0.1)
    for half in (taken.audio()[MAIN // 2 :][:MAIN], taken.audio()[-3 * MAIN // 2 :][:MAIN]):
        assert np.argmax(np.abs(np.fft.rfft(half))) == pytest.approx(440, abs=2)  # both halves have the right pitch


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [2, 5, 12, 15, 25, 60])
def test_each_cell_gets_the_nearest_picture_and_no_other_is_converted(tmp_path: Path, fps: int) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=3, audio=None, video="h264", fps=fps, size=(256, 256))
    taken = take(clip, PICTURES)
    shown = np.array([round(Fraction(i, fps) * MAIN) for i in range(3 * fps)])
    centres = np.arange(CELL // 2, 3 * MAIN, CELL)
    nearest = {int(shown[np.argmin(np.abs(shown - c))]) for c in centres}
    assert [f.at for f in taken.pictures] == sorted(f.at for f in taken.pictures)
    made = {f.at for f in taken.pictures}
    assert nearest <= made
    assert len(made - nearest) <= 1  # the last one: what follows it is not known
    for frame in taken.pictures:
        index = round(frame.at * fps / MAIN)
        grey = 16 + 2 * (index % 100)
        assert frame.pixels[2:12, 2:12].mean() == pytest.approx(
            grey, abs=6
        )  # cropped corner, and it is the right picture


@settings(max_examples=50)
@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=60), st.integers(0, 3_000))
def test_chooser_against_brute_force(gaps: list[int], first: int) -> None:
    shown = np.cumsum([first, *gaps])
    chooser = PictureChooser()
    frames = [f for at in shown for f in chooser.push(int(at), lambda: np.zeros(0, np.uint8))] + chooser.flush()
    got = [f.at for f in frames]
    assert got == sorted(set(got))
    distances = np.abs(shown[None] - np.arange(CELL // 2, int(shown[-1]) + 1, CELL)[:, None])
    needed = {int(shown[i]) for row in distances for i in np.flatnonzero(row == row.min())[:1]}
    assert needed <= set(got)
    wanted = {int(shown[i]) for row in distances for i in np.flatnonzero(row == row.min())} | {int(shown[-1])}
    assert set(got) <= wanted


def test_slow_pictures_are_returned_at_once() -> None:
    chooser = PictureChooser()
    chooser.push(0, lambda: np.zeros(0, np.uint8))
    assert [f.at for f in chooser.push(MAIN, lambda: np.zeros(0, np.uint8))] == [0, MAIN]


@pytest.mark.parametrize("size", [(640, 360), (352, 288), (1280, 720), (320, 240), (240, 320), (257, 199)])
def test_scaling_is_torchvisions(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    blocks = torch.from_numpy(rng.integers(0, 256, (3, size[1] // 8, size[0] // 8), dtype=np.uint8))
    image = vision.resize(blocks, [size[1], size[0]], antialias=True)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), format="rgb24")
    expected = vision.center_crop(vision.resize(image, [256], antialias=True), [224, 224]).permute(1, 2, 0).numpy()
    error = np.abs(Scaler().pixels(frame).astype(int) - expected.astype(int))
    assert error.mean() < 1.0
    assert np.percentile(error, 99) <= 4


def test_rotated_video_is_turned_upright() -> None:
    upright = picture(3, width=360, height=640)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(upright, -1)), format="rgb24")
    plain = Scaler().pixels(av.VideoFrame.from_ndarray(upright, format="rgb24"))
    turned = np.rot90(Scaler().pixels(frame), 1)
    assert np.abs(turned.astype(int) - plain.astype(int)).mean() < 2


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        sound, cover = container.add_stream("aac", rate=48_000, layout="mono"), container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(tone(1, 48_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        for part in av.AudioResampler(format="fltp", layout="mono", rate=48_000, frame_size=1024).resample(frame):
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    with open_media(str(path), ALL) as media:
        assert (media.has_audio, media.has_video) == (True, False)


# Clocks ---------------------------------------------------------------------------------------------------------------


def test_jitter_is_absorbed(tmp_path: Path) -> None:
    shift = np.random.default_rng(0).uniform(-0.009, 0.009, 1_000)
    clip = make_clip(
        tmp_path / "a.mkv", seconds=4, audio="opus", video="h264", retime=lambda t: t + shift[round(t * 50)]
    )
    taken = take(clip)
    assert taken.holes() == []
    assert len(taken.audio()) == 4 * MAIN


def test_a_short_hole_keeps_later_audio_in_place(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "a.mkv",
        audio="opus",
        video="h264",
        samples=noise_bursts(4, 48_000, bursts=((3.0, 3.5),)),
        retime=lambda t: None if 1 <= t < 2 else t,
    )
    taken = take(clip)
    ((start, stop),) = taken.holes()
    assert start / MAIN == pytest.approx(1.0, abs=0.03)
    assert stop / MAIN == pytest.approx(2.0, abs=0.03)
    assert taken.holes(16_000) == [pytest.approx((start * 16_000 / MAIN, stop * 16_000 / MAIN), abs=1)]
    assert onset_s(taken.audio()) == pytest.approx(3.0, abs=0.01)
    assert not [f for f in taken.pictures if 1.1 * MAIN < f.at < 1.9 * MAIN]


def test_long_hole_ends_the_epoch(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "a.mkv",
        audio="opus",
        video="h264",
        samples=noise_bursts(8, 48_000, bursts=((6.0, 6.5),)),
        seconds=8,
        retime=lambda t: None if 1 <= t < 5 else t,
    )
    with open_media(str(clip), ALL) as media:
        first, second = epochs(iter(media))
    assert first.ended_by == "hole"
    assert second.chunks[0].start == 0
    assert onset_s(second.audio()) == pytest.approx(1.0, abs=0.03)
    assert second.pictures[0].at < CELL
    assert second.anchors[0].utc_s - first.anchors[0].utc_s == pytest.approx(5.0, abs=0.03)
    with open_media(str(clip), ALL, MediaOptions(hole_limit_s=5)) as media:
        assert len(epochs(iter(media))) == 1


def test_pictures_bridge_a_long_hole_in_the_audio(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "a.mkv",
        seconds=8,
        audio="opus",
        video="h264",
        retime=lambda t: None if 1 <= t < 5 else t,
        picture_retime=lambda t: t,
    )
    taken = take(clip)
    assert len(taken.holes()) == 1
    assert len(taken.pictures) == pytest.approx(8 * 15.1, abs=2)


@pytest.mark.parametrize(("offset_s", "reason"), [(0.0, "pts_jump"), (100.0, "hole")])
def test_jumping_timestamps_start_a_new_epoch_at_zero(tmp_path: Path, offset_s: float, reason: str) -> None:
    first = make_clip(tmp_path / "1.ts", seconds=3, video="h264")
    second = make_clip(
        tmp_path / "2.ts",
        video="h264",
        samples=noise_bursts(3, 48_000, bursts=((1.0, 2.0),)),
        seconds=3,
        retime=lambda t: t + offset_s,
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with open_media(str(joined), ALL) as media:
        before, after = epochs(iter(media))
        assert media.stray_pictures <= 5
    assert before.ended_by == reason
    assert len(before.audio()) == pytest.approx(3 * MAIN, abs=0.05 * MAIN)
    assert after.chunks[0].start == 0
    assert onset_s(after.audio()) == pytest.approx(1.0, abs=0.06)
    assert len(after.pictures) >= 3 * 15 - 3


def builder() -> EpochBuilder:
    return EpochBuilder(frozenset({MAIN}), pictures=False, hole_limit_s=2.0)


def part(seconds: float, rate_hz: int = 8_000) -> Floats:
    return np.full(round(seconds * rate_hz), 0.5, np.float32)


def test_overlap_is_dropped_and_counted() -> None:
    epoch = builder()
    items = list(epoch.push_audio(Fraction(10), 8_000, part(1)))
    items += epoch.push_audio(Fraction(21, 2), 8_000, part(1))  # half of it again
    items += epoch.push_audio(Fraction(21, 2), 8_000, part(0.5))  # all of it again
    items += epoch.flush()
    (taken,) = epochs(iter(items))
    assert len(taken.audio()) == round(1.5 * MAIN)
    assert taken.holes() == []
    assert epoch.overlap_samples == 4_000 + 4_000


def test_missing_timestamps_continue_from_the_last() -> None:
    epoch = builder()
    items = list(epoch.push_audio(None, 8_000, part(1)))
    items += epoch.push_audio(Fraction(1), 8_000, part(1))
    items += epoch.push_audio(None, 8_000, part(1))
    items += epoch.flush()
    (taken,) = epochs(iter(items))
    assert len(taken.audio()) == 3 * MAIN


def test_nothing_accumulates_over_a_day() -> None:
    """100 000 packets whose timestamps are rounded to ms."""
    track = AudioTrack(frozenset({MAIN}), Fraction(0))
    samples = np.zeros(1_024, np.float32)
    for index in range(100_000):
        for chunk in track.push(Fraction(round(index * 1_024_000 / MAIN), 1_000), MAIN, samples):
            assert chunk.start == index * 1_024


def test_zero_is_the_earlier_of_audio_and_picture() -> None:
    epoch = EpochBuilder(frozenset({MAIN}), pictures=True, hole_limit_s=2.0)
    items = list(epoch.push_picture(Fraction(106, 10), lambda: np.zeros((224, 224, 3), np.uint8)))
    assert items == []  # the audio may be earlier
    items += epoch.push_audio(Fraction(105, 10), 8_000, part(1))
    items += epoch.flush()
    (taken,) = epochs(iter(items))
    assert taken.chunks[0].start == 0
    assert taken.pictures[0].at == MAIN // 10


def test_audio_that_stops_does_not_stop_the_pictures() -> None:
    epoch = EpochBuilder(frozenset({MAIN}), pictures=True, hole_limit_s=2.0)
    items = list(epoch.push_audio(Fraction(0), 8_000, part(1)))
    for index in range(250):
        items += epoch.push_picture(Fraction(index, 25), lambda: np.zeros((224, 224, 3), np.uint8))
    items += epoch.flush()
    (taken,) = epochs(iter(items))
    assert len(taken.pictures) == pytest.approx(10 * 15.1, abs=2)
    assert epoch.stray_pictures == 0


def test_pictures_on_another_clock_are_dropped_while_there_is_audio_and_end_the_epoch_once_it_is_gone() -> None:
    def black() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.zeros((224, 224, 3), np.uint8)

    epoch = EpochBuilder(frozenset({MAIN}), pictures=True, hole_limit_s=2.0)
    items: list[MediaItem] = []
    for index in range(100):
        items += epoch.push_audio(Fraction(index, 10), 8_000, part(0.1))
        items += epoch.push_picture(Fraction(index, 10) + (0 if index < 50 else 1_000), black)
    assert not any(isinstance(i, Discontinuity) for i in items)
    assert epoch.stray_pictures == 50
    for index in range(100, 150):
        items += epoch.push_picture(Fraction(index, 10) + 1_000, black)
    assert [i.reason for i in items if isinstance(i, Discontinuity)] == ["hole"]


def test_file_anchor_is_the_creation_time_or_else_the_mtime(tmp_path: Path) -> None:
    tagged = make_clip(tmp_path / "a.mp4", seconds=1, metadata={"creation_time": "2024-03-01T10:00:00Z"})
    (anchor,) = take(tagged).anchors
    assert anchor == Anchor(0, 1_709_287_200.0, "file")
    plain = make_clip(tmp_path / "a.wav", seconds=1, audio="pcm")
    os.utime(plain, (1_600_000_000, 1_600_000_000))
    assert take(plain).anchors == [Anchor(0, 1_600_000_000.0, "file")]


def test_arrival_anchor_takes_the_earliest_of_each_second() -> None:
    epoch = builder()
    items: list[MediaItem] = []
    for index in range(40):  # 4 s; every fifth packet comes in time, the others late
        items += epoch.push_stamp(Fraction(index + 1, 10), 1_000 + (index + 1) / 10 + (index % 5) * 0.05, "arrival")
        items += epoch.push_audio(Fraction(index, 10), 8_000, part(0.1))
    anchors = [i for i in items if isinstance(i, Anchor)]
    assert 3 <= len(anchors) <= 5
    assert all(a.utc_s - a.at / MAIN == pytest.approx(1_000, abs=1e-3) for a in anchors)


# Damaged and wrong input ----------------------------------------------------------------------------------------------


def damaged(clip: Path, *, spots: int = 15, seed: int = 1) -> Path:
    rng = np.random.default_rng(seed)
    data = bytearray(clip.read_bytes())
    for spot in rng.integers(len(data) // 4, len(data) * 3 // 4, spots):
        data[spot : spot + 300] = rng.bytes(300)
    path = clip.with_name(f"damaged-{clip.name}")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "audio"), [("a.ts", "aac"), ("a.mp4", "aac"), ("a.flv", "aac"), ("a.mp3", "mp3"), ("a.flac", "flac")]
)
def test_damage_in_the_middle_is_skipped_and_counted(tmp_path: Path, name: str, audio: str) -> None:
    video = None if audio in ("mp3", "flac") else "h264"
    clip = damaged(make_clip(tmp_path / name, seconds=4, audio=audio, video=video, rate_hz=44_100))
    with open_media(str(clip), ALL) as media:
        (taken,) = epochs(iter(media))
        assert media.corrupt_packets > 0
    assert len(taken.audio()) > 3 * MAIN  # it goes on behind the damage


def test_a_truncated_file_yields_its_first_part(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", seconds=4, audio="opus", video="h264")
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert len(take(clip).audio()) > MAIN


def test_broken_inputs_get_one_line_each(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello\n" * 100)
    renamed = tmp_path / "notes.mp4"
    renamed.write_text("hello\n" * 100)
    empty = tmp_path / "empty.wav"
    empty.touch()
    cut = make_clip(tmp_path / "cut.mp4", seconds=2, video="h264")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    noise = tmp_path / "noise.bin"
    noise.write_bytes(np.random.default_rng(0).bytes(50_000))
    mute = tmp_path / "mute.wav"
    with wave.open(str(mute), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
    closed = tmp_path / "closed.wav"
    cases: list[tuple[str | Path, str, str]] = [
        (text, "invalid_data", "a text file"),
        (renamed, "invalid_data", "a text file"),
        (empty, "empty", "the file is empty"),
        (cut, "invalid_data", "cut short"),
        (noise, "invalid_data", "no format that FFmpeg can read"),
        (mute, "empty", "no audio and no video"),
        (tmp_path, "invalid_data", "a folder"),
        (closed, "not_found", "no such file"),
        (tmp_path / ("x" * 300), "not_found", "check the path"),
        ("bogus://host/x", "protocol", "bogus"),
        ("rtsp://user:se/cret@127.0.0.1/x", "protocol", "%2F"),
        ("rtsp://no-such-host.invalid/x", "unreachable", "no-such-host.invalid"),
        ("rtsp://user:secret@no-such-host.invalid/x", "unreachable", "no-such-host.invalid"),
        ("rtsp://user:secret@127.0.0.1:1/x?token=secret", "refused", "nothing is listening"),
        ("rtmp://127.0.0.1:1/live", "refused", "nothing is listening"),
        ("https://user:secret@127.0.0.1:1/x", "refused", "nothing is listening"),
    ]
    for path, reason, words in cases:
        error = error_of(path, SOUND)
        assert (error.reason, words in str(error)) == (reason, True), str(error)
        assert "secret" not in str(error)
        assert "se/cret" not in str(error)


def test_names_that_ffmpeg_would_misread(tmp_path: Path) -> None:
    for name in ("a:b.wav", "-50%03d.wav", "http:x.wav", "ü ö.wav", "a?b#c.wav"):
        path = make_clip(tmp_path / "plain.wav", seconds=1, audio="pcm").rename(tmp_path / name)
        assert len(take(path).audio()) == MAIN
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert len(take("a:b.wav").audio()) == MAIN


def test_unknown_options_are_named(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.wav", seconds=1, audio="pcm")
    error = error_of(clip, SOUND, MediaOptions(ffmpeg={"rtsp_transprot": "tcp", "probesize": "100000"}))
    assert "'rtsp_transprot'" in str(error)
    assert "probesize" not in str(error)
    assert error_of(clip, SOUND, MediaOptions(ffmpeg={"probesize": "many"})).reason == "protocol"
    assert len(take(clip, SOUND, MediaOptions(ffmpeg={"probesize": "100000"})).audio()) == MAIN


def test_missing_devices() -> None:
    for name, format_name in [("/dev/video99", "v4l2"), ("hw:99", "alsa"), ("default", "pulse")]:
        error = error_of(name, ALL, MediaOptions(format=format_name))
        assert error.reason == "device"


@pytest.mark.skipif(not Path("/usr/share/alsa/alsa.conf").exists(), reason="apt-get install libasound2-data")
def test_alsa_records() -> None:
    """ALSA's `null` device needs no hardware; its samples are undefined."""
    options = MediaOptions(format="alsa", ffmpeg={"sample_rate": "16000", "channels": "1"})
    with open_media("null", SOUND, options) as media:
        assert media.live
        chunk = next(item for item in media if isinstance(item, Chunk))
    assert len(chunk.samples)


def test_a_format_can_be_forced(tmp_path: Path) -> None:
    raw = tmp_path / "sound"
    raw.write_bytes((tone(1, 8_000) * 32_000).astype("<i2").tobytes())
    options = MediaOptions(format="s16le", ffmpeg={"sample_rate": "8000"})
    assert len(take(raw, SOUND, options).audio()) == MAIN


def test_importing_changes_nothing() -> None:
    code = (
        "import av, time; before = av.logging.get_level(); import streamer.media, av.container.core as core;"
        "assert core.time is time and av.logging.get_level() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Interruption ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https", "rtmp"])
def test_opening_a_deaf_server_times_out_and_can_be_interrupted(deaf_port: int, scheme: str) -> None:
    url = f"{scheme}://user:secret@127.0.0.1:{deaf_port}/live/x"
    error = error_of(url, ALL, MediaOptions(open_timeout_s=0.5))
    assert error.reason == "timeout"
    assert "secret" not in str(error)
    interrupt = Interrupt()
    timer = threading.Timer(0.3, interrupt.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(SourceError, match="interrupted"):
        open_media(url, ALL, MediaOptions(open_timeout_s=20), interrupt=interrupt)
    assert time.monotonic() - started < 1.5
    timer.join()


def test_a_reader_can_be_interrupted_between_packets_and_closed_twice(tmp_path: Path) -> None:
    media = open_media(str(make_clip(tmp_path / "a.mp4", video="h264")), ALL)
    items = iter(media)
    next(items)
    media.interrupt()
    with pytest.raises(SourceError, match="interrupted"):
        list(items)
    media.close()
    media.close()
    with pytest.raises(SourceError, match="interrupted"):
        list(media)


# Live servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")

    def clip(name: str, audio: str | None, video: str | None, rate_hz: int = 48_000) -> Path:
        samples = noise_bursts(2.5, rate_hz, bursts=((1.0, 1.5),))
        return make_clip(
            folder / name, seconds=2.5, audio=audio, video=video, rate_hz=rate_hz, samples=samples if audio else None
        )

    return {
        "aac": clip("aac.mp4", "aac", "h264"),
        "opus+h265": clip("opus.mkv", "opus", "h265"),
        "pcmu": clip("pcmu.mov", "pcmu", "h264", 8_000),
        "pcma alone": clip("pcma.mov", "pcma", None, 8_000),
        "h264 alone": clip("video.mp4", None, "h264"),
    }


RTSP_CASES = [
    ("aac", "tcp"),
    ("aac", "udp"),
    ("opus+h265", "tcp"),
    ("opus+h265", "udp"),
    ("pcmu", "tcp"),
    ("pcmu", "udp"),
    ("pcma alone", "tcp"),
    ("pcma alone", "udp"),
    ("h264 alone", "tcp"),
]


def take_rtsp(clip: Path, transport: str) -> tuple[list[Taken], SourceError]:
    with RtspServer(clip) as server:
        return take_live(server.url(), ALL, MediaOptions(transport="udp" if transport == "udp" else "tcp"))


@pytest.fixture(scope="module")
def rtsp_results(clips: dict[str, Path]) -> dict[tuple[str, str], tuple[list[Taken], SourceError]]:
    """All cases in parallel: they wait for the clock, not for the processor."""
    with ThreadPoolExecutor(len(RTSP_CASES)) as pool:
        running = {case: pool.submit(take_rtsp, clips[case[0]], case[1]) for case in RTSP_CASES}
        return {case: future.result() for case, future in running.items()}


@needs_rtsp
@pytest.mark.parametrize("case", RTSP_CASES, ids=" ".join)
def test_rtsp_yields_the_same_media_as_the_file(
    clips: dict[str, Path],
    rtsp_results: dict[tuple[str, str], tuple[list[Taken], SourceError]],
    case: tuple[str, str],
) -> None:
    expected = take(clips[case[0]])
    (taken,), error = rtsp_results[case]
    assert error.reason == "eof"
    assert taken.holes() == []
    assert abs(len(taken.audio()) - len(expected.audio())) <= 0.07 * MAIN
    if expected.chunks:
        assert onset_s(taken.audio()) == pytest.approx(onset_s(expected.audio()), abs=0.02)
    if expected.pictures:
        assert [f.at for f in taken.pictures] == pytest.approx([f.at for f in expected.pictures], abs=30)
        difference = np.abs(taken.pictures[0].pixels.astype(int) - expected.pictures[0].pixels.astype(int))
        assert difference.max() <= 1
    assert {a.source for a in taken.anchors} <= {"arrival", "rtcp"}
    assert all(abs(a.utc_s - time.time()) < 60 for a in taken.anchors)
    assert taken.anchors[0].at < MAIN


@needs_rtsp
@pytest.mark.parametrize("kind", ["basic", "digest"])
def test_rtsp_users(clips: dict[str, Path], kind: str) -> None:
    with RtspServer(clips["aac"], auth="basic" if kind == "basic" else "digest", password="right one") as server:
        for url, words in [
            (server.url("user", "wrong-secret"), "the camera refused the user or password of rtsp://***@127.0.0.1"),
            (server.url(), "requires a user and a password"),
        ]:
            error = error_of(url)
            assert error.reason == "auth"
            assert words in str(error)
            assert "wrong-secret" not in str(error)
        missing = error_of(server.url("user", "right%20one", path="/nothing"))
        assert (missing.reason, "check the path" in str(missing)) == ("not_found", True)
        with open_media(server.url("user", "right%20one"), ALL) as media:
            assert media.has_audio
            assert media.has_video


@dataclass
class Reading:
    """A reader in its own thread, as in the daemon."""

    media: Media
    items: list[MediaItem] = field(default_factory=list)
    error: SourceError | None = None
    ended_at: float = 0.0

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            self.items.extend(self.media)
        except SourceError as error:
            self.error = error
        self.ended_at = time.monotonic()

    def wait_until_heard(self, seconds: float) -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if any(isinstance(i, Chunk) and i.end > seconds * i.rate_hz for i in tuple(self.items)):
                return
            time.sleep(0.02)
        raise AssertionError("nothing heard")

    def reason_after(self, limit_s: float) -> tuple[str, float]:
        started = time.monotonic()
        self.thread.join(limit_s)
        assert not self.thread.is_alive()
        assert self.error is not None
        return self.error.reason, self.ended_at - started


@needs_rtsp
def test_rtsp_server_dies_and_comes_back(clips: dict[str, Path]) -> None:
    with RtspServer(clips["aac"]) as server:
        with open_media(server.url(), ALL) as media:
            reading = Reading(media)
            reading.wait_until_heard(0.5)
            server.kill()
            reason, waited_s = reading.reason_after(5)
        assert reason == "eof"
        assert waited_s < 2
        assert error_of(server.url()).reason == "refused"
        server.restart()
        with open_media(server.url(), ALL) as media:
            assert isinstance(next(i for i in media if isinstance(i, Chunk)), Chunk)


@needs_rtsp
@pytest.mark.parametrize("how", ["freeze", "stall"])
def test_rtsp_server_goes_silent(clips: dict[str, Path], how: str) -> None:
    """`freeze`: the process stops, as with a cut cable. `stall`: only media stops, RTCP continues."""
    with RtspServer(clips["aac"]) as server, open_media(server.url(), ALL, MediaOptions(read_timeout_s=1)) as media:
        reading = Reading(media)
        reading.wait_until_heard(0.5)
        server.freeze() if how == "freeze" else server.stall()
        reason, waited_s = reading.reason_after(5)
    assert reason == "timeout"
    assert waited_s < 3  # field notes: up to twice the read timeout


@needs_rtsp
@pytest.mark.parametrize("end", ["interrupt", "close"])
def test_a_blocked_reader_ends_at_once(clips: dict[str, Path], end: str) -> None:
    with RtspServer(clips["aac"]) as server, open_media(server.url(), ALL, MediaOptions(read_timeout_s=30)) as media:
        reading = Reading(media)
        reading.wait_until_heard(0.3)
        server.freeze()
        time.sleep(0.3)
        media.interrupt() if end == "interrupt" else media.close()
        reason, waited_s = reading.reason_after(5)
    assert reason == "timeout"
    assert waited_s < 1


@needs_rtsp
def test_packet_loss_leaves_holes_and_no_error(clips: dict[str, Path]) -> None:
    with RtspServer(clips["aac"], loss=0.1) as server:
        (taken,), error = take_live(server.url(), ALL, MediaOptions(transport="udp"))
    assert error.reason == "eof"
    assert taken.holes()
    assert onset_s(taken.audio()) == pytest.approx(1.0, abs=0.1)


def test_http_file_hls_and_errors(clips: dict[str, Path], tmp_path: Path) -> None:
    samples = noise_bursts(4, 48_000, bursts=((3.0, 3.5),))
    make_clip(
        tmp_path / "index.m3u8",
        seconds=4,
        video="h264",
        samples=samples,
        options={"hls_time": "1", "hls_list_size": "0"},
    )
    make_clip(tmp_path / "clip.mkv", audio="opus", video="h264", samples=samples)
    (tmp_path / "page.html").write_text("<html></html>")
    with http_server(tmp_path) as base:
        assert len(list(tmp_path.glob("*.ts"))) > 2
        for name in ("index.m3u8", "clip.mkv"):
            with open_media(f"{base}/{name}", ALL) as media:
                assert not media.live
                (taken,) = epochs(iter(media))
            assert onset_s(taken.audio()) == pytest.approx(3.0, abs=0.05)
            assert taken.holes() == []
            assert len(taken.pictures) > 55
        assert error_of(f"{base}/nothing.mp4").reason == "not_found"
        assert error_of(f"{base}/page.html").reason == "invalid_data"


def test_live_mpegts_over_http(clips: dict[str, Path]) -> None:
    with live_ts(clips["aac"]) as url:
        (taken,), error = take_live(url)
    assert error.reason == "eof"
    assert onset_s(taken.audio()) == pytest.approx(1.0, abs=0.06)
    assert taken.holes() == []
    assert {a.source for a in taken.anchors} == {"arrival"}


@needs_ffmpeg
def test_rtmp_pulled(clips: dict[str, Path]) -> None:
    with rtmp_server(clips["aac"]) as url:
        (taken,), error = take_live(url)
    assert error.reason == "eof"
    assert onset_s(taken.audio()) == pytest.approx(1.0, abs=0.06)
    assert taken.pictures


def test_rtmp_pushed_to_us(clips: dict[str, Path]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"rtmp://127.0.0.1:{probe.getsockname()[1]}/live/x"
    with pushing_rtmp(clips["aac"], url):
        (taken,), _ = take_live(url, ALL, MediaOptions(ffmpeg={"listen": "1"}))
    assert onset_s(taken.audio()) == pytest.approx(1.0, abs=0.06)
    assert taken.pictures


@needs_rtsp
@pytest.mark.slow
def test_sender_reports_become_anchors(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=12, video="h264")
    with RtspServer(clip) as server:
        started = time.time()
        (taken,), _ = take_live(server.url())
    reports = [a for a in taken.anchors if a.source == "rtcp"]
    assert reports
    for anchor in reports:
        assert anchor.utc_s - anchor.at / MAIN == pytest.approx(started, abs=3)
