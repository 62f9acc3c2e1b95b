"""Each file of deploy/ is valid for the program that reads it, and agrees with Earwitness."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.config.loading import load_config
from streamer.config.schema import DaemonConfig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
MANIFESTS: list[dict[str, Any]] = [
    document for path in sorted((DEPLOY / "k8s").glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def output(*command: str | Path) -> str:
    """What a command prints, which must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def manifest(kind: str) -> dict[str, Any]:
    return next(one for one in MANIFESTS if one["kind"] == kind)


def test_the_dockerfile() -> None:
    output(BIN / "hadolint", DEPLOY / "Dockerfile")
    output("sh", "-n", DEPLOY / "slim.sh")


def test_the_version_is_that_of_the_program() -> None:
    assert re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, re.M) == [VERSION]
    container = manifest("StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"earwitness:{VERSION}"


def test_the_build_context_holds_only_what_is_copied() -> None:
    """Keys or recordings in the working folder must not get into an image."""
    first, *rest = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert first == "*"
    copied = {source for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for source in line.split()[:-1]}
    assert {line.removeprefix("!") for line in rest if line.startswith("!")} == copied
    assert all((ROOT / one).exists() for one in copied)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml as Docker Compose parses it."""
    output(BIN / "docker-compose", "--file", DEPLOY / "compose.yaml", "config", "--quiet")
    made: dict[str, Any] = json.loads(
        output(BIN / "docker-compose", "--file", DEPLOY / "compose.yaml", "config", "--format", "json")
    )
    return made


def test_compose(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"earwitness", "mediamtx", "prometheus", "grafana"}
    for name, service in compose["services"].items():
        assert service["restart"] == "unless-stopped", name
        assert service["stop_grace_period"], name
        assert service["environment"]["TZ"], name
        assert "healthcheck" in service or "HEALTHCHECK" in DOCKERFILE, name
        for other in service.get("depends_on", {}).values():
            assert other["condition"] == "service_healthy"
        for mount in service["volumes"]:
            assert mount["type"] == "volume" or Path(mount["source"]).exists(), mount
        # Passwords are in files; variables hold only the names of these files.
        for variable, value in service["environment"].items():
            assert ("PASSWORD" not in variable and "TOKEN" not in variable) or value.startswith("/run/secrets/"), (
                variable
            )
        published = {port["target"]: port.get("host_ip", "") for port in service.get("ports", [])}
        assert all(host == "127.0.0.1" or port in (5557, 5558) for port, host in published.items()), name
    assert compose["services"]["earwitness"]["read_only"]


def test_kubernetes() -> None:
    out = output(BIN / "kubernetes-validate", "--strict", DEPLOY / "k8s/earwitness.yaml")
    assert out.count(" passed ") == 4
    assert "WARN" not in out


def test_references_between_the_manifests_are_valid() -> None:
    pod = manifest("StatefulSet")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert manifest("Service")["spec"]["selector"].items() <= labels.items()
    assert manifest("PodMonitor")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert {one["targetPort"] for one in manifest("Service")["spec"]["ports"]} <= set(ports)
    assert {one["port"] for one in manifest("PodMonitor")["spec"]["podMetricsEndpoints"]} <= set(ports)
    claims = [claim["metadata"]["name"] for claim in manifest("StatefulSet")["spec"]["volumeClaimTemplates"]]
    volumes = [*claims, *(volume["name"] for volume in pod["spec"]["volumes"])]
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    (password,) = container["env"]
    key = password["valueFrom"]["secretKeyRef"]
    assert key["name"] == manifest("Secret")["metadata"]["name"]
    assert key["key"] in manifest("Secret")["stringData"]
    assert pod["spec"]["securityContext"]["runAsUser"] == int(re.findall(r"^USER (\d+):", DOCKERFILE, re.M)[0])
    assert {f"{port}" for port in ports.values()} == set(re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.M)[0].split())


@pytest.mark.parametrize("where", ["image", "compose", "kubernetes"])
def test_the_configs_are_valid(where: str, tmp_path: Path) -> None:
    texts = {
        "image": (DEPLOY / "earwitness.yaml").read_text(),
        "compose": (DEPLOY / "compose/earwitness.yaml").read_text(),
        "kubernetes": manifest("ConfigMap")["data"]["earwitness.yaml"],
    }
    path = tmp_path / "earwitness.yaml"
    path.write_text(texts[where])
    config = load_config(path, {"DOOR_PASSWORD": "x"})
    assert config.publish.keys == Path("/etc/earwitness/keys")
    assert config.publish.zmq == "tcp://*:5557"
    assert str(config.metrics).endswith(str(DaemonConfig().metrics).rpartition(":")[2])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze: apt-get install systemd")
def test_the_unit_is_hardened() -> None:
    out = output("systemd-analyze", "security", "--offline=yes", DEPLOY / "systemd/earwitness.service")
    level = re.search(r"Overall exposure level for earwitness.service: ([\d.]+)", out)
    assert level is not None, out
    assert float(level[1]) < 2.5
