"""Which track and channel is used, and how it is described."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from streamer.errors import SourceError
from streamer.media.source import MediaOptions, open_media
from streamer.media.tracks import AudioInput, Channel
from streamer.types import Chunk, Floats, MediaItem, Want
from tests.make_media import make_clip, tone

RATE = 16_000
SOUND = Want(frozenset({RATE}))


def write(path: Path, tracks: list[tuple[str, Floats]]) -> Path:
    """FLAC tracks: language and (channels, n) each."""
    with av.open(str(path), "w") as container:
        streams = []
        for language, wave in tracks:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(wave)]
            stream = container.add_stream("flac", rate=RATE, layout=layout)
            if language:
                stream.metadata["language"] = language
            streams.append((stream, layout, wave))
        for stream, layout, wave in streams:
            for start in range(0, wave.shape[1], 1_152):
                block = np.ascontiguousarray(
                    (wave[:, start : start + 1_152].T * 32_767).astype(np.int16).reshape(1, -1)
                )
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout=layout)
                frame.sample_rate = RATE
                frame.pts = start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def sine(level: float) -> Floats:
    return tone(1, RATE, level=level)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    surround = np.stack([sine(0.1 * number) for number in range(6)])
    tracks = [("", 0 * sine(1)[None]), ("deu", sine(0.25)[None]), ("eng", np.stack([sine(0.5), -sine(0.5)]))]
    return write(tmp_path_factory.mktemp("tracks") / "film.mkv", [*tracks, ("fra", surround)])


def peak(path: Path, track: int | str | None = None, channel: Channel = "mix") -> tuple[float, AudioInput]:
    with open_media(str(path), SOUND, MediaOptions(audio_track=track, channel=channel)) as media:
        assert media.audio is not None
        sound = np.concatenate([item.samples for item in media if isinstance(item, Chunk)])
        return round(float(np.abs(sound).max()), 2), media.audio


@pytest.mark.parametrize(
    ("track", "channel", "loud", "said"),
    [
        (1, "mix", 0.0, "flac 16000 Hz, mono, track 1 of 4"),
        (2, "mix", 0.25, "flac 16000 Hz, mono, track 2 of 4, deu"),
        ("deu", 1, 0.25, "flac 16000 Hz, mono, track 2 of 4, deu"),
        ("DEU", "left", 0.25, "flac 16000 Hz, mono, track 2 of 4, deu"),
        (3, "mix", 0.0, "flac 16000 Hz, 2 channels, their mix, track 3 of 4, eng"),
        ("eng", "left", 0.5, "flac 16000 Hz, 2 channels, number 1, track 3 of 4, eng"),
        ("eng", "right", 0.5, "flac 16000 Hz, 2 channels, number 2, track 3 of 4, eng"),
        (4, "mix", 0.25, "flac 16000 Hz, 6 channels, their mix, track 4 of 4, fra"),
        (4, 5, 0.4, "flac 16000 Hz, 6 channels, number 5, track 4 of 4, fra"),
    ],
)
def test_a_track_and_a_channel_are_chosen_and_described(
    film: Path, track: int | str, channel: Channel, loud: float, said: str
) -> None:
    got, audio = peak(film, track, channel)
    assert got == pytest.approx(loud, abs=0.01)
    assert str(audio) == said


@pytest.mark.parametrize(
    ("track", "channel", "words"),
    [
        (5, "mix", "there is no audio track number 5; it has 1 (flac 16000 Hz, 1 channels); 2 (flac 16000 Hz, 1 chan"),
        ("ita", "mix", "there is no audio track in 'ita'; it has 1 (flac 16000 Hz, 1 channels); 2 (flac"),
        (2, "right", "there is no channel 2; its audio track has one channel"),
        (3, 3, "there is no channel 3; its audio track has 2 channels"),
    ],
)
def test_a_missing_track_or_channel_is_one_line_that_lists_the_available_ones(
    film: Path, track: int | str, channel: Channel, words: str
) -> None:
    with pytest.raises(SourceError) as caught:
        peak(film, track, channel)
    assert caught.value.reason == "no_audio"
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_channel_that_disappears_is_reported(tmp_path: Path) -> None:
    """MPEG-TS with AAC states the number of channels in each packet."""
    first = make_clip(tmp_path / "1.ts", rate_hz=RATE, layout="stereo", samples=tone(2, RATE))
    second = make_clip(tmp_path / "2.ts", rate_hz=RATE, samples=tone(2, RATE), retime=lambda time_s: time_s + 2.05)
    (tmp_path / "both.ts").write_bytes(first.read_bytes() + second.read_bytes())
    with open_media(str(tmp_path / "both.ts"), SOUND, MediaOptions(channel="right")) as media:
        items: list[MediaItem] = []
        with pytest.raises(SourceError) as caught:
            items.extend(media)
    assert sum(len(item.samples) for item in items if isinstance(item, Chunk)) >= 1.8 * RATE
    assert "there is no channel 2" in str(caught.value)
