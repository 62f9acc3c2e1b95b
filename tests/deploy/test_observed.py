"""Every alert and every panel, with a real Prometheus that scrapes a healthy daemon and a failing one."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.deploy.prometheus import Prometheus
from tests.deploy.stopping import busiest_thread, stopped
from tests.e2e.daemon import Daemon
from tests.make_media import make_clip
from tests.rtsp import free_port
from tests.runtime.test_listener import damaged
from tests.test_cli import earwitness

ROOT = Path(__file__).parents[2]
GRAFANA, PROMETHEUS = ROOT / "deploy/grafana", ROOT / "deploy/prometheus"
DEMO = ROOT / "streamer/demo/demo.mp4"

ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
PANELS: list[dict[str, Any]] = [
    panel for panel in json.loads((GRAFANA / "dashboard.json").read_text())["panels"] if panel["type"] != "row"
]
SHORT = re.compile(r"\[(2m|5m|15m|30m|1h|1d)\]")
"""Ranges of alerts and panels, to be shortened to seconds for the tests."""


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_config_are_valid() -> None:
    promtool("check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml"))
    promtool("check", "rules", str(PROMETHEUS / "alerts.yaml"))


def test_alerts_fire_when_they_should_and_not_before() -> None:
    promtool("test", "rules", str(PROMETHEUS / "alerts.test.yaml"))
    tested = (PROMETHEUS / "alerts.test.yaml").read_text()
    assert [name for name in ALERTS if f"alertname: {name}" not in tested] == []


def test_the_dashboard_is_generated() -> None:
    made = subprocess.run([sys.executable, GRAFANA / "dashboard.py"], capture_output=True, text=True, check=True)
    assert made.stdout == (GRAFANA / "dashboard.json").read_text(), (
        "run: python deploy/grafana/dashboard.py > deploy/grafana/dashboard.json"
    )


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    config = {"streams": {"demo": {"source": str(DEMO), "realtime": True, "loop": True}}}
    with Daemon(tmp_path_factory.mktemp("well"), config=config) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def ill(small_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose cameras are unreachable, mute or send damaged packets, and whose disks are full."""
    folder = tmp_path_factory.mktemp("ill")
    mute = make_clip(folder / "mute.mkv", samples=np.zeros(30 * 48_000, np.float32))
    broken = damaged(make_clip(folder / "broken.ts", video="h264"))
    live = {"realtime": True, "loop": True}
    config = {
        "streams": {
            "demo": {"source": str(DEMO), **live},
            "mute": {"source": str(mute), **live},
            "broken": {"source": str(broken), **live},
            "off": {"source": f"rtsp://127.0.0.1:{free_port()}/x"},
        },
        "publish": {"jsonl": "/dev/full"},
        "store": {"path": str(small_disk / "store.sqlite3")},
        "reconnect": {"first_s": 0.1, "last_s": 0.5},
    }
    with Daemon(folder, config=config) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def prometheus(well: Daemon, ill: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    targets = {"well": well.metrics, "ill": ill.metrics, "gone": f"127.0.0.1:{free_port()}"}
    with Prometheus(tmp_path_factory.mktemp("prometheus"), targets) as running:
        for instance in ("well", "ill"):
            running.until(f'sum(rate(earwitness_scored_cells_total{{instance="{instance}"}}[10s])) > 0', bool)
        yield running


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_shows_data(panel: dict[str, Any], prometheus: Prometheus) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        expr = target["expr"].replace("$__rate_interval", "30s").replace("$instance", ".*").replace("$stream", ".*")
        assert "$" not in expr
        found = prometheus.until(
            SHORT.sub("[60s]", expr), lambda found: any(one["value"][1] != "NaN" for one in found), 120.0
        )
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert all(label in one["metric"] for one in found), f"{label} is in none of {found}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ALERTS)
def test_no_alert_fires_for_the_healthy_daemon(name: str, prometheus: Prometheus) -> None:
    # A condition may hold for some seconds, as at the start: the alerts have a `for` against this.
    prometheus.until(ALERTS[name]["expr"], lambda found: "well" not in [one["metric"].get("instance") for one in found])


FIRES = {
    "EarwitnessDown": {"gone"},
    "EarwitnessSourceDown": {"off"},
    "EarwitnessSourceUnstable": {"off"},
    "EarwitnessMicrophoneSilent": {"mute"},
    "EarwitnessMessagesLost": {"ill"},
    "EarwitnessStoreNearlyFull": {"ill"},
}
"""Streams or instances for which each alert must fire while the worker runs."""
FIRES_WHILE_THE_WORKER_HANGS = {
    "EarwitnessConnectedButUnheard": {"demo", "mute"},
    "EarwitnessFallingBehind": {"demo", "mute"},
    "EarwitnessModelSilent": {"ill"},
}
FIRES_AFTER_THE_WORKER_HUNG = {"EarwitnessLate": {"demo", "mute"}, "EarwitnessCoverageLow": {"demo", "mute"}}
FIRES_WHEN_THE_DISK_IS_FULL = {"EarwitnessStoreFailing": {"ill"}}
FIRES_WHEN_A_SUBSCRIBER_IS_REFUSED = {"EarwitnessSubscribersRefused": {"ill"}}


def fires(name: str, about: set[str], prometheus: Prometheus) -> None:
    expr = SHORT.sub("[20s]", ALERTS[name]["expr"]).replace("86400", "20")
    prometheus.until(
        expr, lambda found: about <= {one["metric"].get("stream", one["metric"].get("instance")) for one in found}
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FIRES)
def test_alerts_fire_for_the_failing_daemon(name: str, prometheus: Prometheus) -> None:
    fires(name, FIRES[name], prometheus)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_alerts_for_a_hanging_worker(ill: Daemon, prometheus: Prometheus) -> None:
    assert ill.process is not None
    worker = busiest_thread(ill.process.pid)
    for _ in range(20):
        with stopped(worker):
            # A worker that holds Python's global lock stops the whole daemon, which is another alert.
            if earwitness("health", "--url", f"http://{ill.metrics}").returncode == 0:
                for name, about in FIRES_WHILE_THE_WORKER_HANGS.items():
                    fires(name, about, prometheus)
                break
        time.sleep(0.3)
    else:
        pytest.fail("the worker was never stopped outside Python")
    for name, about in FIRES_AFTER_THE_WORKER_HUNG.items():
        fires(name, about, prometheus)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_alert_for_a_failing_store(small_disk: Path, prometheus: Prometheus, ill: Daemon) -> None:
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    for name, about in FIRES_WHEN_THE_DISK_IS_FULL.items():
        fires(name, about, prometheus)
    filler.unlink()
    ill.until(lambda: prometheus.query('earwitness_store_up{instance="ill"} == 1'))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_alert_for_refused_subscribers(ill: Daemon, prometheus: Prometheus) -> None:
    for _ in range(12):
        with socket.create_connection(("127.0.0.1", int(ill.endpoint.rpartition(":")[2]))) as one:
            one.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            time.sleep(0.2)  # then closed before a ZeroMQ handshake
    for name, about in FIRES_WHEN_A_SUBSCRIBER_IS_REFUSED.items():
        fires(name, about, prometheus)


def test_each_alert_is_tested() -> None:
    tried = [FIRES, FIRES_WHILE_THE_WORKER_HANGS, FIRES_AFTER_THE_WORKER_HUNG]
    tried += [FIRES_WHEN_THE_DISK_IS_FULL, FIRES_WHEN_A_SUBSCRIBER_IS_REFUSED]
    assert {name for names in tried for name in names} == set(ALERTS)
