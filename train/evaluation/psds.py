"""Polyphonic sound detection scores (PSDS) of posteriors, by sed_scores_eval.

PSDS asks how many of the events are found at every rate of false alarms, over all thresholds, and so rates a model
without its thresholds. Bilen et al., "A framework for the robust evaluation of sound event detection", ICASSP 2020;
Ebbers et al., "Threshold independent evaluation of sound event detection scores", ICASSP 2022. The two scenarios are
those of DCASE task 4 since 2021. Scenario 1 wants exact times; scenario 2 forgives them, but not confused classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.decoding import Decoding
from streamer.filtering import filtered
from streamer.replay.truth import LabelledEvent, Truth
from streamer.timeline import seconds
from streamer.types import CELL, Floats
from train.evaluation.bootstrap import Array, Drawn, Groups, drawn
from train.evaluation.stored import ClipPosteriors

MAX_FALSE_PER_HOUR = 100.0
"""The rate of false alarms, in effective false positives an hour, up to which a score is averaged."""
_S_PER_HOUR = 3600.0
_RATES = np.linspace(0, MAX_FALSE_PER_HOUR, 801)
"""Rates at which the draws are compared; the scores themselves are exact."""
_THRESHOLDS = 400
"""Most thresholds of a class in the draws. Those of its ROC curve are enough."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What counts as found, and what costs how much."""

    name: str
    detection_overlap: float  # share of a found event that must lie in true ones of its class
    truth_overlap: float  # share of a true event that must be found
    cross_overlap: float | None  # share of a false alarm that makes it a confusion with a class that sounds there
    cross_cost: float  # of confusions, beside that as a false alarm
    spread_cost: float  # of the standard deviation over the classes


SCENARIOS = (Scenario("PSDS 1", 0.7, 0.7, None, 0.0, 1.0), Scenario("PSDS 2", 0.1, 0.1, 0.3, 0.5, 1.0))


@dataclass(frozen=True, slots=True)
class Curve:
    """A PSD-ROC curve: the rate of found events, 0 to 1, that is reached at each rate of false alarms."""

    false_per_hour: tuple[float, ...]
    found: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Psds:
    """One scenario's score of a set of clips, 0 to 1."""

    scenario: Scenario
    score: Drawn
    curve: Curve  # of all classes together
    classes: Mapping[str, float]  # class -> the area under its own curve; classes without events are left out


def psds(
    clips: Sequence[ClipPosteriors],
    truth: Truth,
    decoding: Decoding,
    groups: Groups,
    *,
    scenarios: Sequence[Scenario] = SCENARIOS,
    draws: int = 0,
) -> tuple[Psds, ...]:
    """The scores of clips with a strong truth; none if it has no events.

    The posteriors pass the median filter that the daemon applies before it compares them with thresholds. A PSDS knows
    one threshold for a whole event: the daemon's second one, for offsets, has no counterpart here.

    Args:
        clips: posteriors by the truth's names.
        truth: annotations. Events of one class that overlap or touch are joined, as PSDS needs it.
        decoding: its classes and median filters are used, not its thresholds.
        groups: of the clips, or of the classes in them, for the intervals.
        scenarios: to compute.
        draws: of the groups; 0: no interval.

    """
    if not any(truth.events[clip.name] for clip in clips):
        return ()
    given = inputs(clips, truth, decoding)
    return tuple(_psds(given, one, groups, draws) for one in scenarios)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What sed_scores_eval takes. Classes go by number, because it does not allow every name."""

    classes: tuple[str, ...]  # those with events: the others have no rate of found events
    columns: tuple[int, ...]  # of these classes
    scores: dict[str, Any]  # clip -> a pandas frame of onset, offset and the classes' posteriors
    truth: dict[str, list[tuple[float, float, str]]]
    durations_s: dict[str, float]


def inputs(clips: Sequence[ClipPosteriors], truth: Truth, decoding: Decoding) -> Inputs:
    """The filtered posteriors and the events of the clips, as sed_scores_eval takes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sed_scores_eval.base_modules.scores import create_score_dataframe

    there = {event.label for clip in clips for event in truth.events[clip.name]}
    columns = tuple(column for column, label in enumerate(decoding.classes) if label in there)
    keys = {decoding.classes[column]: str(column) for column in columns}
    scores: dict[str, Any] = {}
    events: dict[str, list[tuple[float, float, str]]] = {}
    for clip in clips:
        cells = _filtered(clip.cells, decoding)[:, columns]
        if not len(cells):  # nothing was heard of it
            cells = np.zeros((1, len(columns)), np.float32)
        times_s = np.array([seconds(CELL * cell) for cell in range(len(cells) + 1)])
        scores[clip.name] = create_score_dataframe(cells, times_s, list(keys.values()))
        events[clip.name] = [(on, off, keys[label]) for on, off, label in _joined(truth.events[clip.name])]
    lengths = {name: float(frame["offset"].iloc[-1]) for name, frame in scores.items()}
    return Inputs(tuple(keys), columns, scores, events, lengths)


def _filtered(cells: Floats, decoding: Decoding) -> Floats:
    """Posteriors (cells, classes) after the median filters, zero-padded at both ends as the event tracker does."""
    out = np.empty_like(cells)
    for median in {one.median_cells for one in decoding.per_class}:
        columns = [column for column, one in enumerate(decoding.per_class) if one.median_cells == median]
        half = median // 2
        rows = np.pad(cells[:, columns], ((half, half), (0, 0)))
        out[:, columns] = filtered(rows, np.ones(len(rows), bool), median)[half : half + len(cells)]
    return out


def _joined(events: Sequence[LabelledEvent]) -> list[tuple[float, float, str]]:
    joined: list[tuple[float, float, str]] = []
    for event in sorted(events, key=lambda one: (one.label, one.onset_s)):
        if joined and joined[-1][2] == event.label and event.onset_s <= joined[-1][1]:
            onset_s, offset_s, label = joined.pop()
            joined.append((onset_s, max(offset_s, event.offset_s), label))
        else:
            joined.append((event.onset_s, event.offset_s, event.label))
    return joined


def _psds(given: Inputs, scenario: Scenario, groups: Groups, draws: int) -> Psds:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sed_scores_eval import intersection_based as library
        from sed_scores_eval.intersection_based.intermediate_statistics import intermediate_statistics_deltas

    if len(given.classes) == 1:  # which nothing can be confused with
        scenario = replace(scenario, cross_overlap=None, cross_cost=0.0)
    overlaps = {
        "dtc_threshold": scenario.detection_overlap,
        "gtc_threshold": scenario.truth_overlap,
        "cttc_threshold": scenario.cross_overlap,
    }
    costs = {"alpha_ct": scenario.cross_cost, "alpha_st": scenario.spread_cost}
    deltas = intermediate_statistics_deltas(scores=given.scores, ground_truth=given.truth, **overlaps)
    common = {"scores": None, "ground_truth": given.truth, "audio_durations": given.durations_s, "deltas": deltas}
    value, of_class, (found, rates), _ = library.psds(**common, **overlaps, **costs, max_efpr=MAX_FALSE_PER_HOUR)
    exact = np.asarray(float(value))
    score = Drawn(exact, np.empty(0))
    if draws:
        # Beyond the last rate, because other draws have other rates at the same threshold.
        _, curves = library.psd_roc(**common, **overlaps, **costs, max_efpr=3 * MAX_FALSE_PER_HOUR)
        steps = {name: _thresholds(np.asarray(of[2])) for name, of in curves.items()}
        near = drawn(_Resampled(given, scenario, deltas, steps).scores, groups, draws=draws)
        # The draws are of a curve of fewer points: its small error is that of the score itself.
        score = Drawn(exact, np.clip(near.draws + (exact - near.value), 0, 1))
    return Psds(
        scenario,
        score,
        Curve(tuple(map(float, rates)), tuple(map(float, found))),
        {label: float(of_class[str(column)]) for label, column in zip(given.classes, given.columns, strict=True)},
    )


def _thresholds(scores: Array) -> Array:
    """At most `_THRESHOLDS` of a curve's scores, ascending."""
    steps = np.unique(scores[np.isfinite(scores)])
    if len(steps) > _THRESHOLDS:
        steps = steps[np.linspace(0, len(steps) - 1, _THRESHOLDS).round().astype(int)]
    return steps


class _Resampled:
    """The score of weighted clips: what each clip adds at each threshold is counted once, and weighted in each draw."""

    def __init__(
        self, given: Inputs, scenario: Scenario, deltas: Mapping[str, Any], steps: Mapping[str, Array]
    ) -> None:
        self._scenario = scenario
        self._columns = given.columns
        self._durations_s = np.array([given.durations_s[name] for name in given.scores])
        names = [str(column) for column in given.columns]
        self._events = np.zeros((len(given.scores), len(names)))  # true events by clip and class
        self._events_s = np.zeros((len(given.scores), len(names)))
        for row, clip in enumerate(given.scores):
            for onset_s, offset_s, name in given.truth[clip]:
                self._events[row, names.index(name)] += 1
                self._events_s[row, names.index(name)] += offset_s - onset_s
        kinds = [["tps", "fps", *(f"cts\\{other}" for other in names if other != name)] for name in names]
        if scenario.cross_overlap is None:
            kinds = [["tps", "fps"]] * len(names)
        self._tallies = [
            _tallied([deltas[clip][name] for clip in given.scores], steps[name], kind)
            for name, kind in zip(names, kinds, strict=True)
        ]

    def scores(self, weights: Array) -> Array:
        """The scores (draws,) for weights (draws, clips) or (draws, clips, all classes)."""
        found = np.stack([self._found(index, weights) for index in range(len(self._columns))])
        there = np.isfinite(found).any(axis=(0, 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # draws in which nothing sounds
            mean, spread = np.nanmean(found, axis=0), np.nanstd(found, axis=0)
        level = np.maximum(mean - self._scenario.spread_cost * spread, 0)
        area: Array = (level[:, :-1] * np.diff(_RATES)).sum(axis=1) / MAX_FALSE_PER_HOUR
        return np.where(there, area, np.nan)

    def _found(self, index: int, weights: Array) -> Array:
        """A class's rate of found events (draws, rates); NaN where it has none."""
        its = (weights if weights.ndim == 2 else weights[:, :, self._columns[index]]).astype(np.float32)
        tally = self._tallies[index]  # (kinds, clips, thresholds)
        true = its @ self._events[:, index]
        found, false = its @ tally[0], its @ tally[1]
        rate = false / np.maximum(its @ self._durations_s, 1e-12)[:, None]
        if len(tally) > 2:
            others = np.delete(its @ self._events_s, index, axis=1)
            cross = [(its @ one) / np.maximum(s, 1e-12)[:, None] for one, s in zip(tally[2:], others.T, strict=True)]
            rate += self._scenario.cross_cost * np.mean(cross, axis=0)
        best = np.zeros((len(its), len(_RATES) + 1))
        reached = np.searchsorted(_RATES, rate * _S_PER_HOUR - 1e-9)
        rows = np.broadcast_to(np.arange(len(its))[:, None], reached.shape)
        np.maximum.at(best, (rows, reached), found / np.maximum(true, 1e-12)[:, None])
        curve: Array = np.maximum.accumulate(best[:, :-1], axis=1)
        return np.where(true[:, None] > 0, curve, np.nan)


def _tallied(
    deltas: Sequence[tuple[Array, Mapping[str, NDArray[np.int64]]]], steps: Array, kinds: Sequence[str]
) -> Floats:
    """What each clip adds up to at each threshold: (kinds, clips, thresholds)."""
    added = np.zeros((len(kinds), len(deltas), len(steps) + 1), np.float32)
    for row, (changes, of) in enumerate(deltas):
        reached = np.searchsorted(steps, changes, side="right")  # the number of thresholds that this one falls below
        flat = {name: value for key, values in of.items() for name, value in _flat(key, values)}
        for index, kind in enumerate(kinds):
            np.add.at(added[index, row], reached, flat[kind])
    total: Floats = added[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
    return total[:, :, 1:]


def _flat(key: str, values: Any) -> list[tuple[str, Any]]:
    """sed_scores_eval keeps cross triggers in one dictionary, or flattened."""
    return (
        [(f"{key}\\{name}", value) for name, value in values.items()]
        if isinstance(values, Mapping)
        else [(key, values)]
    )
