"""A run that was interrupted, killed or damaged: it goes on to the very same network, or says in one line why not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.test_corpus import make_recordings, settings
from train import cli
from train.data import corpus

FIT: dict[str, Any] = {
    "steps": 12,
    "batch": {"strong": 2, "weak": 1, "unlabeled": 1},
    "ramp_steps": 4,
    "validate_every": 3,
    "checkpoint_every": 2,
    "threads": 1,
    "shift": True,
    "crop": 0.3,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("corpus")
    small = settings(clips={"train": 4, "weak": 2, "unlabeled": 2, "validation": 2, "test": 2}, clip_s=3.0)
    corpus.make(make_recordings(folder / "recordings", groups=3), folder / "corpus", small, workers=1)
    assert cli.main(["features", str(folder / "corpus"), str(folder / "features")]) == 0
    return [str(folder / "corpus"), str(folder / "features")]


def arguments(data: list[str], out: Path, **fields: object) -> list[str]:
    path = out.with_name(out.name + ".yaml")
    path.write_text(yaml.safe_dump({**FIT, **fields}))
    return ["fit", *data, str(out), "--config", str(path)]


def fit(data: list[str], out: Path, **fields: object) -> int:
    return cli.main(arguments(data, out, **fields))


def killed(command: list[str], when: Callable[[], bool]) -> None:
    """Run `earwitness-train`, and SIGKILL it as soon as `when`."""
    process = subprocess.Popen([sys.executable, "-m", "train.cli", *command], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not when():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


def log(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "waited_for_data_s")} for row in rows
    ]


def networks(out: Path) -> dict[str, torch.Tensor]:
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    best = torch.load(out / "best.pt", weights_only=True)
    return {
        **{f"student.{name}": value for name, value in state["student"].items()},
        **{f"teacher.{name}": value for name, value in state["teacher"].items()},
        **{f"best.{name}": value for name, value in best["teacher"].items()},
        "best step": torch.tensor(best["step"]),
    }


def phases(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "fit.json").read_text())["phases"]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bits(data: list[str], tmp_path: Path) -> None:
    assert fit(data, tmp_path / "whole", steps=40) == 0
    out = tmp_path / "killed"
    command = arguments(data, out, steps=40)
    killed(command, lambda: (out / "log.jsonl").exists() and len((out / "log.jsonl").read_text().splitlines()) >= 3)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] < 40
    assert cli.main(command) == 0
    whole, resumed = networks(tmp_path / "whole"), networks(out)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert log(out) == log(tmp_path / "whole")
    assert [one["from_step"] for one in phases(out)] == [0]


def test_a_resumed_run_repeats_no_row_no_phase_and_no_point(data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert fit(data, out, steps=10, validate_every=1) == 0
    early = (out / "checkpoint.pt").read_bytes()
    assert fit(data, out, steps=20, validate_every=1) == 0
    (out / "checkpoint.pt").write_bytes(early)  # killed at step 20, before its next checkpoint
    assert fit(data, out, steps=20, validate_every=1) == 0
    assert fit(data, out, steps=20, validate_every=1) == 0  # done already
    assert [row["step"] for row in log(out)] == list(range(1, 21))
    assert [(one["from_step"], one["steps"]) for one in phases(out)] == [(0, 10), (10, 20)]
    board = EventAccumulator(str(out))
    board.Reload()
    assert [point.step for point in board.Scalars("cost/total")] == [10, 20]
    assert [point.step for point in board.Scalars("validation/event_f1_micro")] == list(range(1, 21))


def test_going_back_to_a_checkpoint_goes_back_to_its_best_teacher(data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert fit(data, out, steps=4, validate_every=2, keep="last") == 0
    early = (out / "checkpoint.pt").read_bytes()
    before = torch.load(out / "best.pt", weights_only=True)
    assert fit(data, out, steps=8, validate_every=2, keep="last") == 0
    assert torch.load(out / "best.pt", weights_only=True)["step"] == 8
    (out / "checkpoint.pt").write_bytes(early)  # killed behind step 8, before its next checkpoint
    assert fit(data, out, steps=4) == 0  # nothing is left to do
    command = arguments(data, out, steps=100_000, validate_every=100_000)
    killed(command, lambda: torch.load(out / "best.pt", weights_only=True)["step"] == 4)
    after = torch.load(out / "best.pt", weights_only=True)
    assert all(torch.equal(before["teacher"][name], value) for name, value in after["teacher"].items())


def test_fit_json_says_code_packages_machine_and_data(data: list[str], tmp_path: Path) -> None:
    assert fit(data, tmp_path / "run", steps=1) == 0
    (phase,) = phases(tmp_path / "run")
    assert len(phase["data_sha256"]) == 64
    (environment,) = phase["environments"]
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert environment["machine"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode == 0:
        assert environment["commit"].rstrip("+") == head.stdout.strip()


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("checkpoint.pt", b"not a checkpoint", "checkpoint.pt: is damaged, or not a checkpoint of this run"),
        ("checkpoint.pt", None, "checkpoint.pt: is damaged, or not a checkpoint of this run"),
        ("fit.json", b"{", "fit.json: is damaged, or not written by `earwitness-train fit`"),
        ("fit.json", b"[]", "fit.json: is damaged, or not written by `earwitness-train fit`"),
        ("fit.json", b'{"phases": [{}]}', "fit.json: is damaged, or not written by `earwitness-train fit`"),
    ],
)
def test_a_damaged_run_is_said_in_one_line(
    data: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: bytes | None,
    says: str,
) -> None:
    out = tmp_path / "run"
    assert fit(data, out, steps=1) == 0
    path = out / name
    path.write_bytes(damage if damage is not None else path.read_bytes()[: path.stat().st_size // 2])
    capsys.readouterr()
    assert fit(data, out, steps=2) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("earwitness-train: error: ")
    assert says in last


def test_a_foreign_checkpoint_is_said_in_one_line(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(data, tmp_path / "run", steps=1) == 0
    torch.save({"model": torch.zeros(3)}, tmp_path / "run" / "checkpoint.pt")
    capsys.readouterr()
    assert fit(data, tmp_path / "run", steps=2) == 1
    assert "is damaged, or not a checkpoint of this run" in capsys.readouterr().err


def test_what_may_change_within_a_run_does_and_what_may_not_is_refused(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert fit(data, out, steps=2) == 0
    assert fit(data, out, steps=4, weight_decay=0.5, seed=7) == 0
    assert [(one["from_step"], one["seed"]) for one in phases(out)] == [(0, 0), (2, 7)]
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert state["optimiser"]["param_groups"][0]["weight_decay"] == 0.5
    assert fit(data, tmp_path / "other", steps=2) == 0
    assert fit(data, tmp_path / "other", steps=4, weight_decay=0.5) == 0
    assert any(
        not torch.equal(a, b)
        for a, b in zip(networks(out).values(), networks(tmp_path / "other").values(), strict=True)
    )
    raw = json.loads((out / "fit.json").read_text())
    capsys.readouterr()
    (out / "fit.json").write_text(json.dumps({**raw, "classes": ["Dog", "Cat"]}))
    assert fit(data, out, steps=6) == 1
    assert "classes Dog, Cat, now they are Cat, Dog: they can't change within a run" in capsys.readouterr().err
    (out / "fit.json").write_text(json.dumps({**raw, "features": {"spectral": {"window": 1024, "mels": 128}}}))
    assert fit(data, out, steps=6) == 1
    assert "they can't change within a run" in capsys.readouterr().err
    (out / "fit.json").unlink()
    assert fit(data, out, steps=6) == 1
    assert "no fit.json" in capsys.readouterr().err
