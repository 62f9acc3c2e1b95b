"""Live sources that send in bursts, through the whole daemon: nothing is lost, cut or taken for a stall."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from streamer.media.source import MediaOptions
from streamer.timeline import seconds
from streamer.types import CELL
from tests.hls import live_hls
from tests.limits import LOOKAHEAD_S
from tests.make_media import make_clip
from tests.models import bursts
from tests.runtime.test_supervisor import Daemon, source
from tests.send import needs_ffmpeg

TWO_CELLS_S = 2 * seconds(CELL) + 1e-6


def events_of(daemon: Daemon, stream: str) -> list[tuple[str, float, float, str]]:
    return [
        (one["class"], one["onset_s"], one["offset_s"], one["end_reason"]) for one in daemon.messages("offset", stream)
    ]


def gauge(daemon: Daemon, name: str, stream: str) -> float:
    match = re.search(rf'^earwitness_{name}{{stream="{stream}"}} (\S+)$', daemon.get("/metrics").text, re.MULTILINE)
    assert match is not None
    return float(match[1])


def check(folder: Path, lengths_s: list[float], clip_s: float, *, wallclock: bool = False) -> None:
    """Play a clip of `clip_s` as live playlists with segments of these lengths, all at the same time."""
    clip = make_clip(folder / "clip.ts", audio="aac", rate_hz=44_100, samples=bursts(clip_s, 5, 44_100))
    alone = folder / "alone"
    alone.mkdir()
    with Daemon(alone, source("file", clip)) as recorded:
        assert recorded.wait() == 0
    expected = [one for one in events_of(recorded, "file") if one[2] < clip_s - LOOKAHEAD_S - 1.0]
    assert len(expected) > 10
    with ExitStack() as stack:
        urls = {
            f"hls{length_s:.0f}": stack.enter_context(live_hls(clip, folder / f"{length_s:.0f}", segment_s=length_s))
            for length_s in lengths_s
        }
        sources = [source(name, url) for name, url in urls.items()]
        if wallclock:  # then FFmpeg's timestamps are arrival times, nearly equal within a segment
            url = list(urls.values())[-1]
            by_clock = MediaOptions(open_timeout_s=2.0, read_timeout_s=2.0, ffmpeg={"use_wallclock_as_timestamps": "1"})
            urls["wallclock"] = url
            sources.append(source("wallclock", url, options=by_clock))
        daemon = stack.enter_context(Daemon(folder, *sources))

        def heard(name: str) -> int:
            return sum(one[1] < clip_s - LOOKAHEAD_S - 1.0 for one in events_of(daemon, name))

        for name in urls:
            daemon.until(lambda name=name: heard(name) >= len(expected), clip_s + 60.0)  # type: ignore[misc]
        coverage = {name: gauge(daemon, "coverage_ratio", name) for name in urls}
        metrics = daemon.get("/metrics").text
        statuses: list[dict[str, Any]] = daemon.messages("status")
    assert min(coverage.values()) >= 0.99, coverage
    for name in urls:
        got = events_of(daemon, name)[: len(expected)]
        for (label, onset_s, offset_s, reason), want in zip(got, expected, strict=True):
            assert (label, reason) == (want[0], want[3])
            assert onset_s == pytest.approx(want[1], abs=TWO_CELLS_S)
            assert offset_s == pytest.approx(want[2], abs=TWO_CELLS_S)
    assert {one["state"] for one in statuses} <= {"connecting", "streaming", "stopped"}
    losses = re.findall(r"^earwitness_(?:dropped|reconnects)_total\{.*\} (.*)$", metrics, re.MULTILINE)
    assert set(losses) == {"0.0"}


@needs_ffmpeg
def test_hls_with_short_segments_gives_the_events_of_its_recording(tmp_path: Path) -> None:
    check(tmp_path, [2.0, 6.0], 36.0, wallclock=True)


@needs_ffmpeg
@pytest.mark.slow
def test_hls_with_long_segments_gives_the_events_of_its_recording(tmp_path: Path) -> None:
    check(tmp_path, [10.0, 20.0], 120.0)
