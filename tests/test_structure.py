"""The structure that ARCHITECTURE.md promises: which way imports go, and how long files are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_FILE = 350
"""Lines. A longer file holds more than one noun."""
LONGER_FOR_A_REASON: dict[str, str] = {}


def contracts(folder: Path) -> str:
    """What import-linter says of the packages in `folder`."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for package in ("streamer", "train"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "bundles"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_every_contract_holds(copy: Path) -> None:
    assert "Contracts: 5 kept, 0 broken." in contracts(copy)


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("streamer/types.py", "import streamer.media.source", "imports go one way"),
        ("streamer/networks/crnn.py", "import streamer.features", "imports go one way"),
        ("streamer/windows.py", "import streamer.events", "imports go one way"),
        ("streamer/replay/replayer.py", "import streamer.runtime.worker", "imports go one way"),
        ("streamer/runtime/worker.py", "import streamer.config.schema", "imports go one way"),
        ("streamer/pipeline.py", "import train.config", "the daemon never imports the training code"),
        ("streamer/commands/doctor.py", "import soundfile", "the daemon never imports the training code"),
        ("streamer/runtime/worker.py", "import ray", "the daemon never imports the training code"),
        (
            "train/evaluation/stored.py",
            "import streamer.runtime.worker",
            "training uses the core, not the daemon's shell",
        ),
        ("train/cli.py", "import streamer.daemon", "training uses the core, not the daemon's shell"),
        ("streamer/commands/doctor.py", "import av", "av only in media"),
        ("streamer/pipeline.py", "import av", "av only in media"),
        ("train/loop.py", "import av", "av only in media"),
        ("streamer/config/loading.py", "import av.container", "av only in media"),
        ("streamer/runtime/lane.py", "import zmq", "zmq only in sinks and client"),
        ("streamer/commands/run.py", "import zmq", "zmq only in sinks and client"),
        ("train/loop.py", "import zmq", "zmq only in sinks and client"),
    ],
)
def test_every_contract_can_be_broken(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    before = path.read_text()
    try:
        path.write_text(f"{before}\n{line}\n")
        found = contracts(copy)
    finally:
        path.write_text(before)
    assert f"{contract} BROKEN" in found


def test_files_are_short() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for package in ("streamer", "train")
        for path in (ROOT / package).rglob("*.py")
    }
    long = {name for name, count in lines.items() if count > LONGEST_FILE}
    assert long == set(LONGER_FOR_A_REASON)
