"""Two processes that torchrun starts compute what one does, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from streamer.errors import EarwitnessError
from tests.train.test_corpus import make_recordings, settings
from tests.train.test_resume import log, networks
from train import cli
from train.data import corpus
from train.learning.distributed import joined

FIT: dict[str, Any] = {
    "steps": 5,
    "batch": {"strong": 3, "weak": 2, "unlabeled": 1},  # shared unequally
    "learning_rate": 1e-4,
    "ramp_steps": 1,
    "validate_every": 1,
    "checkpoint_every": 1,
    "threads": 1,
    "mixup": 0.5,
    "shift": True,
    "filter_db": 3,
    "mask_mels": 10,
    "holes": 0.5,
    "hole_cells": 10,
    "onset_weight": 1.0,
}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train.cli"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("corpus")
    small = settings(clips={"train": 4, "weak": 3, "unlabeled": 2, "validation": 2, "test": 2}, clip_s=2.5)
    corpus.make(make_recordings(folder / "recordings", groups=3), folder / "corpus", small, workers=1)
    assert cli.main(["features", str(folder / "corpus"), str(folder / "features"), "--workers", "1"]) == 0
    return [str(folder / "corpus"), str(folder / "features")]


def command(data: list[str], out: Path, **fields: object) -> list[str]:
    path = out.with_name(out.name + ".yaml")
    path.write_text(yaml.safe_dump({**FIT, **fields}))
    return ["fit", *data, str(out), "--config", str(path)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.timeout(600)
def test_two_processes_have_the_costs_and_weights_of_one(data: list[str], tmp_path: Path) -> None:
    assert cli.main(command(data, tmp_path / "one")) == 0
    two = subprocess.run(
        [*TORCHRUN, *command(data, tmp_path / "two")], env=environment(), capture_output=True, text=True, check=False
    )
    assert two.returncode == 0, two.stderr
    rows = {name: log(tmp_path / name) for name in ("one", "two")}
    assert [row["step"] for row in rows["two"]] == [1, 2, 3, 4, 5]  # only the first process writes
    for one, other in zip(rows["one"], rows["two"], strict=True):
        # Consistency costs are differences of nearly equal posteriors. Later costs differ more, because Adam makes
        # steps of full length even where a gradient is rounding alone.
        tolerance = 1e-4 if one["step"] == 1 else 1e-3
        assert other["costs"] == pytest.approx(one["costs"], rel=tolerance, abs=1e-8), one["step"]
        assert other["mean_costs"] == pytest.approx(one["mean_costs"], rel=tolerance, abs=1e-8)
    ours, theirs = networks(tmp_path / "one"), networks(tmp_path / "two")
    assert ours.keys() == theirs.keys()
    for name in ("student.convolutions.1.running_var", "student.gru.bias_hh_l0", "student.classify.weight"):
        moved = ours[name] - ours[name.replace("student", "teacher")]  # what five steps did
        assert moved.abs().max() > 0
        assert (theirs[name] - ours[name]).norm() < 0.02 * moved.norm(), name
    assert two.stderr.count("every hyperparameter") == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_resume_what_one_began(data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli.main(command(data, out, steps=2)) == 0
    resumed = subprocess.run(
        [*TORCHRUN, *command(data, out)], env=environment(), capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    assert [row["step"] for row in log(out)] == [1, 2, 3, 4, 5]
    assert cli.main(command(data, tmp_path / "one")) == 0
    for one, other in zip(log(tmp_path / "one"), log(out), strict=True):
        assert other["costs"] == pytest.approx(one["costs"], rel=1e-3, abs=1e-8), one["step"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_go_on_once_nothing_is_frozen_and_not_before(data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli.main(command(data, out, steps=2, frozen_until=1)) == 0
    for frozen_until, code in ((4, 1), (1, 0)):
        resumed = subprocess.run(
            [*TORCHRUN, *command(data, out, steps=3, frozen_until=frozen_until)],
            env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert resumed.returncode == code, resumed.stderr
        said = {line for line in resumed.stderr.splitlines() if line.startswith("earwitness-train: error")}
        wanted = "earwitness-train: error: frozen_until works in a single process: start this phase without torchrun"
        assert said == ({wanted} if code else set())  # each process says it
    assert [row["step"] for row in log(out)] == [1, 2, 3]


@pytest.mark.timeout(600)
def test_a_killed_process_ends_the_others_with_one_line(data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    started = subprocess.Popen(
        [*TORCHRUN, *command(data, out, steps=100_000, validate_every=100_000)],
        env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (out / "checkpoint.pt").exists() or torch.load(out / "checkpoint.pt", weights_only=True)["step"] < 2:
            assert started.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        ranks = {one.environ().get("RANK"): one for one in psutil.Process(started.pid).children(recursive=True)}
        ranks["1"].send_signal(signal.SIGKILL)
        _, said = started.communicate(timeout=60)
    finally:
        for one in psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []:
            one.kill()
        started.kill()
    assert started.returncode == 1
    errors = [line for line in said.splitlines() if "earwitness-train: error" in line]
    assert len(errors) == 1, said
    assert "process 0 of 2: " in errors[0]
    assert "the same command resumes" in errors[0]
    assert "train/loop.py" not in said  # no traceback of ours
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] >= 2


def test_a_device_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with joined("auto") as group:
        assert group.leads
        assert group.share(5) == 5
        assert group.sums([1.5, 2.0]) == [1.5, 2.0]
    if not torch.cuda.is_available():
        with pytest.raises(EarwitnessError, match="has no GPU that torch can use"), joined("cuda"):
            pass
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(EarwitnessError, match="start the run with torchrun"), joined("cpu"):
        pass
