"""What is reported about a stream's audio while it is read: real media, board, metrics and log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamer.media.level import CANCELLING_S, SILENT_S
from streamer.media.source import open_media
from streamer.runtime.board import Board, StreamView
from streamer.runtime.listener import Listener
from streamer.runtime.metrics import Metrics
from streamer.runtime.reporter import Reporter
from streamer.sinks.wire import StatusMessage
from streamer.types import Floats, Want
from tests.make_media import make_clip, tone

RATE = 8_000
EVERYTHING = Want(frozenset({22_100}), pictures=True)


class Listening:
    """One opened stream that is read to its end."""

    def __init__(self, path: Path, metrics: Metrics | None = None) -> None:
        self.metrics = metrics or Metrics("0", "seeded", ["cam"], [])
        self.board = Board([StreamView("cam", "here")], self.metrics, time.monotonic)
        self.changes: list[int] = []
        with open_media(str(path), EVERYTHING) as media:
            tracks = {"has_audio": media.has_audio, "has_video": media.has_video}
            self.board.opened("cam", 1, live=True, audio=media.audio, **tracks)
            listener = Listener("cam", media, self.board, self.metrics)
            for _ in media:
                if listener.news:
                    listener.look()
                    self.changes.append(self.board.changes("cam"))
            listener.look()

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"earwitness_{name}", {"stream": "cam", **labels})

    @property
    def status(self) -> StatusMessage:
        return Reporter("seeded", {}, "0").status(self.board.view("cam"))


def sound(*parts: Floats) -> Floats:
    return np.concatenate(parts, axis=-1)


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    lines: list[str] = []
    with caplog.at_level(logging.INFO):
        yield lines
    lines += [record.getMessage() for record in caplog.records]


def test_the_audio_and_its_level_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = make_clip(tmp_path / "a.wav", audio="pcm", rate_hz=RATE, samples=tone(3, RATE, level=0.5))
    with logged(caplog) as lines:
        heard = Listening(clip)
    audio = heard.status.audio
    assert audio is not None
    assert (audio.codec, audio.rate_hz, audio.channels, audio.channel) == ("pcm_s16le", RATE, 1, "mix")
    assert (audio.track, audio.tracks, audio.language) == (1, 1, "")
    assert (audio.rms_dbfs, audio.peak_dbfs) == (-9.0, -6.0)
    assert (heard.status.input, heard.status.warnings) == ("ok", [])
    assert heard.value("input_rms_dbfs") == pytest.approx(-9.03, abs=0.01)
    assert heard.value("input_peak_dbfs") == pytest.approx(-6.02, abs=0.01)
    assert heard.value("input_state", input="ok") == 1
    labels = {"codec": "pcm_s16le", "rate_hz": "8000", "channels": "1", "channel": "mix"}
    assert heard.value("audio_info", **labels, track="1", tracks="1", language="") == 1
    assert lines == ["cam: level -9 dBFS, peak -6 dBFS"]


@pytest.mark.parametrize(("state", "bad_s"), [("silent", SILENT_S), ("cancelling", CANCELLING_S)])
def test_an_input_without_sound_is_reported_once_and_so_is_its_recovery(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, state: str, bad_s: int
) -> None:
    good = np.stack([tone(2, RATE)] * 2)
    quiet = tone(bad_s + 3, RATE, level=0.0 if state == "silent" else 0.5)
    bad = np.stack([quiet, -quiet])
    with logged(caplog) as lines:
        heard = Listening(
            make_clip(tmp_path / "bad.flac", audio="flac", layout="stereo", rate_hz=RATE, samples=sound(good, bad))
        )
    assert heard.status.input == state
    assert len(heard.status.warnings) == 1
    assert heard.value("input_state", input=state) == 1
    assert heard.value("input_state", input="ok") == 0
    assert [line for line in lines if "level" not in line] == [f"cam: {heard.status.warnings[0]}"]
    assert heard.changes[-1] > heard.changes[0]  # so that subscribers learn of it at once
    caplog.clear()
    with logged(caplog) as lines:
        again = Listening(
            make_clip(tmp_path / "good.flac", audio="flac", layout="stereo", rate_hz=RATE, samples=sound(bad, good))
        )
    assert (again.status.input, again.status.warnings) == ("ok", [])
    assert lines[-1] == "cam: there is sound again"


def test_a_lost_stream_has_no_level(tmp_path: Path) -> None:
    heard = Listening(make_clip(tmp_path / "a.wav", audio="pcm", rate_hz=RATE, samples=tone(2, RATE)))
    heard.board.lost("cam", "eof", "gone")
    assert heard.value("input_rms_dbfs") is None
    assert heard.value("input_state", input="unknown") == 1
    heard.board.opened("cam", 2, live=True, has_audio=False, has_video=True)
    assert (heard.status.audio, heard.status.input) == (None, "unknown")


def test_an_implausible_clock_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=3, metadata={"creation_time": "2098-05-01T12:00:00Z"})
    with logged(caplog) as lines:
        heard = Listening(clip)
    (warning,) = heard.status.warnings
    assert "creation_time" in warning
    assert lines.count(f"cam: {warning}") == 1


def damaged(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(1)
    for spot in random.integers(len(data) // 4, len(data) * 3 // 4, 15):
        data[spot : spot + 300] = random.bytes(300)
    path.write_bytes(data)
    return path


def test_damaged_packets_are_counted(tmp_path: Path) -> None:
    heard = Listening(damaged(make_clip(tmp_path / "a.ts", video="h264")))
    assert (heard.value("corrupt_packets_total") or 0) >= 1


def joined(folder: Path, later_s: float, picture_later_s: float) -> Path:
    """Two recordings in one; the second's timestamps begin this much later than the first's."""
    first = make_clip(folder / "1.ts", seconds=3, video="h264")
    second = make_clip(
        folder / "2.ts",
        seconds=3,
        video="h264",
        retime=lambda time_s: time_s + later_s,
        picture_retime=lambda time_s: time_s + picture_later_s,
    )
    path = folder / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def test_repeated_audio_is_counted(tmp_path: Path) -> None:
    heard = Listening(joined(tmp_path, 2.0, 2.0))
    assert heard.value("overlap_samples_total") == pytest.approx(48_000, abs=4_000)


def test_stray_pictures_are_counted(tmp_path: Path) -> None:
    heard = Listening(joined(tmp_path, 3.0, 1_000.0))
    assert (heard.value("stray_pictures_total") or 0) > 20


def test_which_changes_of_a_view_call_for_a_status_at_once() -> None:
    view = StreamView("cam", "here", input="silent", input_detail="nothing", clock_fault="off")
    assert view.warnings == ["nothing", "off"]
    assert replace(view, input_detail="").warnings == ["off"]
