"""What a table says of results: selection by validation, means, deviations, paired intervals, and the paper beside."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest

from streamer.errors import EarwitnessError
from tests.train.experiment.made import finish, groups, random_counts, read, write_file
from train.evaluation.bootstrap import Drawn, difference, f1_draws
from train.experiment import campaign, spreadsheet, table
from train.experiment.comparison import Comparison, Figure, compare
from train.experiment.duration import Pace, full_size, paces, planned
from train.experiment.standing import Standing

ROWS: dict[str, dict[str, str]] = {"S": {}, "A": {}, "S+A": {}}


def standing_of(tmp_path: Path, **fields: object) -> Standing:
    """S and S+A are finished, A is not."""
    made = read(write_file(tmp_path / "one.yaml", **{"rows": ROWS, "seeds": 4, "keep": 2, **fields}), tmp_path / "out")
    for number, row in enumerate(("S", "S+A")):
        for seed in range(4):
            finish(made, row, seed, random_counts(100 * number + seed), random_counts(1000 + 100 * number + seed))
    return campaign.take_stock(made, workers=2)


def f1(seed: int) -> float:
    value = random_counts(seed).report().micro_f1("clip")
    assert value is not None
    return value


def test_a_figure_is_the_test_mean_of_the_runs_that_validation_selects(tmp_path: Path) -> None:
    comparison = compare(standing_of(tmp_path), "clip")
    lines = {line.row: line for line in comparison.lines}
    figure = lines["S"].figures["clip_micro"]
    best = sorted(range(4), key=lambda seed: -f1(seed))[:2]  # validation
    assert figure.seeds == tuple(sorted(best))
    tests = [f1(1000 + seed) for seed in range(4)]
    assert figure.kept.value == pytest.approx(fmean(tests[seed] for seed in best))
    assert figure.kept.value != pytest.approx(fmean(sorted(tests)[-2:]))  # test scores did not choose
    assert figure.mean == pytest.approx(fmean(tests))
    assert figure.deviation == pytest.approx(stdev(tests))
    assert (lines["A"].runs, lines["A"].planned, lines["A"].figures) == (0, 4, {})
    assert comparison.resampled == "6 groups of recordings"


def test_intervals_and_differences_are_those_of_the_mean_run_in_the_same_draws(tmp_path: Path) -> None:
    standing = standing_of(tmp_path, metrics=["clip_micro", "event_macro"])
    comparison = compare(standing, "clip")
    lines = {line.row: line for line in comparison.lines}
    means = {}
    for number, row in enumerate(("S", "S+A")):
        seeds = lines[row].figures["event_macro"].seeds
        draws = [
            f1_draws(random_counts(1000 + 100 * number + seed).of("event"), groups().groups).macro for seed in seeds
        ]
        means[row] = Drawn(
            np.asarray(np.mean([one.value for one in draws])), np.mean([one.draws for one in draws], axis=0)
        )
        kept = lines[row].figures["event_macro"].kept
        assert kept.low == pytest.approx(means[row].interval.low)
        assert kept.high == pytest.approx(means[row].interval.high)
    expected, against = difference(means["S+A"], means["S"]), lines["S+A"].figures["event_macro"].against
    assert against is not None
    assert (against.value, against.low, against.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert lines["S"].figures["event_macro"].against is None


def test_selection_by_the_mean_takes_the_same_runs_for_every_metric(tmp_path: Path) -> None:
    line = compare(standing_of(tmp_path, select_by="mean"), "clip").lines[0]
    assert len({figure.seeds for figure in line.figures.values()}) == 1


def test_runs_on_different_clips_are_not_compared(tmp_path: Path) -> None:
    standing = standing_of(tmp_path)
    first = next(iter(standing.finished.values()))
    first.scores["test/clip"]["subset_sha256"] = "other"
    with pytest.raises(EarwitnessError, match="were scored on different clips"):
        compare(standing, "clip")


def test_the_table_has_the_papers_figures_and_what_was_not_run(tmp_path: Path) -> None:
    standing = standing_of(tmp_path)
    comparison = compare(standing, "clip")
    text = table.markdown(standing, [comparison], "")
    rows = {cells[0]: cells for cells in reversed(split(text))}  # the first table has the scores
    assert rows["S"][1] == "4 of 4"
    assert rows["S"][5] == "76.22"
    assert rows["A"][1:3] == ["0 of 4", "not run"]
    assert rows["A"][5] == "78.17"
    against = [cells for cells in split(text) if cells[0] == "S+A"][1]
    assert against[3] == "+4.81"
    assert "mean of the 2 best of 4 runs" in text
    assert "6 groups of recordings" in text
    assert "**4 of 12 runs are not finished**" in text
    standing.failed["A/0"] = "out of memory"
    assert "Run A/0 failed: out of memory" in table.markdown(standing, [comparison], "")


def test_a_table_of_finished_runs_says_nothing_of_unfinished_ones(tmp_path: Path) -> None:
    standing = standing_of(tmp_path, rows={"S": {}, "S+A": {}}, keep=4)
    text = table.markdown(standing, [compare(standing, "clip")], "")
    assert "A figure is the mean of 4 runs." in text
    assert "not finished" not in text


def split(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_spreadsheets_have_every_figure(tmp_path: Path) -> None:
    standing = standing_of(tmp_path)
    comparison = compare(standing, "clip")
    rows = list(csv.DictReader(spreadsheet.tables_tsv(standing, [comparison]).splitlines(), delimiter="\t"))
    assert len(rows) == 3 * 3
    one = next(row for row in rows if (row["row"], row["metric"]) == ("S+A", "clip_micro"))
    figure = figure_of(comparison, "S+A")
    assert float(one["mean"]) == pytest.approx(100 * figure.kept.value, abs=1e-3)
    assert (one["paper"], one["against"], one["paper_difference"]) == ("81.030", "S", "4.810")
    empty = next(row for row in rows if row["row"] == "A")
    assert (empty["mean"], empty["finished"], empty["paper"]) == ("", "0", "78.170")
    runs = list(csv.DictReader(spreadsheet.runs_tsv(standing).splitlines(), delimiter="\t"))
    assert [row["state"] for row in runs].count("finished") == 8
    assert float(runs[0]["test/clip clip_f1_micro"]) == pytest.approx(100 * f1(1000), abs=1e-3)


def figure_of(comparison: Comparison, row: str) -> Figure:
    return next(line for line in comparison.lines if line.row == row).figures["clip_micro"]


def test_the_full_size_follows_from_measured_steps(tmp_path: Path) -> None:
    standing = standing_of(tmp_path)
    found = paces(standing)
    assert found == {row: Pace(0.5, 3, 1) for row in ("S", "S+A")}
    text = full_size(found, workers=2)
    days = 2 * 20 * 50_000 * 0.5 * (48 / 3) / 2 / 86_400
    assert f"about {days:.1f} days" in text
    assert "without V, A, S+V, A+V, S+A+V, which were not measured" in text
    assert "scaled from batches of 3" in text
    assert "scaled" not in full_size({"S": Pace(0.5, 48, 1)}, workers=1)
    assert full_size({}, 1) == "The paper's full size: no step of its rows was measured."
    everything = {row: Pace(60.0, 3, 1) for row in ROWS}
    assert planned(standing.plan, everything, workers=2).startswith(
        "12 runs, 36 steps in all: about 18 min of training"
    )
