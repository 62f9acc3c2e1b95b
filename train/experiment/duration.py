"""How long an experiment takes: measured steps, and from them the paper's full size on this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from streamer.errors import EarwitnessError
from train.experiment import job, paper
from train.experiment.config import ScoringConfig
from train.experiment.job import FAILED, Job, StepClock
from train.experiment.plan import Plan, RunPlan
from train.experiment.standing import Standing, in_words
from train.workers import serve

ESTIMATE_STEPS = 6
"""Steps of each row that an estimate measures, after two that warm up."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a row trains here."""

    step_s: float  # median seconds of a step
    batch: int  # clips of a batch
    threads: int  # of each run; 0: torch chose


def paces(standing: Standing) -> dict[str, Pace]:
    """The pace of every row of which a run is finished, as measured while it was trained."""
    found: dict[str, list[float]] = defaultdict(list)
    for done in standing.finished.values():
        if done.step_s is not None:
            found[done.row].append(done.step_s)
    return {row: _pace(standing.plan.of_row(row)[0], median(of)) for row, of in found.items()}


def measure(plan: Plan) -> dict[str, Pace]:
    """The pace of every row, measured by a few steps of each, one row after another, in a folder that is removed.

    Features must be there.

    Raises:
        EarwitnessError: a row can't be trained.

    """
    found: dict[str, Pace] = {}
    for row in plan.config.rows:
        run = plan.of_row(row)[0]
        with TemporaryDirectory() as folder:
            trial = replace(run, folder=Path(folder))
            process = multiprocessing.Process(target=_time_steps, args=(os.getpid(), trial, plan.corpus))
            process.start()
            process.join()
            progress = job.read_progress(trial.folder)
            if process.exitcode != 0 or progress is None or progress.step_s is None:
                failed = trial.folder / FAILED
                why = failed.read_text().strip() if failed.exists() else f"exit code {process.exitcode}"
                raise EarwitnessError(f"row {row} can't be trained: {why}")
            found[row] = _pace(run, progress.step_s)
        _log.info("%s: a step of row %s takes %.2f s", plan.name, row, found[row].step_s)
    return found


def _time_steps(command: int, run: RunPlan, corpus: Path) -> None:
    serve(command)
    steps = ESTIMATE_STEPS + job.WARM_UP_STEPS + 1
    # Never the last step, which would validate.
    settings = run.settings.model_copy(update={"steps": 10 * steps, "validate_every": 10 * steps})
    timed = Job(run.row, run.seed, settings, ScoringConfig(), corpus, run.features, run.folder)
    job.time_steps(timed, StepClock(run.folder, steps, 0.0))


def _pace(run: RunPlan, step_s: float) -> Pace:
    return Pace(step_s, sum(run.settings.batch.values()), run.settings.threads)


def planned(plan: Plan, found: Mapping[str, Pace], workers: int) -> str:
    """How long the experiment's training takes as its file says, in words."""
    total_s = sum(found[run.row].step_s * run.settings.steps for run in plan.runs)
    return (
        f"{len(plan.runs)} runs, {sum(run.settings.steps for run in plan.runs)} steps in all: "
        f"{in_words(total_s / workers)} of training with {_workers(workers)}"
    )


def full_size(found: Mapping[str, Pace], workers: int) -> str:
    """How long the paper's table 3 takes on this machine at its full size, in words.

    Rows of which nothing was measured are named and left out. A step is taken to need time in proportion to its clips.
    """
    missing = [row for row in paper.TABLE_3 if row not in found]
    known = [row for row in paper.TABLE_3 if row in found]
    if not known:
        return "The paper's full size: no step of its rows was measured."
    step_s = {row: found[row].step_s * paper.BATCH / found[row].batch for row in known}
    total_s = sum(step_s.values()) * paper.INITIALISATIONS * paper.STEPS
    batches = sorted({found[row].batch for row in known})
    scaled = "" if batches == [paper.BATCH] else f" (scaled from batches of {', '.join(map(str, batches))})"
    without = f", without {', '.join(missing)}, which were not measured" if missing else ""
    each = ", ".join(f"{row} {step_s[row]:.2f}" for row in known)
    return (
        f"The paper's full size ({len(known)} rows x {paper.INITIALISATIONS} initialisations x {paper.STEPS:,} steps "
        f"of {paper.BATCH} clips{without}) would take {in_words(total_s / workers)} of training on this machine with "
        f"{_workers(workers)}. Measured seconds of a step{scaled}: {each}."
    )


def _workers(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
