"""Thresholds are found where they are right, and a class of one recording does not go its own way."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.decoding import Decoding
from streamer.replay.truth import LabelledEvent, Truth
from streamer.types import CELL, SAMPLE_RATE_HZ
from train.config import FitConfig
from train.evaluation.stored import ClipPosteriors, score, untuned
from train.tuning import search
from train.tuning.ledger import Ledger, Material
from train.tuning.merit import Merit
from train.tuning.space import Setting

CLASSES = ("Cat", "Dog")
CELL_S = CELL / SAMPLE_RATE_HZ


def clips(levels: dict[str, float], noise: float, count: int = 20) -> tuple[list[ClipPosteriors], Truth]:
    """Events of a fixed posterior for each class, over noise that reaches up to `noise` of it."""
    rng = np.random.default_rng(0)
    made, events = [], {}
    for number in range(count):
        frames = np.zeros((100, 2), np.float32)
        row = []
        for column, label in enumerate(CLASSES):
            frames[:, column] = levels[label] * noise * rng.random(100)
            first = int(rng.integers(5, 60))
            frames[first : first + 30, column] = levels[label]
            row.append(LabelledEvent(first * CELL_S, (first + 30) * CELL_S, label))
        name = f"{number}.wav"
        events[name] = tuple(row)
        made.append(ClipPosteriors(name, frames, frames.max(axis=0)))
    return made, Truth("test", events, {name: frozenset(CLASSES) for name in events}, strong=True)


def tune(ways: list[list[ClipPosteriors]], truth: Truth, groups: dict[str, int], method: search.Method) -> Decoding:
    with Ledger(Material(tuple(map(tuple, ways)), truth, CLASSES), workers=1) as ledger:
        return search.tune(Merit(ledger, groups), method, trials=80)


@pytest.mark.parametrize("method", search.METHODS)
def test_each_class_gets_thresholds_that_fit_its_posteriors(method: search.Method) -> None:
    made, truth = clips({"Cat": 0.9, "Dog": 0.3}, noise=0.5)
    tuned = tune([made, made], truth, {"Cat": 5000, "Dog": 5000}, method)
    cat, dog = tuned.per_class
    assert 0.45 < cat.onset_threshold < 0.9
    assert 0.15 < dog.onset_threshold < 0.3
    assert score(made, truth, tuned).event_f1 == 1.0
    assert score(made, truth, untuned(CLASSES, FitConfig())).event_f1 < 1.0


@pytest.mark.parametrize("method", search.METHODS)
def test_a_class_of_one_recording_leans_on_the_others(method: search.Method) -> None:
    made, truth = clips({"Cat": 0.9, "Dog": 0.3}, noise=0.9)
    free = tune([made], truth, {"Cat": 5000, "Dog": 5000}, method).per_class[1]
    held = tune([made], truth, {"Cat": 5000, "Dog": 0}, method).per_class[1]
    both = tune([made], truth, {"Cat": 0, "Dog": 0}, method).per_class
    assert free.onset_threshold < 0.3
    assert both[0] == both[1]
    assert held.onset_threshold == both[0].onset_threshold


def test_the_same_seed_proposes_the_same_settings_and_another_seed_others() -> None:
    def merits(settings: Sequence[Setting]) -> NDArray[np.float64]:
        """The first class wants a high threshold, the second a short filter."""
        return np.array([[one.onset_threshold, 1 / one.median_cells] for one in settings])

    first, again, other = (search.propose(merits, 2, trials=60, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(first) == len(set(first)) <= 60
    assert first[: len(search.propose(merits, 2, trials=20, seed=1))] == search.propose(merits, 2, trials=20, seed=1)
    random, later = first[:20], first[20:]  # TPE draws ten of each class at random
    assert fmean(best(merits, later)) > fmean(best(merits, random))  # and then looks where it was good
    for one in first:
        assert 0.1 <= one.onset_threshold <= 0.9
        assert 0.4 <= one.offset_share <= 1.0
        assert one.median_cells % 2 == 1


def best(merits: search.Merits, settings: Sequence[Setting]) -> list[float]:
    """Of every setting, the merit for the class that likes it best."""
    return [float(value) for value in merits(settings).max(axis=1)]


def test_a_setting_is_smoothed_with_its_neighbours_within_the_limits() -> None:
    near = Setting(7, 0.9, 0.7).smoothed_with()
    assert [(one.onset_threshold, weight) for one, weight in near] == [(0.8, 0.25), (0.9, 0.5), (0.9, 0.25)]
    assert sum(weight for _, weight in Setting(7, 0.45, 0.7).smoothed_with()) == 1.0
    assert {one.onset_threshold for one, _ in Setting(7, 0.45, 0.7).smoothed_with()} == {0.35, 0.45, 0.55}
