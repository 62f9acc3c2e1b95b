"""How many threads the networks really run in: what the kernel counts, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.make_media import make_clip
from tests.models import bursts, seeded_bundle

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="with one core torch chooses one thread anyway")


def said(script: str, *arguments: str) -> list[str]:
    """What a Python script prints where nothing but the program decides on threads."""
    environ = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environ,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


THREADS_OF_A_WORKER = """
    import os, sys, threading, time
    from tests.models import bursts
    from tests.runtime.test_worker import Working
    from streamer.types import Chunk

    def tasks():
        return len(os.listdir("/proc/self/task"))

    working = Working(1, threads=int(sys.argv[1]))
    working.opened(0, live=True)
    stream = working.streams[0]
    stream.put(Chunk(22_100, 0, bursts(8.0)))
    before = tasks()
    working.worker.start()
    while working.sample("scored_cells_total", stream="s0") < 10:
        time.sleep(0.01)
    print(tasks() - before)
    working.worker.stop()
    working.worker.join()
"""


def test_the_daemons_networks_run_in_the_worker_alone() -> None:
    assert said(THREADS_OF_A_WORKER, "1") == ["1"]
    assert int(said(THREADS_OF_A_WORKER, "2")[0]) > 1


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    seeded_bundle().save(folder / "bundle")
    return str(make_clip(folder / "x.wav", audio="pcm", rate_hz=22_100, samples=bursts(3.0))), str(folder / "bundle")


THREADS_OF_A_COMMAND = """
    import os, sys
    from {cli} import main
    code = main(sys.argv[1:])
    import torch
    print(code, torch.get_num_threads(), len(os.listdir("/proc/self/task")))
"""


def test_replay_runs_in_as_many_as_it_is_told_and_by_default_in_one(inputs: tuple[str, str]) -> None:
    script = THREADS_OF_A_COMMAND.format(cli="streamer.cli")
    found = []
    for options in ([], ["--threads", "2"]):
        code, threads, tasks = map(int, said(script, "replay", inputs[0], "--model", inputs[1], *options)[-1].split())
        assert (code, threads) == (0, 2 if options else 1)
        found.append(tasks)
    assert found[1] > found[0]


def test_doctor_runs_in_one(inputs: tuple[str, str]) -> None:
    script = THREADS_OF_A_COMMAND.format(cli="streamer.cli")
    arguments = ["doctor", inputs[0], "--model", inputs[1], "--publish", "off", "--metrics", "off"]
    assert int(said(script, *arguments)[-1].split()[1]) == 1


def test_training_commands_but_fit_run_in_one(tmp_path: Path) -> None:
    script = THREADS_OF_A_COMMAND.format(cli="train.cli")
    made = said(script, "features", str(tmp_path), str(tmp_path / "out"))  # refused: there is nothing
    assert int(made[-1].split()[1]) == 1
