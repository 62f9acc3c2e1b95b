"""Port scans and garbage at all its sockets do not disturb a daemon."""

from __future__ import annotations

import re
import resource
import time
from pathlib import Path

import httpx
import psutil

from tests.e2e.daemon import Daemon
from tests.garbage import garbage
from tests.make_media import make_clip
from tests.models import bursts


def _refused(daemon: Daemon) -> dict[str, float]:
    text = httpx.get(f"http://{daemon.metrics}/metrics").text
    found: dict[str, float] = {}
    pattern = r'^earwitness_connections_refused_total{.*socket="(\w+)"} (\S+)$'
    for socket, value in re.findall(pattern, text, re.MULTILINE):
        found[socket] = found.get(socket, 0.0) + float(value)
    return found


def test_garbage_at_every_socket_of_a_daemon(tmp_path: Path, bundle: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", audio="aac", samples=bursts(9.0, 5, 44_100), rate_hz=44_100)
    door = {"source": str(clip), "realtime": True, "loop": True}
    config = {"streams": {"door": door}, "model": str(bundle), "publish": {"tags": True}}
    with Daemon(tmp_path, config=config) as daemon:
        daemon.until(lambda: len(daemon.of("onset")) >= 1)
        daemon.until(lambda: daemon.of("heartbeat"))
        assert daemon.process is not None
        process = psutil.Process(daemon.process.pid)
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, 65_536)
        places = (daemon.endpoint, daemon.of("heartbeat")[-1]["catch_up"], daemon.metrics)
        ports = [int(place.rpartition(":")[2]) for place in places]
        assert len(set(ports)) == 3
        for port in ports:
            garbage(port)
        time.sleep(1.0)
        files, memory = process.num_fds(), process.memory_info().rss
        before = _refused(daemon)
        for _ in range(3):
            for port in ports:
                garbage(port)
        # Without keys, random bytes may look like an old version of ZeroMQ.
        daemon.until(lambda: _refused(daemon)["zmq"] - before["zmq"] >= 2 * 3 * 104)
        daemon.until(lambda: _refused(daemon)["http"] - before["http"] >= 3 * 108)  # one of them is HTTP
        daemon.until(lambda: process.num_fds() <= files + 2)  # the recording, and a request for metrics
        assert process.memory_info().rss - memory < 50_000_000
        onsets = len(daemon.of("onset"))
        daemon.until(lambda: len(daemon.of("onset")) > onsets)
        assert httpx.get(f"http://{daemon.metrics}/healthz").status_code == 200
        assert daemon.listener is not None
        numbers = [one["seq"] for one in list(daemon.listener.messages) if not one["replay"]]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert "Traceback" not in daemon.log
        assert daemon.log.count("refused") < 30
        assert daemon.terminate()[0] == 0
