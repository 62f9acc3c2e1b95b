from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from streamer.errors import UsageError
from streamer.runtime.health import Answer, HealthServer, split_address
from streamer.runtime.metrics import LATENCY_BUCKETS_S, Metrics


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics("0.1.0", "spectral", ["door", "hall"], ["Dog", "Alarm_bell_ringing"])
    made.state("door", "streaming")
    made.reconnect("door", "eof")
    made.reconnect("door", "a reason that nobody knows")
    made.abandoned("door")
    made.decoded("door", 1.5, 3)
    made.dropped("door", "queue_audio", 2)
    made.progress("door", 0.25, 0.9, 4, 1)
    made.scored("door", 8)
    made.onset("door", "Dog", 1.6)
    made.onset("door", "Dog", None)
    made.stage("detect", 0.03)
    made.batch(2)
    made.message_dropped("tags")
    made.sink_error("zmq")
    return made


@pytest.fixture
def server(metrics: Metrics) -> Iterator[HealthServer]:
    answers = {
        "healthy": Answer(True, {"ok": True}),
        "ready": Answer(False, {"ok": False, "waiting_for": {"door": ""}}),
    }
    made = HealthServer("127.0.0.1:0", metrics.registry, lambda: answers["healthy"], lambda: answers["ready"])
    yield made
    made.close()


def test_metrics_contain_what_was_counted(server: HealthServer) -> None:
    answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics")
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    for line in (
        'earwitness_stream_state{state="streaming",stream="door"} 1.0',
        'earwitness_stream_state{state="connecting",stream="door"} 0.0',
        'earwitness_reconnects_total{reason="eof",stream="door"} 1.0',
        'earwitness_reconnects_total{reason="other",stream="door"} 1.0',
        'earwitness_readers_abandoned_total{stream="hall"} 0.0',
        'earwitness_decoded_audio_seconds_total{stream="door"} 1.5',
        'earwitness_decoded_frames_total{stream="door"} 3.0',
        'earwitness_dropped_total{reason="queue_audio",stream="door"} 2.0',
        'earwitness_media_lag_seconds{stream="door"} 0.25',
        'earwitness_coverage_ratio{stream="door"} 0.9',
        'earwitness_picture_stride{stream="door"} 4.0',
        'earwitness_events_total{class="Dog",stream="door"} 2.0',
        'earwitness_events_total{class="Alarm_bell_ringing",stream="hall"} 0.0',
        'earwitness_onset_to_message_seconds_count{stream="door"} 1.0',
        'earwitness_onset_to_message_seconds_bucket{le="1.5",stream="door"} 0.0',
        'earwitness_onset_to_message_seconds_bucket{le="1.75",stream="door"} 1.0',
        'earwitness_stage_seconds_count{stage="detect"} 1.0',
    ):
        assert line in lines
    assert LATENCY_BUCKETS_S[0] == 0.25
    assert LATENCY_BUCKETS_S[-1] == 10.0
    assert "_created" not in answer.text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")
def test_promtool_accepts_the_metrics(server: HealthServer) -> None:
    text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").content
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_body_explains_a_failed_check(server: HealthServer) -> None:
    base = f"http://127.0.0.1:{server.port}"
    assert httpx.get(f"{base}/healthz").json() == {"ok": True}
    ready = httpx.get(f"{base}/readyz")
    assert ready.status_code == 503
    assert ready.json()["waiting_for"] == {"door": ""}
    assert httpx.get(f"{base}/nothing").status_code == 404
    assert httpx.head(f"{base}/healthz").status_code == 200


def test_a_silent_client_blocks_no_other(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert httpx.get(f"http://127.0.0.1:{server.port}/healthz").status_code == 200


def test_a_port_in_use_is_one_line(server: HealthServer, metrics: Metrics) -> None:
    with pytest.raises(UsageError, match=rf"127.0.0.1:{server.port}.*in use.*--metrics"):
        HealthServer(f"127.0.0.1:{server.port}", metrics.registry, lambda: Answer(True, {}), lambda: Answer(True, {}))


@pytest.mark.parametrize("address", ["9464", "host:", ":9464", "host:port", "127.0.0.1:70000", ""])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        split_address(address)


def test_ipv6() -> None:
    assert split_address("[::1]:9464") == ("::1", 9464)
