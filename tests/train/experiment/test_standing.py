"""What an experiment says of itself while it runs: which runs are left, and the time still needed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.train.experiment.made import finish, random_counts, read, write_file
from train.experiment import campaign
from train.experiment.job import PROGRESS, Job, Progress
from train.experiment.plan import Plan, RunPlan
from train.experiment.standing import Standing, in_words


def standing_of(tmp_path: Path) -> Standing:
    made = read(write_file(tmp_path / "one.yaml", fit={"steps": 1000, "batch": {"weak": 1}}), tmp_path / "out")
    finish(made, "S", 0, random_counts(0), random_counts(1))  # took 10 s, of which its steps would need 500
    return campaign.take_stock(made, workers=2)


def job_of(run: RunPlan, plan: Plan) -> Job:
    return Job(run.row, run.seed, run.settings, plan.config.scoring, plan.corpus, run.features, run.folder)


def begin(run: RunPlan, step: int, step_s: float | None) -> None:
    run.folder.mkdir(parents=True)
    (run.folder / PROGRESS).write_bytes(msgspec.json.encode(Progress(step, 1000, step_s, 1.0)))


def test_the_line_names_what_runs_and_what_is_left(tmp_path: Path) -> None:
    standing = standing_of(tmp_path)
    runs = {run.name: run for run in standing.plan.runs}
    begin(runs["A/0"], 250, 0.1)
    running = [job_of(runs[name], standing.plan) for name in ("A/0", "S+A/0")]
    line = standing.line(running)
    assert line.startswith("1 of 6 runs are finished; running: A/0 (step 250 of 1000), S+A/0 (starting); left: ")
    assert "left: S/1 A/1 S+A/1; still needed: about" in line
    begin(runs["S+A/0"], 1000, 0.1)
    assert "S+A/0 (scoring)" in standing.line(running)
    standing.ended(runs["A/1"], "out of memory")
    assert "1 failed" in standing.line(running)
    assert "left: S/1 S+A/1;" in standing.line(running)
    standing.ended(runs["S/1"], None)
    assert standing.failed["S/1"] == "it wrote no result"


def test_the_time_needed_follows_from_the_rows_steps(tmp_path: Path) -> None:
    standing = standing_of(tmp_path)
    runs = {run.name: run for run in standing.plan.runs}
    begin(runs["A/0"], 250, 0.1)
    # S/1: 1000 steps of 0.5 s; A/0: 750 and A/1: 1000 of 0.1 s; S+A is not measured, so as slow as S.
    expected = 1000 * 0.5 + 1750 * 0.1 + 2 * 1000 * 0.5
    assert standing.needed_s() == pytest.approx(expected / 2)
    assert Standing(standing.plan, workers=100, finished=standing.finished).needed_s() == pytest.approx(500)


def test_nothing_is_foretold_before_the_first_steps(tmp_path: Path) -> None:
    made = read(write_file(tmp_path / "one.yaml"), tmp_path / "out")
    standing = campaign.take_stock(made, workers=2)
    assert standing.needed_s() is None
    assert "still needed: not known before the first steps" in standing.line(())


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (None, "not known before the first steps"),
        (20, "less than a minute"),
        (600, "about 10 min"),
        (7800, "about 2 h 10 min"),
        (3 * 86_400, "about 3.0 days"),
    ],
)
def test_durations_are_for_people(seconds: float | None, says: str) -> None:
    assert in_words(seconds) == says
