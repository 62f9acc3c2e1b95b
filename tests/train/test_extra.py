"""Without the packages of the extra `train`, the commands that need one say so, and the others work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys
for name in {missing!r}:
    sys.modules[name] = None  # `import name` raises ModuleNotFoundError, as where it is not installed
from train.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(arguments: list[str], *missing: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED.format(missing=missing), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("command", "package"),
    [
        (["corpus", "recordings", "out"], "soundfile"),
        (["corpus", "recordings", "out"], "PIL"),
        (["fit", "c", "f", "out"], "tensorboard"),
        (["fit", "c", "f", "out"], "matplotlib"),
    ],
)
def test_a_command_that_needs_a_missing_package_says_what_to_install(
    command: list[str], package: str, tmp_path: Path
) -> None:
    done = run([str(tmp_path / word) if index else word for index, word in enumerate(command)], package)
    assert done.returncode == 1
    assert done.stderr == f"earwitness-train: error: {package} is not installed: pip install 'earwitness[train]'\n"


@pytest.mark.parametrize("command", ["features", "evaluate", "export", "card"])
def test_the_other_commands_do_not_need_them(command: str, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    arguments = {
        "features": [nowhere, nowhere],
        "evaluate": [nowhere, nowhere, "--model", nowhere],
        "export": [nowhere, nowhere, nowhere, nowhere],
        "card": [nowhere],
    }
    done = run([command, *arguments[command]], "soundfile", "tensorboard")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere" in done.stderr
