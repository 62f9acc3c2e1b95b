"""The results of an experiment as tab-separated tables, for programs."""

from __future__ import annotations

from collections.abc import Sequence

from streamer.replay.scoring import KINDS
from train.experiment import paper
from train.experiment.comparison import Comparison, Line
from train.experiment.config import ExperimentConfig, Mode
from train.experiment.metrics import Metric
from train.experiment.standing import Standing


def tables_tsv(standing: Standing, comparisons: Sequence[Comparison]) -> str:
    """One line for each mode, row and metric; figures in percent, empty where there are none."""
    names = (
        *("experiment", "part", "mode", "decoding", "row", "metric", "planned", "finished", "kept_seeds"),
        *("mean", "low", "high", "mean_of_all", "sd_of_all", "paper"),
        *("against", "difference", "difference_low", "difference_high", "paper_difference"),
    )
    experiment = standing.plan.config
    lines = ["\t".join(names)]
    for one in comparisons:
        for line in one.lines:
            for metric in experiment.metrics:
                lines.append("\t".join(_tsv_row(standing.plan.name, experiment, one.mode, line, metric)))
    return "\n".join(lines) + "\n"


def _tsv_row(name: str, experiment: ExperimentConfig, mode: Mode, line: Line, metric: Metric) -> list[str]:
    scoring, figure = experiment.scoring, line.figures.get(metric)
    first = [name, scoring.part, mode, scoring.decoding, line.row, metric, str(line.planned), str(line.runs)]
    theirs = _number(paper.figure(line.row, metric) if experiment.paper else None)
    if figure is None:
        return [*first, *[""] * 6, theirs, *[""] * 5]
    kept, against = figure.kept, figure.against
    return [
        *first,
        ",".join(map(str, figure.seeds)),
        *(_number(value) for value in (kept.value, kept.low, kept.high, figure.mean, figure.deviation)),
        theirs,
        experiment.baseline if against is not None and experiment.baseline is not None else "",
        *(_number(value) for value in ((against.value, against.low, against.high) if against else (None, None, None))),
        _number(figure.paper_against),
    ]


def runs_tsv(standing: Standing) -> str:
    """One line for each run: its state, its scores in percent, and the time that it took."""
    keys = sorted({key for done in standing.finished.values() for key in done.scores})
    scores = [(key, f"{kind}_f1_{mean}") for key in keys for kind in KINDS for mean in ("micro", "macro")]
    first = ("row", "seed", "state", "step", "step_s", "seconds")
    lines = ["\t".join([*first, *(f"{key} {name}" for key, name in scores)])]
    for run in standing.plan.runs:
        done = standing.finished.get(run.name)
        if done is None:
            state = "failed" if run.name in standing.failed else "left"
            cells = [run.row, str(run.seed), state, *[""] * (3 + len(scores))]
        else:
            figures = [_number(done.scores.get(key, {}).get(name)) for key, name in scores]
            step_s = "" if done.step_s is None else f"{done.step_s:.4f}"
            cells = [run.row, str(run.seed), "finished", str(done.step), step_s, f"{done.seconds:.0f}", *figures]
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"


def _number(share: float | None) -> str:
    return "" if share is None or share != share else f"{100 * share:.3f}"
