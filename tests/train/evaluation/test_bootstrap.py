"""Intervals say how far a score moves with other recordings: wider than clips alone would say, and never invented."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.replay.scoring import ClassReport, Counts, Report
from train.evaluation.bootstrap import Array, Drawn, Groups, difference, drawn, f1_draws

Ints = NDArray[np.int64]


def counts_of(rng: np.random.Generator, clips: int = 40, classes: int = 4) -> Ints:
    true = rng.integers(0, 4, (clips, classes))
    found = rng.integers(0, 4, (clips, classes))
    return np.stack([true, found, rng.integers(0, np.minimum(true, found) + 1)], axis=-1)


def report_of(counts: Ints) -> Report:
    totals = counts.sum(axis=0).tolist()
    rows = [ClassReport(str(index), *[Counts(*of)] * 3) for index, of in enumerate(totals)]
    return Report(tuple(rows), len(counts), strong=True)


def test_the_figures_themselves_are_those_of_the_report() -> None:
    rng = np.random.default_rng(0)
    for absent in (False, True):
        counts = counts_of(rng)
        if absent:
            counts[:, 1] = 0
            counts[:, 2, 0] = counts[:, 2, 2] = 0  # false alarms of a class that is not there
        report = report_of(counts)
        found = f1_draws(counts, Groups.each_its_own(len(counts)), draws=10)
        assert found.micro.value == pytest.approx(report.micro_f1("event"))
        assert found.macro.value == pytest.approx(report.macro_f1("event"))
        for one, row in zip(found.classes, report.classes, strict=True):
            assert float(one.value) == pytest.approx(row.event.f1 if row.event.f1 is not None else np.nan, nan_ok=True)


def test_each_draw_is_the_report_of_the_drawn_clips() -> None:
    counts = counts_of(np.random.default_rng(1), clips=12)
    found = f1_draws(counts, Groups.each_its_own(12), draws=150, seed=3)
    rng = np.random.default_rng(3)
    taken = np.concatenate([rng.multinomial(12, np.full(12, 1 / 12), size=size) for size in (100, 50)])
    for weights, micro, macro in zip(taken, found.micro.draws, found.macro.draws, strict=True):
        report = report_of(np.repeat(counts, weights, axis=0))
        assert micro == pytest.approx(report.micro_f1("event"))
        assert macro == pytest.approx(report.macro_f1("event"))


def simulated(rng: np.random.Generator, clips: list[list[str]]) -> Ints:
    """Found or missed, one event a clip: a recording is found with a probability of its own, 0.6 on average."""
    ease = {name: rng.beta(1.2, 0.8) for name in sorted({name for of in clips for name in of[:1]})}
    found = np.array([rng.random() < ease[of[0]] for of in clips], np.int64)
    return np.stack([np.ones_like(found), found, found], axis=-1)[:, None]


def test_ninety_five_percent_intervals_hold_the_truth_about_that_often_and_clip_by_clip_ones_do_not() -> None:
    rng = np.random.default_rng(2)
    clips = [[f"recording {number % 30}"] for number in range(300)]
    true = 2 * 0.6 / (1 + 0.6)
    by_group = by_clip = 0
    for _ in range(200):
        counts = simulated(rng, clips)
        one = f1_draws(counts, Groups.by_name(clips), draws=300).micro.interval
        other = f1_draws(counts, Groups.each_its_own(300), draws=300).micro.interval
        by_group += one.low <= true <= one.high
        by_clip += other.low <= true <= other.high
    assert 178 <= by_group <= 200
    assert by_clip < 150


def holds_half(values: Array, groups: Groups) -> bool:
    """Whether 0.5 is in the interval of the mean of values that have one group in each factor."""
    interval = drawn(lambda weights: (weights * values).sum(axis=1) / weights.sum(axis=1), groups, draws=300).interval
    return interval.low <= 0.5 <= interval.high


def test_in_clips_of_several_recordings_each_factor_counts() -> None:
    """Crossed: one of 15 sounds over one of 15 backgrounds, of which either may be hard."""
    rng = np.random.default_rng(4)
    held = alone = 0
    for _ in range(150):
        sounds, backgrounds = rng.normal(0, 0.15, 15), rng.normal(0, 0.15, 15)
        chosen = rng.integers(0, 15, (300, 2))
        values = rng.normal(0.5, 0.1, 300) + sounds[chosen[:, 0]] + backgrounds[chosen[:, 1]]
        crossed = Groups.by_name([[f"s{one}"] for one in chosen[:, 0]], [[f"b{one}"] for one in chosen[:, 1]])
        first = Groups.by_name([[f"s{one}"] for one in chosen[:, 0]])
        held += holds_half(values, crossed)
        alone += holds_half(values, first)
    assert 131 <= held <= 150
    assert alone < 130


def test_groups_of_one_factor_share_its_weight_and_a_unit_without_any_keeps_its_own() -> None:
    groups = Groups.by_name([["a", "b"], ["a"], []], [["c"], [], []])
    assert groups.names == ("a", "b", "c")
    assert groups.weights(np.array([[3.0, 1.0, 2.0], [0.0, 0.0, 5.0]])).tolist() == [[4, 3, 1], [0, 0, 1]]
    assert groups.count([True, False, True]) == 2
    assert Groups.by_name([[], []]).weights(np.ones((1, 0))).tolist() == [[1, 1]]
    assert groups.take([1, 2]).weights(np.array([[3.0, 1.0, 2.0]])).tolist() == [[3, 1]]


def test_a_class_of_one_recording_has_no_interval() -> None:
    counts = counts_of(np.random.default_rng(5), clips=20, classes=2)
    names = [["one"] if number < 10 else [f"other {number % 3}"] for number in range(20)]
    counts[10:, 0] = 0
    counts[:10, 0, 0] += 1
    found = f1_draws(counts, Groups.by_name(names))
    assert not found.classes[0].interval.known
    assert np.isfinite(found.classes[0].interval.value)
    assert found.classes[1].interval.known
    assert found.micro.interval.known


def test_a_paired_interval_sees_what_two_separate_ones_do_not() -> None:
    rng = np.random.default_rng(6)
    clips = [[f"recording {number % 20}"] for number in range(400)]
    one = simulated(rng, clips)
    better = one.copy()
    missed = np.flatnonzero(one[:, 0, 2] == 0)[::5]
    better[missed, 0, 1:] = 1
    groups = Groups.by_name(clips)
    first, second = f1_draws(one, groups).micro, f1_draws(better, groups).micro
    change = difference(second, first)
    assert change.value == pytest.approx(second.value - first.value)
    assert change.apart
    assert change.low > 0
    assert second.interval.low < first.interval.high  # separately, they overlap
    assert not difference(first, first).apart
    assert difference(first, second).high == pytest.approx(-change.low)


def test_draws_repeat_with_the_seed_and_unequal_numbers_are_not_paired() -> None:
    counts, groups = counts_of(np.random.default_rng(7)), Groups.each_its_own(40)
    first, again = f1_draws(counts, groups, draws=50), f1_draws(counts, groups, draws=50)
    other = f1_draws(counts, groups, draws=50, seed=1)
    assert np.array_equal(first.micro.draws, again.micro.draws)
    assert not np.array_equal(first.micro.draws, other.micro.draws)
    with pytest.raises(ValueError, match="can't be paired"):
        difference(first.micro, f1_draws(counts, groups, draws=40).micro)


def test_a_figure_that_most_draws_lack_has_no_interval() -> None:
    draws = np.full(100, np.nan)
    draws[:50] = 0.5
    assert not Drawn(np.asarray(0.5), draws).interval.known
    draws[:51] = 0.5
    assert Drawn(np.asarray(0.5), draws).interval.known


def test_nothing_to_draw_from_is_no_error() -> None:
    found = f1_draws(np.zeros((0, 2, 3)), Groups.each_its_own(0), draws=10)
    assert not found.micro.interval.known
