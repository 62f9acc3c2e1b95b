"""Times in recordings and streams with bad timestamps: the shipped model hears what it hears in the clean recording."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from streamer.bundle import Bundle
from streamer.errors import SourceError
from streamer.features.base import want_of
from streamer.media.source import MediaOptions, open_media
from streamer.models import bundle_path
from streamer.networks.weights import WeightsStore
from streamer.pipeline import StreamPipeline, run
from streamer.replay.replayer import ClipResult, Replayer
from streamer.types import CELL, SAMPLE_RATE_HZ, Chunk, Discontinuity, Floats, MediaItem, Offset, Want
from streamer.windows import StreamSettings
from tests.make_media import Retime, make_clip
from tests.media.test_steering import PATTERNS
from tests.rtsp import RtspServer, needs_rtsp
from tests.send import live_ts

DEMO = Path(__file__).parents[2] / "streamer" / "demo" / "demo.mp4"
RATE = 16_000
TWO_CELLS_S = 2 * CELL / SAMPLE_RATE_HZ
Events = list[tuple[str, float, float]]


@pytest.fixture(scope="module")
def replayer(tmp_path_factory: pytest.TempPathFactory) -> Replayer:
    weights = WeightsStore(tmp_path_factory.mktemp("weights"), {})
    # With less context a hole in the bark sounds like another class, and these tests are about times.
    return Replayer.of(Bundle.load(bundle_path(None)), weights, "stream", settings=StreamSettings(lookahead_cells=45))


@pytest.fixture(scope="module")
def barks() -> Floats:
    """8 s at 16 kHz: two barks from 1.52 to 6.36 s."""
    with open_media(str(DEMO), Want(frozenset({RATE}))) as media:
        sound = np.concatenate([item.samples for item in media if isinstance(item, Chunk)])
    return sound[11 * RATE : 19 * RATE]


@pytest.fixture(scope="module")
def clean(replayer: Replayer, barks: Floats, tmp_path_factory: pytest.TempPathFactory) -> Events:
    path = tmp_path_factory.mktemp("clean") / "bark.wav"
    found = events_of(replayer.replay(str(make_clip(path, audio="pcm", rate_hz=RATE, samples=barks))))
    assert [label for label, _, _ in found] == ["Dog"]
    return found


def events_of(result: ClipResult) -> Events:
    return [(event.label, event.onset_s, event.offset_s) for event in result.events]


def assert_same(found: Events, expected: Events, *, later_s: float = 0.0, within_s: float = TWO_CELLS_S) -> None:
    assert [label for label, _, _ in found] == [label for label, _, _ in expected], found
    for (_, *times), (_, *right) in zip(found, expected, strict=True):
        assert times == pytest.approx([time + later_s for time in right], abs=within_s)


def covered(result: ClipResult) -> float:
    return result.coverage.covered / result.coverage.cells


def jittered(path: Path, barks: Floats, pattern: str) -> Path:
    """Packets of 40 ms; a container that keeps ms, and sorts packets by what they say."""
    blocks = [barks[start : start + 640] for start in range(0, len(barks) - 639, 640)]
    last = -1

    def retime(time_s: float) -> float:
        nonlocal last
        last = max(round(1000 * (time_s + PATTERNS[pattern](round(time_s / 0.04)))) + 70, last + 1)
        return last / 1000

    return make_clip(path, audio="pcm", rate_hz=RATE, samples=np.concatenate(blocks), retime=retime, packet_size=640)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_jitter_changes_no_event(
    replayer: Replayer, barks: Floats, clean: Events, tmp_path: Path, pattern: str
) -> None:
    result = replayer.replay(str(jittered(tmp_path / "jitter.mkv", barks, pattern)))
    assert_same(events_of(result), clean)
    assert covered(result) == 1.0


def late(path: Path, barks: Floats, late_s: float, *, audio: str = "aac") -> Path:
    retime: Retime = lambda time_s: time_s + late_s  # noqa: E731
    return make_clip(
        path,
        seconds=8 + late_s,
        audio=audio,
        video="h264",
        fps=5,
        rate_hz=48_000 if audio == "opus" else RATE,
        samples=np.repeat(barks, 3) if audio == "opus" else barks,
        retime=retime,
        picture_retime=lambda time_s: time_s,
    )


@pytest.mark.parametrize(
    ("name", "audio", "late_s"),
    [
        ("a.mp4", "aac", 0.5),
        ("a.mp4", "aac", 2.5),
        ("a.mp4", "aac", 30.0),
        ("a.mkv", "opus", 2.5),
        ("a.ts", "aac", 2.5),
        ("a.mov", "pcm", 2.5),
    ],
)
def test_times_count_from_the_containers_start(
    replayer: Replayer, barks: Floats, clean: Events, tmp_path: Path, name: str, audio: str, late_s: float
) -> None:
    result = replayer.replay(str(late(tmp_path / name, barks, late_s, audio=audio)))
    assert_same(events_of(result), clean, later_s=late_s)
    # What there is no sound for is not covered.
    assert result.coverage.covered * CELL / SAMPLE_RATE_HZ == pytest.approx(8, abs=0.3)
    assert result.coverage.cells * CELL / SAMPLE_RATE_HZ == pytest.approx(8 + late_s, abs=0.2)


def test_sound_that_begins_very_late_is_not_waited_for_cell_by_cell(
    replayer: Replayer, barks: Floats, clean: Events, tmp_path: Path
) -> None:
    result = replayer.replay(str(late(tmp_path / "a.mp4", barks, 200.0)))
    assert_same(events_of(result), clean, later_s=200.0)
    assert result.coverage.cells * CELL / SAMPLE_RATE_HZ == pytest.approx(8, abs=0.3)


@pytest.mark.parametrize("lost_s", [0.02, 0.1, 0.5, 1.9, 5.0])
def test_behind_a_hole_times_are_right(
    replayer: Replayer, barks: Floats, clean: Events, tmp_path: Path, lost_s: float
) -> None:
    """The sound breaks off in the first second, before the barks."""
    kept = make_clip(
        tmp_path / "hole.mkv",
        audio="pcm",
        rate_hz=RATE,
        samples=barks,
        packet_size=320,
        retime=lambda time_s: time_s if time_s < 0.8 else time_s + lost_s,
    )
    result = replayer.replay(str(kept))
    assert_same(events_of(result), clean, later_s=lost_s)


# Live -----------------------------------------------------------------------------------------------------------------


@dataclass
class Live:
    """What a live source gave."""

    events: Events
    coverage: float
    broken: int  # epochs


def live(replayer: Replayer, url: str, options: MediaOptions) -> Live:
    pipeline = StreamPipeline(
        "live",
        replayer.factories,
        replayer.bundle.decoding,
        replayer.bundle.window_cells,
        StreamSettings(),
        lambda: "id",
        carried=replayer.bundle.carried,
    )
    items: list[MediaItem] = []
    # All of it first, as a reader's thread does: arrival times must not wait for the model.
    with open_media(url, want_of(replayer.factories.values()), options) as media:
        assert media.live
        pipeline.source_has(audio=media.has_audio, pictures=media.has_video)
        with suppress(SourceError):  # the server has ended the stream
            items.extend(media)
    broken = sum(isinstance(item, Discontinuity) for item in items)
    outputs = [timed.output for timed in run(items, pipeline, replayer.detector)]
    offsets = [output for output in outputs if isinstance(output, Offset)]
    events = [(one.label, one.onset / SAMPLE_RATE_HZ, one.offset / SAMPLE_RATE_HZ) for one in offsets]
    return Live(events, pipeline.coverage.covered / pipeline.coverage.cells, broken)


WALLCLOCK = {"use_wallclock_as_timestamps": "1"}


@needs_rtsp
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_arrival_times_as_timestamps_over_rtsp(
    replayer: Replayer, barks: Floats, clean: Events, tmp_path: Path, transport: str
) -> None:
    clip = make_clip(tmp_path / "a.mp4", rate_hz=RATE, samples=barks)
    options = MediaOptions(transport="udp" if transport == "udp" else "tcp", ffmpeg=WALLCLOCK)
    with RtspServer(clip) as server:
        got = live(replayer, server.url(), options)
    assert_same(got.events, clean)
    assert got.coverage >= 0.99
    assert got.broken == 0


def test_arrival_times_as_timestamps_over_http(
    replayer: Replayer, barks: Floats, clean: Events, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "a.mp4", rate_hz=RATE, samples=barks, video="h264")
    with live_ts(clip) as url:
        got = live(replayer, url, MediaOptions(ffmpeg=WALLCLOCK))
    assert_same(got.events, clean)
    assert got.coverage >= 0.99
    assert got.broken == 0
