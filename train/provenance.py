"""Makes and checks the provenance of a model (`streamer.provenance`)."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.provenance import Environment, Provenance
from train.split import Known, Pin

_PACKAGES = ("earwitness", "torch", "torchaudio", "torchvision", "av", "numpy")


def environment(from_step: int) -> Environment:
    """This machine and this code."""
    return Environment(
        from_step=from_step,
        commit=_commit(),
        packages={name: _version(name) for name in _PACKAGES},
        python=platform.python_version(),
        machine=f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
    )


def known_of(bundle: Bundle) -> Known:
    """What a bundle records of the corpora that it was trained on, as input to `check_split`.

    Raises:
        EarwitnessError: its provenance was not written by `earwitness-train export`.

    """
    came = bundle.provenance
    if came == Provenance():
        return Known(bundle.name, None, ())
    exported_steps(bundle)
    configs = (*(one.corpus for one in came.phases if one.corpus), came.corpus)
    return Known(bundle.name, pin_of_provenance(came), configs, came.recordings or None)


def exported_steps(bundle: Bundle) -> int:
    """The steps that a bundle was trained for. Raises `EarwitnessError` if `export` did not write the bundle."""
    if bundle.provenance.steps is None:
        raise EarwitnessError(f"bundle {bundle.name}: its provenance is not that of `earwitness-train export`")
    return bundle.provenance.steps


def pin_of_provenance(came: Provenance) -> Pin | None:
    """The parts of all groups that a model was trained or tested on; None if they are not recorded."""
    return None if came.split is None else Pin.of_json(came.split)


def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # else it is another project's checkout
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "source"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
