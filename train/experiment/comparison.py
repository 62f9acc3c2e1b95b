"""An experiment's results compared: each row's mean, its interval, and its difference to the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from streamer.errors import EarwitnessError
from streamer.replay.scoring import KINDS, Report
from train.evaluation import bootstrap
from train.evaluation.bootstrap import Drawn, Interval
from train.evaluation.groups import ClipGroups
from train.experiment import paper, result
from train.experiment.config import ExperimentConfig, Mode
from train.experiment.metrics import Metric, is_macro, kind_of
from train.experiment.plan import RunPlan
from train.experiment.standing import Standing


@dataclass(frozen=True, slots=True)
class Figure:
    """One row's score by one metric, in shares of 1."""

    kept: Interval  # of the mean of the runs that validation selected
    mean: float  # of all runs
    deviation: float | None  # standard deviation of all runs; None: there is one
    seeds: tuple[int, ...]  # of the selected runs
    against: Interval | None  # `kept` minus the baseline's; None: this is the baseline, or there is none
    paper: float | None  # the paper's
    paper_against: float | None  # the paper's minus the paper's baseline


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table."""

    row: str
    runs: int  # finished
    planned: int
    figures: Mapping[Metric, Figure]  # empty: none of its runs is finished


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows in one mode."""

    mode: Mode
    lines: tuple[Line, ...]
    subset: str  # of the scored clips, in words; "": nothing is scored
    resampled: str  # how many of what are resampled; "": nothing is scored


def compare(standing: Standing, mode: Mode) -> Comparison:
    """Compare the finished runs in one mode.

    All runs meet the same draws of recordings, so that differences are those of pairs.

    Raises:
        EarwitnessError: runs were scored on different clips, or their counts are damaged.

    """
    experiment = standing.plan.config
    runs = [run for run in standing.plan.runs if run.name in standing.finished]
    key = f"{experiment.scoring.part}/{mode}"
    reports = {run.name: Report.of_json(standing.finished[run.name].scores[key]) for run in runs}
    _check_clips(standing, reports)
    chosen = {row: selected(standing, [run for run in runs if run.row == row]) for row in experiment.rows}
    used = [run for run in runs if any(run in of for row in chosen.values() for of in row.values())]
    draws, clip_groups = _draws(used, key, experiment.metrics)
    means = {
        (row, metric): _mean([draws[run.name, metric] for run in of])
        for row, by_metric in chosen.items()
        for metric, of in by_metric.items()
    }
    lines = []
    for row in experiment.rows:
        its = [run for run in runs if run.row == row]
        figures = {
            metric: _figure(experiment, row, metric, of, [value_of(reports[run.name], metric) for run in its], means)
            for metric, of in chosen[row].items()
        }
        lines.append(Line(row, len(its), len(standing.plan.of_row(row)), figures))
    return Comparison(
        mode,
        tuple(lines),
        next(iter(reports.values())).subset() if reports else "",
        clip_groups.number(len(clip_groups.groups.names)) if clip_groups else "",
    )


def _check_clips(standing: Standing, reports: Mapping[str, Report]) -> None:
    subsets = {report.subset_sha256: name for name, report in reports.items()}
    if len(subsets) > 1:
        one, other = list(subsets.values())[:2]
        raise EarwitnessError(
            f"{standing.plan.out}: runs {one} and {other} were scored on different clips, so clips were added or "
            f"removed meanwhile: delete the {result.FILE} of the older runs, and they are scored again"
        )


def _draws(
    runs: Sequence[RunPlan], key: str, metrics: Sequence[Metric]
) -> tuple[dict[tuple[str, Metric], Drawn], ClipGroups | None]:
    """Every run's figures in the same draws."""
    if not runs:
        return {}, None
    counts = [result.read_counts(run.folder, key) for run in runs]
    names = counts[0].names
    clip_groups = result.read_groups(runs[0].folder, key, counts[0])
    tallies = np.stack([one.counts[[one.names.index(name) for name in names]] for one in counts]).astype(np.float64)

    def figures(weights: bootstrap.Array) -> bootstrap.Array:
        # One weight a clip is that of all its classes.
        each = np.broadcast_to(weights.reshape(*weights.shape[:2], -1), (*weights.shape[:2], tallies.shape[2]))
        totals = np.einsum("dnc,rnckx->drckx", each, tallies, optimize=True)
        columns = []
        for metric in metrics:
            of_kind = totals[:, :, :, KINDS.index(kind_of(metric))]
            columns.append(bootstrap.macro_f1(of_kind) if is_macro(metric) else bootstrap.f1(of_kind.sum(axis=2)))
        return np.stack(columns, axis=2)

    drawn = bootstrap.drawn(figures, clip_groups.groups)
    return {
        (run.name, metric): Drawn(drawn.value[index, column], drawn.draws[:, index, column])
        for index, run in enumerate(runs)
        for column, metric in enumerate(metrics)
    }, clip_groups


def _mean(draws: Sequence[Drawn]) -> Drawn:
    return Drawn(np.mean([one.value for one in draws], axis=0), np.mean([one.draws for one in draws], axis=0))


def _figure(
    experiment: ExperimentConfig,
    row: str,
    metric: Metric,
    chosen: Sequence[RunPlan],
    every: Sequence[float],
    means: Mapping[tuple[str, Metric], Drawn],
) -> Figure:
    base = experiment.baseline
    compared = base is not None and base != row and (base, metric) in means
    ours, theirs = (paper.figure(one, metric) if experiment.paper and one else None for one in (row, base))
    return Figure(
        kept=means[row, metric].interval,
        mean=fmean(every),
        deviation=stdev(every) if len(every) > 1 else None,
        seeds=tuple(run.seed for run in chosen),
        against=bootstrap.difference(means[row, metric], means[base, metric]) if compared and base else None,
        paper=ours,
        paper_against=ours - theirs if compared and ours is not None and theirs is not None else None,
    )


def selected(standing: Standing, runs: Sequence[RunPlan]) -> dict[Metric, tuple[RunPlan, ...]]:
    """The finished runs of a row with the best validation scores, for each metric; if equal, the lower seeds.

    Empty if the row has none.
    """
    if not runs:
        return {}
    experiment = standing.plan.config
    key = f"validation/{experiment.scoring.selects_by}"
    merits: dict[str, dict[Metric, float]] = {}
    for run in runs:
        report = Report.of_json(standing.finished[run.name].scores[key])
        merits[run.name] = {metric: value_of(report, metric) for metric in experiment.metrics}
    chosen: dict[Metric, tuple[RunPlan, ...]] = {}
    for metric in experiment.metrics:
        merit = {
            name: of[metric] if experiment.select_by == "each" else fmean(of.values()) for name, of in merits.items()
        }
        best = sorted(runs, key=lambda run: (-merit[run.name], run.seed))[: experiment.kept]
        chosen[metric] = tuple(sorted(best, key=lambda run: run.seed))
    return chosen


def _validation_key(experiment: ExperimentConfig) -> str:
    """Runs are selected by whole clips, unless these are not compared."""
    return f"validation/{'clip' if 'clip' in experiment.scoring.modes else experiment.scoring.modes[0]}"


def value_of(report: Report, metric: Metric) -> float:
    """A report's score; 0 if there is nothing to score."""
    kind = kind_of(metric)
    return (report.macro_f1(kind) if is_macro(metric) else report.micro_f1(kind)) or 0.0
