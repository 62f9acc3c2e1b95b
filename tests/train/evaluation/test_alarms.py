"""Latencies and false alarms, for events whose latencies and false alarms are known."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.replay.truth import LabelledEvent, Truth
from streamer.windows import Coverage
from train.evaluation.alarms import alarms_per_hour, false_alarms, latencies, latency_quantiles
from train.evaluation.bootstrap import Groups
from train.evaluation.lookaheads import Decided, StreamedClip
from train.evaluation.stored import ClipPosteriors

CLASSES = ("Cat", "Dog", "Speech")


def truth_of(events: dict[str, list[LabelledEvent]]) -> Truth:
    return Truth(
        "truth",
        {name: tuple(row) for name, row in events.items()},
        {name: frozenset(one.label for one in row) for name, row in events.items()},
        strong=True,
    )


def streamed(name: str, *decided: Decided) -> StreamedClip:
    cells = np.zeros((1, 3), np.float32)
    return StreamedClip(ClipPosteriors(name, cells, cells[0]), (), decided, Coverage())


def test_a_latency_is_from_the_true_onset_to_the_decision() -> None:
    truth = truth_of(
        {
            "a": [LabelledEvent(1.0, 2.0, "Cat"), LabelledEvent(4.0, 5.0, "Cat"), LabelledEvent(6.0, 7.0, "Dog")],
            "b": [LabelledEvent(9.5, 9.9, "Speech")],
        }
    )
    found = latencies(
        truth,
        [
            streamed(
                "a",
                Decided("Cat", 1.1, 4.6, at_end=False),
                Decided("Cat", 4.3, 7.0, at_end=False),  # too late to be this onset
                Decided("Dog", 5.9, 8.0, at_end=False),
                Decided("Dog", 6.1, 9.0, at_end=False),  # a second one for the same event
                Decided("Speech", 1.0, 2.0, at_end=False),  # of another class
            ),
            streamed("b", Decided("Speech", 9.5, 10.0, at_end=True)),  # no stream would end here
        ],
        CLASSES,
    )
    assert found.seconds.tolist() == pytest.approx([3.6, 2.0])
    assert found.clips.tolist() == [0, 0]
    assert found.classes.tolist() == [0, 1]
    assert found.cut == 1
    assert found.of_class(1).seconds.tolist() == pytest.approx([2.0])


def test_close_onsets_are_matched_in_their_order() -> None:
    truth = truth_of({"a": [LabelledEvent(1.0, 1.1, "Cat"), LabelledEvent(1.2, 1.4, "Cat")]})
    clip = streamed("a", Decided("Cat", 1.1, 3.0, at_end=False), Decided("Cat", 1.25, 3.5, at_end=False))
    assert latencies(truth, [clip], CLASSES).seconds.tolist() == pytest.approx([2.0, 2.3])


def test_quantiles_are_of_the_latencies_and_their_draws_of_the_drawn_clips() -> None:
    rng = np.random.default_rng(0)
    events = {f"{number}": [LabelledEvent(1.0, 2.0, "Cat")] for number in range(40)}
    late = rng.uniform(1, 5, 40)
    clips = [
        streamed(name, Decided("Cat", 1.0, 1.0 + seconds, at_end=False))
        for name, seconds in zip(events, late, strict=True)
    ]
    found = latencies(truth_of(events), clips, CLASSES)
    quantiles = latency_quantiles(found, Groups.each_its_own(40), draws=200)
    wanted = np.quantile(late, [0.5, 0.9, 0.95], method="inverted_cdf")
    assert quantiles.value.tolist() == pytest.approx(wanted.tolist())
    taken = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=100)[7]
    again = np.quantile(np.repeat(late, taken), [0.5, 0.9, 0.95], method="inverted_cdf")
    assert quantiles.draws[7].tolist() == pytest.approx(again.tolist())


def test_without_any_onset_there_is_no_latency() -> None:
    found = latencies(truth_of({"a": []}), [streamed("a")], CLASSES)
    quantiles = latency_quantiles(found, Groups.each_its_own(1), draws=10)
    assert np.isnan(quantiles.value).all()
    assert not quantiles[0].interval.known


def test_a_false_alarm_is_an_event_of_which_nothing_is_true() -> None:
    truth = truth_of(
        {
            "a": [LabelledEvent(1.0, 4.0, "Cat"), LabelledEvent(3.0, 6.0, "Speech")],
            "b": [],
        }
    )
    events = {
        "a": [
            LabelledEvent(3.9, 9.0, "Cat"),  # far too long, but a cat was there
            LabelledEvent(4.0, 5.0, "Cat"),  # it touches the cat, and is speech
            LabelledEvent(3.5, 3.8, "Dog"),  # a cat and speech
        ],
        "b": [LabelledEvent(1.0, 2.0, "Dog")],
    }
    found = false_alarms(truth, events, CLASSES)
    assert found.counts.tolist() == [[1, 1, 0], [0, 1, 0]]
    assert found.confused.tolist() == [[0, 0, 1, 0], [0.5, 0, 0.5, 1], [0, 0, 0, 0]]
    rates = alarms_per_hour(found, [10.0, 26.0], Groups.each_its_own(2), draws=20)
    assert rates.value.tolist() == pytest.approx([100, 200, 0, 300])
    assert np.nanmin(rates.draws) >= 0
    assert [rates[column].interval.known for column in range(4)] == [True, True, False, True]
