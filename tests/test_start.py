"""Ctrl-C, SIGTERM and missing packages while modules are imported: one line each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = {
    "earwitness": "from streamer.cli import main; sys.exit(main())",
    "earwitness -m": "runpy.run_module('streamer.cli', run_name='__main__')",
    "earwitness-train": "from train.cli import main; sys.exit(main())",
    "earwitness-train -m": "runpy.run_module('train.cli', run_name='__main__')",
}
BEGUN = "import enum, os, runpy, signal, sys; os.write(1, b'x'); "
"""Run once Python itself has started; a program can't control what a signal does before."""


def run_until(arguments: list[str], program: str, number: int, after_s: float) -> tuple[int, str, float]:
    """Exit code, standard error and duration of a program that gets a signal some time after it began."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGUN + program, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal: a test runner in the background would pass on its ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == "x"
    time.sleep(after_s)
    began_s = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, time.monotonic() - began_s


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "te")])
def test_a_signal_while_modules_are_imported(program: str, number: int, code: int, word: str) -> None:
    # From the first moment: torch alone takes a second or more.
    for after_s in (0.05, 0.2, 0.4, 0.7, 1.0):
        arguments = ["features", "gone", "gone"] if "train" in program else ["run", "gone.wav", "--publish", "off"]
        ended, errors, took_s = run_until(arguments, PROGRAMS[program], number, after_s)
        assert "Traceback" not in errors
        assert errors.count("\n") == 1, errors
        if ended in (0, 1) and "gone" in errors:
            break  # this machine is fast: it is through
        assert ended == code, errors
        assert errors.startswith(f"{program.split()[0]}: error: {word}")
        assert took_s < 10


@pytest.mark.parametrize("module", ["zmq", "av", "torch", "yaml", "pydantic", "msgspec", "httpx", "tqdm"])
def test_a_missing_package_is_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
    )
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "streamer.cli", "weights" if module in ("httpx", "tqdm") else "run", "x.wav"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"earwitness: error: the package {module} is missing: install it, or reinstall earwitness\n"
