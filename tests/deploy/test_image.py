"""The image, built from deploy/Dockerfile and run as deployed by a real container runtime.

Takes ten minutes, and up to 15 GB of disk, which is freed at the end.
"""

from __future__ import annotations

import os
import shutil
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.deploy import podman
from tests.deploy.podman import ROOT, Podman, as_deployed, network
from tests.deploy.stopping import busiest_thread, stopped
from tests.e2e.daemon import Listener

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(podman.missing() is not None, reason=str(podman.missing())),
]

IMAGE = "localhost/earwitness"
USER = 10001
TOKEN = "4b" * 32
DEMO = "/opt/earwitness/lib/python3.11/site-packages/streamer/demo"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    running = Podman(tmp_path_factory.mktemp("podman"))
    try:
        running.build(IMAGE)
        yield running
    finally:
        running.close()


def test_its_metadata(run: Podman, capsys: pytest.CaptureFixture[str]) -> None:
    image = run.inspect(IMAGE)
    with capsys.disabled():
        print(f"\nthe image has {image['Size'] / 1e9:.2f} GB (torch from PyPI, with CUDA's libraries)")
    config = image["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["earwitness"]  # not a shell, which would not pass SIGTERM on
    assert config["Cmd"] == ["run"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.version"] == VERSION
    assert image["Healthcheck"]["Test"] == ["CMD", "earwitness", "health"]
    assert run("run", "--rm", *as_deployed(), "--entrypoint", "id", IMAGE, "-u").strip() == f"{USER}"


def test_the_demo(run: Podman) -> None:
    out = run("run", "--rm", *as_deployed(), "--network", "none", IMAGE, "demo")
    heard = [line for line in out.splitlines() if line.startswith("heard ")]
    assert len(heard) == 1, out
    assert int(heard[0].split()[1]) >= 10, out


def test_recorded_clips_are_scored(run: Podman) -> None:
    """Loads the libraries that write caches, for which a read-only root file system leaves only /tmp."""
    clip = ["replay", f"{DEMO}/demo.mp4", "--truth", f"{DEMO}/truth.tsv"]
    out = run("run", "--rm", *as_deployed(), "--network", "none", IMAGE, *clip)
    assert "F1" in out


def test_without_a_source_or_keys_it_says_what_to_do(run: Podman) -> None:
    for arguments, expected in (((), "no source to listen to"), (("run", "x=rtsp://h/x"), "earwitness keys new")):
        done = run.try_("run", "--rm", *as_deployed(), "--network", "none", IMAGE, *arguments)
        assert done.returncode != 0
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def keys(run: Podman, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key folder that the image created in a volume; `outside.key` is a subscriber's."""
    file = "/etc/earwitness/keys/outside.key"
    volume = ["--volume", "keys:/etc/earwitness/keys"]
    run("run", "--rm", *as_deployed(), *volume, IMAGE, "keys", "new", "outside", "--to", file)
    folder = tmp_path_factory.mktemp("keys") / "keys"
    shutil.copytree(run("volume", "inspect", "--format", "{{.Mountpoint}}", "keys").strip(), folder)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config of deploy/k8s, with the demo recording as a camera."""
    manifests = list(yaml.safe_load_all((ROOT / "deploy/k8s/earwitness.yaml").read_text()))
    fields = yaml.safe_load(next(one for one in manifests if one["kind"] == "ConfigMap")["data"]["earwitness.yaml"])
    fields["streams"] = {"demo": {"source": f"{DEMO}/demo.mp4", "realtime": True, "loop": True}}
    path = tmp_path / "earwitness.yaml"
    path.write_text(yaml.safe_dump(fields))
    path.chmod(0o644)
    return path


def mounts(keys: Path, config: Path) -> list[str]:
    """Mounts as in deploy/k8s: root owns the secrets, the daemon's group can read them, and nothing can be written."""
    folder = config.parent
    shutil.copy(keys / "server.key", folder / "server.key")
    shutil.copytree(keys / "clients", folder / "clients")
    (folder / "http").mkdir()
    (folder / "http/token").write_text(TOKEN)
    for secrets in (folder / "clients", folder / "http"):
        secrets.chmod(0o1777)
    for file in (folder / "server.key", folder / "http/token", *(folder / "clients").iterdir()):
        os.chown(file, 0, USER)
        file.chmod(0o440)
    return [
        f"--volume={config}:/etc/earwitness/earwitness.yaml:ro",
        f"--volume={folder}/server.key:/etc/earwitness/keys/server.key:ro",
        f"--volume={folder}/clients:/etc/earwitness/keys/clients:ro",
        f"--volume={folder}/http:/etc/earwitness/http:ro",
    ]


def until_healthy(run: Podman, name: str, healthy: bool, seconds: float) -> None:
    """Wait until the image's health check succeeds (`healthy`) or fails."""
    end_s = time.monotonic() + seconds
    while (run.try_("healthcheck", "run", name).returncode == 0) != healthy:
        assert time.monotonic() < end_s, run.try_("logs", name)
        time.sleep(1.0)


def test_a_subscriber_outside_receives_events_and_a_hanging_worker_is_unhealthy(
    run: Podman, keys: Path, config: Path
) -> None:
    with network("ewimage") as (there, _):
        endpoint = f"tcp://{there}:5557"
        with_key = Listener(endpoint, "--key", str(keys / "outside.key"))
        without = Listener(endpoint)
        try:
            where = ["--network", "ns:/run/netns/ewimage", "--volume", "events:/var/lib/earwitness"]
            run("run", "--detach", "--name", "heard", *as_deployed(), *where, *mounts(keys, config), IMAGE)
            until_healthy(run, "heard", True, 60.0)
            end_s = time.monotonic() + 120.0
            while not (with_key.of("onset") and with_key.of("offset")):
                assert time.monotonic() < end_s, run.try_("logs", "heard")
                time.sleep(0.5)
            assert without.messages == []
            for headers, expected in (({"Authorization": f"Bearer {TOKEN}"}, 200), ({}, 401)):
                assert httpx.get(f"http://{there}:9464/metrics", headers=headers).status_code == expected
            events = Path(run("volume", "inspect", "--format", "{{.Mountpoint}}", "events").strip())
            assert (events / "earwitness.sqlite3").stat().st_uid == USER

            pid = int(run.inspect("heard")["State"]["Pid"])
            with stopped(busiest_thread(pid)):
                until_healthy(run, "heard", False, 120.0)
            until_healthy(run, "heard", True, 60.0)

            began_s = time.monotonic()
            run("stop", "--time", "30", "heard")
            assert time.monotonic() - began_s < 20
            assert run.inspect("heard")["State"]["ExitCode"] == 0
            end_s = time.monotonic() + 10.0
            while open_ := {one["event_id"] for one in with_key.of("onset")} - {
                one["event_id"] for one in with_key.of("offset")
            }:
                if time.monotonic() > end_s:
                    came = [one for one in with_key.messages if one["type"] in ("onset", "offset", "status")]
                    pytest.fail(
                        f"no offset for {open_}; what came:\n" + "\n".join(map(str, [*came, run("logs", "heard")]))
                    )
                time.sleep(0.5)
        finally:
            with_key.close()
            without.close()


@pytest.mark.parametrize("after_s", [0.3, 1.0, 2.0, 3.0, 5.0])
def test_it_stops_cleanly_at_any_time(run: Podman, keys: Path, config: Path, after_s: float) -> None:
    """Even as process 1 of a container, which gets no signal that has no handler (pid_namespaces(7))."""
    name = f"ends{after_s}"
    run("run", "--detach", "--name", name, *as_deployed(), "--network", "none", *mounts(keys, config), IMAGE)
    time.sleep(after_s)
    began_s = time.monotonic()
    run("stop", "--time", "30", name)
    assert time.monotonic() - began_s < 20
    assert run.inspect(name)["State"]["ExitCode"] in (0, 143)
