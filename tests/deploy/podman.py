"""Builds and runs the image with podman, which needs neither a daemon nor a registry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAMS = ("podman", "runc", "mmdebstrap", "ip")
BASE = "docker.io/library/debian:bookworm-slim"
"""The Dockerfile's base image; here it is made from Debian's packages."""


def missing() -> str | None:
    """What this machine lacks to build and run an image; None if nothing."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        return f"no {', '.join(lacking)}: sh tests/install.sh image"
    return None if os.geteuid() == 0 else "only root can make a base image and networks"


class Podman:
    """Runs podman with its own images and containers, kept under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._command = ["podman", "--root", str(folder / "store"), "--runroot", str(folder / "run")]
        self._command += ["--cgroup-manager", "cgroupfs", "--runtime", "runc", "--log-level", "fatal"]

    def try_(self, *arguments: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a podman command."""
        return subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT
        )

    def __call__(self, *arguments: str, timeout_s: float = 300.0) -> str:
        """What a podman command prints, which must succeed."""
        done = self.try_(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stdout[-6000:]}{done.stderr[-6000:]}"
        return done.stdout

    def build(self, name: str, *arguments: str) -> None:
        """Build deploy/Dockerfile over a base of Debian's packages, with torch from PyPI."""
        tar = self._folder / "base.tar"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(tar)], check=True)
        self("import", str(tar), BASE)
        tar.unlink()
        command = ["build", "--isolation", "chroot", "--format", "docker", "--layers=false", "--pull=never"]
        command += ["--build-arg", "TORCH_INDEX=https://pypi.org/simple", *arguments, *self._own_certificate()]
        self(*command, "--tag", name, "--file", "deploy/Dockerfile", ".", timeout_s=3000.0)

    def inspect(self, name: str) -> dict[str, Any]:
        """What `podman inspect` shows of an image or a container."""
        found: dict[str, Any] = json.loads(self("inspect", name))[0]
        return found

    def close(self) -> None:
        """Delete all containers and images, which are gigabytes."""
        self.try_("rm", "--all", "--force", "--time", "0")
        self.try_("rmi", "--all", "--force")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _own_certificate(self) -> Sequence[str]:
        """Options for a network whose proxy to PyPI has a private certificate, as in many companies."""
        asked = [sys.executable, "-m", "pip", "config", "list"]
        settings = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        found = re.search(r"^(?::env:|global|install)\.cert='(.+)'$", settings, re.M)
        file = found[1] if found else os.environ.get("SSL_CERT_FILE", "")
        if not file:
            return ()
        (self._folder / "pip.conf").write_text("[global]\ncert = /run/certificate.pem\n")
        return ("--secret", f"id=pip,src={self._folder / 'pip.conf'}", "--volume", f"{file}:/run/certificate.pem:ro")


def as_deployed() -> list[str]:
    """Options of every container: only /tmp and volumes can be written, and it has no capabilities."""
    # podman's defaults may exceed what is allowed on a test machine that is itself a container.
    limited = ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"]
    return ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges", *limited]


@contextmanager
def network(name: str) -> Iterator[tuple[str, str]]:
    """A network namespace with a virtual cable to it; yields the addresses of its end and of ours."""
    there, here = "10.231.77.2", "10.231.77.1"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}0", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{here}/30", "dev", f"{name}0")
        ip("link", "set", f"{name}0", "up")
        ip("-n", name, "addr", "add", f"{there}/30", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield there, here
    finally:
        ip("netns", "delete", name)
