"""The shipped model hears a recording the same from an RTSP server as from the file, whatever it was encoded with."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer import cli
from streamer.media.source import open_media
from streamer.timeline import seconds
from streamer.types import CELL, SAMPLE_RATE_HZ, Chunk, Want
from tests.e2e.daemon import Daemon
from tests.make_media import make_clip
from tests.rtsp import RtspServer, needs_rtsp

DEMO = Path(__file__).parents[2] / "streamer" / "demo" / "demo.mp4"
BEGIN_S, END_S = 36.0, 78.0
TWO_CELLS_S = 2 * seconds(CELL) + 1e-6
KINDS = {  # stream -> file name, audio, rate, video, transport
    "aac-tcp": ("a.mp4", "aac", 44_100, "h264", "tcp"),
    "aac-udp": ("b.mp4", "aac", 44_100, "h264", "udp"),
    "opus-h265": ("c.mkv", "opus", 48_000, "h265", "tcp"),
    "pcmu": ("d.mov", "pcmu", 8_000, "h264", "tcp"),
}


def demo_audio() -> NDArray[np.float32]:
    with open_media(str(DEMO), Want(frozenset({SAMPLE_RATE_HZ}), pictures=False)) as media:
        whole = np.concatenate([item.samples for item in media if isinstance(item, Chunk)])
    return whole[round(BEGIN_S * SAMPLE_RATE_HZ) : round(END_S * SAMPLE_RATE_HZ)]


def resampled(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """By the spectrum: band-limited, and exact where it matters for a test signal."""
    length = round(len(samples) * rate_hz / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(samples)
    kept = np.zeros(length // 2 + 1, spectrum.dtype)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    return np.asarray(np.fft.irfft(kept, length) * (length / len(samples)), np.float32)


def replayed(clip: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, float, float]]:
    assert cli.main(["replay", str(clip), "--mode", "stream"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    return sorted((row[3], float(row[1]), float(row[2])) for row in rows if len(row) == 4 and row[3])


def differences(
    live: list[tuple[str, float, float]], recorded: list[tuple[str, float, float]]
) -> list[tuple[str, float, float]]:
    """Events of either side that the other side does not have within two cells."""

    def has(events: list[tuple[str, float, float]], one: tuple[str, float, float]) -> bool:
        return any(
            other[0] == one[0] and max(abs(other[1] - one[1]), abs(other[2] - one[2])) <= TWO_CELLS_S + 0.0005
            for other in events
        )

    return [one for one in live if not has(recorded, one)] + [one for one in recorded if not has(live, one)]


@needs_rtsp
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_live_and_recorded_are_heard_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four cameras at once. The last seconds, where RTSP just stops, are left out."""
    samples = demo_audio()
    clips = {
        name: make_clip(
            tmp_path / file, seconds=END_S - BEGIN_S, audio=audio, rate_hz=rate_hz, video=video, fps=12,
            samples=resampled(samples, rate_hz),
        )
        for name, (file, audio, rate_hz, video, _) in KINDS.items()
    }  # fmt: skip
    with ExitStack() as stack:
        servers = {name: stack.enter_context(RtspServer(clip)) for name, clip in clips.items()}
        streams = {name: {"source": server.url(), "transport": KINDS[name][4]} for name, server in servers.items()}
        daemon = stack.enter_context(Daemon(tmp_path, config={"streams": streams}))
        daemon.until(
            lambda: all(any(one["reason"] == "eof" for one in daemon.of("status", name)) for name in KINDS), seconds=120
        )
        assert daemon.terminate()[0] == 0
    last_s = END_S - BEGIN_S - 2.0
    for name, clip in clips.items():
        live = [
            (one["class"], one["onset_s"], one["offset_s"])
            for one in daemon.of("offset", name)
            if one["epoch"] == 0 and one["offset_s"] < last_s
        ]
        recorded = [one for one in replayed(clip, capsys) if one[2] < last_s]
        assert len(recorded) >= 3, json.dumps(recorded)
        assert not differences(live, recorded), (name, live, recorded)
