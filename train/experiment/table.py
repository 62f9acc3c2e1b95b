"""The table of an experiment in Markdown, aligned so that it reads as text too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamer.replay.scoring import F1_EXPLAINED, percent
from train.evaluation.bootstrap import DRAWS, Interval
from train.experiment import paper
from train.experiment.comparison import Comparison, Figure
from train.experiment.config import ExperimentConfig, Mode
from train.experiment.duration import Pace, full_size
from train.experiment.metrics import Metric, title_of
from train.experiment.standing import Standing

_MODES: Mapping[Mode, str] = {"clip": "whole clips", "stream": "clips streamed as the daemon hears them"}
_NOT_RUN = "not run"


def markdown(standing: Standing, comparisons: Sequence[Comparison], time: str) -> str:
    """The tables of all modes, what their figures mean, what failed, and how long the full size takes."""
    experiment = standing.plan.config
    blocks = [f"**{experiment.title}**"]
    for one in comparisons:
        blocks.append(f"{_caption(experiment, one)}\n\n{_aligned(_scores(experiment, one))}")
        if experiment.baseline is not None and any(of.against for line in one.lines for of in line.figures.values()):
            blocks.append(
                f"Differences to {experiment.baseline} in points, bold where the interval does not hold zero:\n\n"
                f"{_aligned(_differences(experiment, one))}"
            )
    blocks.append(_legend(experiment, comparisons))
    if standing.failed:
        blocks += [f"Run {name} failed: {why}" for name, why in standing.failed.items()]
    blocks += [time] if time else []
    return "\n\n".join(blocks) + "\n"


def time_of(experiment: ExperimentConfig, found: Mapping[str, Pace], workers: int) -> str:
    """What the paper's full size would take; nothing for other experiments than its table 3."""
    return full_size(found, workers) if experiment.paper else ""


def _caption(experiment: ExperimentConfig, one: Comparison) -> str:
    what = f"Scores in % on {experiment.scoring.part}, {_MODES[one.mode]}, {experiment.scoring.decoding} decoding"
    return f"{what}; {one.subset}." if one.subset else f"{what}: {_NOT_RUN} yet."


def _scores(experiment: ExperimentConfig, one: Comparison) -> list[list[str]]:
    header = ["row", "runs"]
    for metric in experiment.metrics:
        header += [title_of(metric), "95 %", "all: mean ± sd"]
        header += ["paper"] if _in_paper(experiment, metric) else []
    rows = [header]
    for line in one.lines:
        cells = [line.row, f"{line.runs} of {line.planned}"]
        for metric in experiment.metrics:
            figure = line.figures.get(metric)
            cells += _shown(figure) if figure else [_NOT_RUN, "", ""]
            if _in_paper(experiment, metric):
                cells.append(percent(paper.figure(line.row, metric)))
        rows.append(cells)
    return rows


def _differences(experiment: ExperimentConfig, one: Comparison) -> list[list[str]]:
    header = ["row"]
    for metric in experiment.metrics:
        header += [title_of(metric), "95 %"]
        header += ["paper"] if _in_paper(experiment, metric) else []
    rows = [header]
    for line in one.lines:
        if line.row == experiment.baseline:
            continue
        cells = [line.row]
        for metric in experiment.metrics:
            figure = line.figures.get(metric)
            against = figure.against if figure else None
            if against is None:
                cells += [_NOT_RUN, ""]
            else:
                value = f"{100 * against.value:+.2f}"
                cells += [f"**{value}**" if against.apart else value, _interval(against, sign=True)]
            if _in_paper(experiment, metric):
                theirs = figure.paper_against if figure else None
                cells.append("–" if theirs is None else f"{100 * theirs:+.2f}")
        rows.append(cells)
    return rows


def _legend(experiment: ExperimentConfig, comparisons: Sequence[Comparison]) -> str:
    seeds, kept = len(experiment.seed_list), experiment.kept
    way = (
        "for each metric by its own validation score"
        if experiment.select_by == "each"
        else "by the mean of the metrics' validation scores"
    )
    chosen = (
        f"A figure is the mean of the {kept} best of {seeds} runs, selected {way}."
        if kept < seeds
        else f"A figure is the mean of {seeds} runs."
    )
    known = next((one for one in comparisons if one.resampled), None)
    interval = (
        f" Its interval resamples the {known.resampled} of the scored clips ({DRAWS} draws): how far it "
        "would move on other recordings, not with other seeds. Beside it: mean and standard deviation of all runs."
        if known
        else ""
    )
    planned = len(experiment.rows) * seeds
    left = max((planned - sum(line.runs for line in one.lines) for one in comparisons), default=0)
    unfinished = f"**{left} of {planned} runs are not finished**: figures are of those that are. " if left else ""
    return f"{unfinished}{chosen}{interval} {F1_EXPLAINED}"


def _in_paper(experiment: ExperimentConfig, metric: Metric) -> bool:
    return experiment.paper and metric in paper.METRICS


def _interval(of: Interval, *, sign: bool = False) -> str:
    if not of.known:
        return "–"
    low, high = (f"{100 * value:{'+' if sign else ''}.1f}" for value in (of.low, of.high))
    return f"{low} to {high}"


def _shown(figure: Figure) -> list[str]:
    return [percent(figure.kept.value), _interval(figure.kept), _spread(figure)]


def _spread(figure: Figure) -> str:
    spread = "" if figure.deviation is None else f" ± {100 * figure.deviation:.2f}"
    return f"{100 * figure.mean:.2f}{spread}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    rule = "|" + "|".join("-" * (width + 1) + (":" if index else "-") for index, width in enumerate(widths)) + "|"
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    return "\n".join([lines[0], rule, *lines[1:]])
