"""Thresholds are found where they are right, and a class of one recording does not go its own way."""

from __future__ import annotations

import numpy as np

from streamer.replay.truth import LabelledEvent, Truth
from streamer.types import CELL, SAMPLE_RATE_HZ
from train.config import FitConfig
from train.evaluate import ClipPosteriors, score, tune, untuned

CLASSES = ("Cat", "Dog")
CELL_S = CELL / SAMPLE_RATE_HZ


def clips(levels: dict[str, float], noise: float) -> tuple[list[ClipPosteriors], Truth]:
    """Events of a fixed posterior for each class, over noise that reaches up to `noise` of it."""
    rng = np.random.default_rng(0)
    made, events = [], {}
    for number in range(20):
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


def test_each_class_gets_thresholds_that_fit_its_posteriors() -> None:
    made, truth = clips({"Cat": 0.9, "Dog": 0.3}, noise=0.5)
    tuned = tune([made, made], truth, CLASSES, {"Cat": 5000, "Dog": 5000})
    cat, dog = tuned.per_class
    assert 0.45 < cat.onset_threshold < 0.9
    assert 0.15 < dog.onset_threshold < 0.3
    assert score(made, truth, tuned).event_f1 == 1.0
    assert score(made, truth, untuned(CLASSES, FitConfig())).event_f1 < 1.0


def test_a_class_of_one_recording_leans_on_the_others() -> None:
    made, truth = clips({"Cat": 0.9, "Dog": 0.3}, noise=0.9)
    free = tune([made], truth, CLASSES, {"Cat": 5000, "Dog": 5000}).per_class[1]
    held = tune([made], truth, CLASSES, {"Cat": 5000, "Dog": 0}).per_class[1]
    both = tune([made], truth, CLASSES, {"Cat": 0, "Dog": 0}).per_class
    assert free.onset_threshold < 0.3
    assert both[0] == both[1] == held
