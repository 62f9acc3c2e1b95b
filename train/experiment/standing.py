"""Which runs of an experiment are finished, running, failed or left, and how long the rest will take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from train.experiment import result
from train.experiment.job import Job, Progress, read_progress
from train.experiment.plan import Plan, RunPlan
from train.experiment.result import Result


@dataclass(slots=True)
class Standing:
    """The state of an experiment's runs, as far as their folders tell."""

    plan: Plan
    workers: int
    finished: dict[str, Result] = field(default_factory=dict)  # run's name -> its result
    failed: dict[str, str] = field(default_factory=dict)  # run's name -> why, in this command

    @property
    def left(self) -> tuple[RunPlan, ...]:
        """The runs that are neither finished nor failed."""
        return tuple(run for run in self.plan.runs if run.name not in self.finished and run.name not in self.failed)

    def ended(self, run: RunPlan, error: str | None) -> None:
        """A run has ended."""
        if error is not None:
            self.failed[run.name] = error
            return
        done = result.read(run.folder)
        if done is None:
            self.failed[run.name] = "it wrote no result"
        else:
            self.finished[run.name] = done

    def line(self, running: Sequence[Job]) -> str:
        """What is done, what is running, what is left, and the time still needed, in one line."""
        names = {f"{job.row}/{job.seed}": job for job in running}
        at_work = [f"{name} ({_at(read_progress(job.folder))})" for name, job in names.items()]
        waiting = _grouped([run for run in self.left if run.name not in names])
        parts = [f"{len(self.finished)} of {len(self.plan.runs)} runs are finished"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"running: {', '.join(at_work)}"] if at_work else []
        parts += [f"left: {waiting}"] if waiting else []
        parts += [f"still needed: {in_words(self.needed_s())}"] if self.left else []
        return "; ".join(parts)

    def needed_s(self) -> float | None:
        """Seconds until all runs are finished, by the measured steps of each row; None: nothing is measured yet.

        A row of which nothing is measured is assumed to be as slow as the slowest that is.
        """
        progress = {run.name: read_progress(run.folder) for run in self.left}
        step_s, other_s = self._measured(progress)
        if not step_s:
            return None
        slowest_s, slowest_other_s = max(step_s.values()), max(other_s.values(), default=0.0)
        total_s, longest_s = 0.0, 0.0
        for run in self.left:
            at = progress[run.name]
            steps = run.settings.steps - (at.step if at is not None else 0)
            run_s = steps * step_s.get(run.row, slowest_s) + other_s.get(run.row, slowest_other_s)
            total_s, longest_s = total_s + run_s, max(longest_s, run_s)
        return max(total_s / self.workers, longest_s)

    def _measured(self, progress: Mapping[str, Progress | None]) -> tuple[dict[str, float], dict[str, float]]:
        """Seconds of a step, and of the rest of a run (reading, validating, scoring), by row."""
        steps: dict[str, list[float]] = defaultdict(list)
        others: dict[str, list[float]] = defaultdict(list)
        for done in self.finished.values():
            if done.step_s is not None:
                steps[done.row].append(done.step_s)
                others[done.row].append(max(done.seconds - done.step_s * done.settings["steps"], 0.0))
        for run in self.left:
            at = progress[run.name]
            if at is not None and at.step_s is not None:
                steps[run.row].append(at.step_s)
        mean = {row: sum(of) / len(of) for row, of in steps.items()}
        return mean, {row: sum(of) / len(of) for row, of in others.items()}


def in_words(seconds: float | None) -> str:
    """A duration for people: `about 2 h 10 min`."""
    if seconds is None:
        return "not known before the first steps"
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"about {minutes} min"
    hours = round(seconds / 3600)
    if hours < 48:
        return f"about {minutes // 60} h {minutes % 60} min"
    return f"about {seconds / 86_400:.1f} days"


def _at(progress: Progress | None) -> str:
    if progress is None:
        return "starting"
    if progress.step >= progress.steps:
        return "scoring"
    return f"step {progress.step} of {progress.steps}"


def _grouped(runs: Sequence[RunPlan]) -> str:
    """Rows with their seeds: `S/0,1,2 S+A/2`."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.row, []).append(run.seed)
    return " ".join(f"{row}/{','.join(map(str, of))}" for row, of in seeds.items())
