"""An hour of stream time as fast as it goes, in the real daemon: its memory must stay flat."""

import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tests.e2e.daemon import Daemon
from tests.make_media import make_clip
from tests.models import bursts, seeded_bundle

SETTLED_S = 300.0
HOUR_S = 3600.0


def decoded_s(daemon: Daemon) -> float:
    for line in httpx.get(f"http://{daemon.metrics}/metrics", timeout=30).text.splitlines():
        if line.startswith("earwitness_decoded_audio_seconds_total"):
            return float(line.split()[-1])
    raise AssertionError("no such metric")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_hour_of_stream_time_leaves_memory_flat(tmp_path: Path) -> None:
    """Epochs of 15 minutes, so that both what an epoch gathers and what epochs leave behind would show."""
    clip = make_clip(tmp_path / "long.wav", audio="pcm", rate_hz=22_100, samples=np.tile(bursts(90.0), 10))
    seeded_bundle().save(tmp_path / "bundle")
    config = {"streams": {"soak": {"source": str(clip), "loop": True}}, "publish": {"scores": True}}
    samples: list[tuple[float, int]] = []
    with Daemon(tmp_path, "--model", str(tmp_path / "bundle"), config=config) as daemon:
        daemon.until(lambda: daemon.of("status"))
        assert daemon.process is not None
        process = psutil.Process(daemon.process.pid)
        while not samples or samples[-1][0] < HOUR_S:
            samples.append((decoded_s(daemon), process.memory_info().rss))
            time.sleep(0.5)
        assert daemon.terminate()[0] == 0
    early = np.median([rss for at_s, rss in samples if SETTLED_S <= at_s < 2 * SETTLED_S])
    late = np.median([rss for at_s, rss in samples if at_s >= HOUR_S - SETTLED_S])
    print(f"{early / 2**20:.1f} MiB after 5 to 10 minutes of stream time, {late / 2**20:.1f} MiB after an hour")
    assert late < 1.05 * early
