"""What whoever is alarmed notices: how late an alarm comes, how many are false, and what they are confused with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.replay.scoring import ONSET_COLLAR_S
from streamer.replay.truth import LabelledEvent, Truth
from train.evaluation.bootstrap import FEWEST_GROUPS, Array, Drawn, Groups, drawn
from train.evaluation.lookaheads import StreamedClip

_S_PER_HOUR = 3600.0
QUANTILES = (0.5, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long after their true onset events were decided, in seconds of media.

    The time that the machine needs for its computations, and the network for the transport, comes on top.
    """

    clips: NDArray[np.intp]  # (n,), the clip of each
    classes: NDArray[np.intp]  # (n,), the class of each
    seconds: Array  # (n,)
    cut: int  # onsets that were found, but only because the clip ended: a live stream would have gone on

    def of_class(self, column: int) -> Latencies:
        """Those of one class; `cut` is not told apart by class."""
        there = self.classes == column
        return Latencies(self.clips[there], self.classes[there], self.seconds[there], self.cut)


def latencies(truth: Truth, clips: Sequence[StreamedClip], classes: Sequence[str]) -> Latencies:
    """The latencies of all true events whose onset was reported within the collar of 200 ms."""
    found: list[tuple[int, int, float]] = []
    cut = 0
    for row, clip in enumerate(clips):
        for column, label in enumerate(classes):
            true = sorted(one.onset_s for one in truth.events[clip.posteriors.name] if one.label == label)
            waiting = sorted((one for one in clip.decided if one.label == label), key=lambda one: one.onset_s)
            for onset_s in true:
                near = [one for one in waiting if abs(one.onset_s - onset_s) <= ONSET_COLLAR_S + 1e-9]
                if near:
                    waiting.remove(near[0])
                    cut += near[0].at_end
                    if not near[0].at_end:
                        found.append((row, column, near[0].decided_s - onset_s))
    return Latencies(
        np.array([one[0] for one in found], np.intp),
        np.array([one[1] for one in found], np.intp),
        np.array([one[2] for one in found], np.float64),
        cut,
    )


def latency_quantiles(of: Latencies, groups: Groups, *, draws: int) -> Drawn:
    """The `QUANTILES` of latencies, in seconds, with their draws; NaN if there are none, or of a single group.

    `groups` are those of the clips, or of the classes in them.
    """
    if not len(of.seconds):
        nothing = np.full(len(QUANTILES), np.nan)
        return Drawn(nothing, np.broadcast_to(nothing, (draws, len(QUANTILES))))
    units = groups.take(*((of.clips, of.classes) if groups.factors[0].ndim == 3 else (of.clips,)))
    order = np.argsort(of.seconds, kind="stable")
    ordered = of.seconds[order]

    def quantiles(weights: Array) -> Array:
        passed = np.cumsum(weights[:, order], axis=1)
        total = passed[:, -1:]
        columns = [(passed >= share * total - 1e-9).argmax(axis=1) for share in QUANTILES]
        return np.where(total > 0, ordered[np.stack(columns, axis=1)], np.nan)

    found = drawn(quantiles, units, draws=draws)
    return found if units.count(np.ones(len(of.seconds), bool)) >= FEWEST_GROUPS else found.without_interval()


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Events of which nothing is true: their class does not sound at any moment of them."""

    counts: NDArray[np.int64]  # (clips, classes)
    confused: Array  # (classes, classes + 1): false alarms by what sounded instead; the last column: nothing did


def false_alarms(truth: Truth, events: Mapping[str, Sequence[LabelledEvent]], classes: Sequence[str]) -> FalseAlarms:
    """The false alarms of clips. One during which several classes sound is shared among them equally.

    Args:
        truth: a strong one.
        events: those found, by the truth's names.
        classes: the model's.

    """
    number = {label: column for column, label in enumerate(classes)}
    counts = np.zeros((len(events), len(classes)), np.int64)
    confused = np.zeros((len(classes), len(classes) + 1))
    for row, (name, found) in enumerate(events.items()):
        for event in found:
            meanwhile = {
                one.label for one in truth.events[name] if one.onset_s < event.offset_s and event.onset_s < one.offset_s
            }
            if event.label in meanwhile:
                continue
            counts[row, number[event.label]] += 1
            columns = [number[label] for label in meanwhile] or [len(classes)]
            confused[number[event.label], columns] += 1 / len(columns)
    return FalseAlarms(counts, confused)


def alarms_per_hour(of: FalseAlarms, seconds: Sequence[float], groups: Groups, *, draws: int) -> Drawn:
    """False alarms an hour of each class, and of all together (the last figure), with their draws.

    Where there is no false alarm there is no interval.
    """
    hours = np.asarray(seconds, np.float64) / _S_PER_HOUR

    def rates(weights: Array) -> Array:
        of_class = weights if weights.ndim == 3 else np.repeat(weights[:, :, None], of.counts.shape[1], axis=2)
        found = np.einsum("dnc,nc->dc", of_class, of.counts)
        heard = np.einsum("dnc,n->dc", of_class, hours)
        each = np.divide(found, heard, out=np.full(found.shape, np.nan), where=heard > 0)
        return np.column_stack([each, each.sum(axis=1)])

    found = drawn(rates, groups, draws=draws)
    # Where there was none, there is none in any draw: that says nothing of other recordings.
    return Drawn(found.value, np.where(found.value > 0, found.draws, np.nan))
