"""One evaluation of a bundle: offline and streaming side by side, with intervals by groups of recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.bundle import Bundle
from streamer.decoding import Decoding
from streamer.errors import EarwitnessError
from streamer.replay.scoring import KINDS, ClipCounts, ClipPrediction, Kind, Report, count
from streamer.replay.truth import Truth
from streamer.windows import PRESETS, Coverage, StreamSettings
from train.data.dataset import PartData
from train.evaluation import stored
from train.evaluation.alarms import FalseAlarms, Latencies, alarms_per_hour, false_alarms, latencies, latency_quantiles
from train.evaluation.bootstrap import DRAWS, Drawn, F1Draws, Groups, f1_draws
from train.evaluation.groups import ClipGroups
from train.evaluation.lookaheads import StreamedClip, streamed
from train.evaluation.psds import Psds, psds
from train.evaluation.stored import ClipPosteriors

HOPS = (8, 16, 32)
LOOKAHEADS = (0, 8, 15, 23, 30, 45, 60)
"""Hops and lookaheads of the curve, in cells, beside the daemon's own."""


def lookaheads_of(bundle: Bundle) -> tuple[int, ...]:
    """The lookaheads of a model's curve: instead of those that are too short for it, the shortest that it can use."""
    return tuple(sorted({max(one, bundle.least_lookahead_cells) for one in LOOKAHEADS}))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured beside the scores."""

    hops: tuple[int, ...] = HOPS
    lookaheads: tuple[int, ...] = LOOKAHEADS
    curve: bool = True
    with_psds: bool = True
    draws: int = DRAWS
    workers: int = 1

    def points(self, bundle: Bundle) -> list[StreamSettings]:
        """The daemon's defaults; for a curve pairs of hop and lookahead, and the presets that the model can use."""
        pairs = [StreamSettings(hop, lookahead) for hop in self.hops for lookahead in self.lookaheads]
        presets = [one for one in PRESETS.values() if not bundle.misfit(one)]
        return list(dict.fromkeys([StreamSettings(), *((*presets, *pairs) if self.curve else ())]))


@dataclass(frozen=True, slots=True)
class Way:
    """The scores of one way to use a model: whole clips, or a live stream."""

    counts: ClipCounts
    report: Report
    f1: Mapping[Kind, F1Draws]
    psds: tuple[Psds, ...]
    alarms: FalseAlarms
    alarms_per_hour: Drawn  # (classes + 1,), the last: all together
    predictions: Mapping[str, ClipPrediction]
    posteriors: tuple[ClipPosteriors, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The scores and the latency at one hop and lookahead."""

    settings: StreamSettings
    event_macro: Drawn
    event_micro: Drawn
    segment_macro: Drawn
    latency_s: Drawn  # (quantiles,)
    latencies: int  # onsets that it is computed from


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that a report shows."""

    bundle: Bundle
    part: PartData
    truth: Truth
    groups: ClipGroups
    offline: Way
    streaming: Way
    settings: StreamSettings  # of `streaming`
    coverage: Coverage
    latencies: Latencies
    latency_s: Drawn  # (quantiles,)
    class_latency_s: tuple[Drawn, ...]
    curve: tuple[CurvePoint, ...]
    draws: int

    @property
    def seconds(self) -> float:
        """The duration of all clips."""
        return sum(self.offline.counts.seconds)

    def groups_of(self, column: int) -> int:
        """The number of groups of recordings in which a class sounds."""
        return self.groups.groups.count_of(self.offline.counts.of("clip")[:, column, 0] > 0, column)


def measure(folder: Path, part: PartData, groups: ClipGroups, plan: Plan, *, progress: bool = True) -> Evaluation:
    """Evaluate the bundle in `folder` on a part of a corpus.

    Raises:
        EarwitnessError: the part has no times, or a hop and a lookahead do not fit into the model's window.

    """
    bundle, truth = Bundle.load(folder), part.truth
    if truth is None or not truth.strong:
        raise EarwitnessError(f"the part {part.part} has no onsets and offsets, which an evaluation needs")
    settings = StreamSettings()
    offline = stored.posteriors(bundle.network(), part, progress=progress)
    points = streamed(folder, part, plan.points(bundle), plan.workers)
    clips = points[settings]
    late = latencies(truth, clips, bundle.classes)
    seconds = {one.name: one.duration_s for one in offline}
    of, draws = groups.groups, plan.draws
    return Evaluation(
        bundle=bundle,
        part=part,
        truth=truth,
        groups=groups,
        offline=_way(offline, stored.predict(offline, bundle.decoding), truth, bundle.decoding, seconds, of, plan),
        streaming=_way(
            [one.posteriors for one in clips],
            predictions(clips, bundle.decoding),
            truth, bundle.decoding, seconds, of, plan,
        ),
        settings=settings,
        coverage=_coverage(clips),
        latencies=late,
        latency_s=latency_quantiles(late, of, draws=draws),
        class_latency_s=tuple(
            latency_quantiles(late.of_class(column), of, draws=draws) for column in range(len(bundle.classes))
        ),
        curve=tuple(_point(one, points[one], truth, bundle, seconds, of, draws) for one in points if plan.curve),
        draws=draws,
    )  # fmt: skip


def predictions(clips: Sequence[StreamedClip], decoding: Decoding) -> dict[str, ClipPrediction]:
    """The events that streams reported, and the tags of their posteriors."""
    tagged = stored.predict([one.posteriors for one in clips], decoding)
    return {name: ClipPrediction(clip.events, of.tags) for (name, of), clip in zip(tagged.items(), clips, strict=True)}


def _way(
    clips: Sequence[ClipPosteriors],
    found: Mapping[str, ClipPrediction],
    truth: Truth,
    decoding: Decoding,
    seconds: Mapping[str, float],
    groups: Groups,
    plan: Plan,
) -> Way:
    counts = count(truth, found, decoding.classes, seconds)
    alarms = false_alarms(truth, {name: one.events for name, one in found.items()}, decoding.classes)
    return Way(
        counts=counts,
        report=counts.report(),
        f1={kind: f1_draws(counts.of(kind), groups, draws=plan.draws) for kind in KINDS},
        psds=psds(clips, truth, decoding, groups, draws=plan.draws) if plan.with_psds else (),
        alarms=alarms,
        alarms_per_hour=alarms_per_hour(alarms, counts.seconds, groups, draws=plan.draws),
        predictions=found,
        posteriors=tuple(clips),
    )


def _point(
    settings: StreamSettings,
    clips: Sequence[StreamedClip],
    truth: Truth,
    bundle: Bundle,
    seconds: Mapping[str, float],
    groups: Groups,
    draws: int,
) -> CurvePoint:
    counts = count(truth, predictions(clips, bundle.decoding), bundle.classes, seconds)
    event = f1_draws(counts.of("event"), groups, draws=draws)
    late = latencies(truth, clips, bundle.classes)
    return CurvePoint(
        settings,
        event.macro,
        event.micro,
        f1_draws(counts.of("segment"), groups, draws=draws).macro,
        latency_quantiles(late, groups, draws=draws),
        len(late.seconds),
    )


def _coverage(clips: Sequence[StreamedClip]) -> Coverage:
    total = Coverage()
    for one in clips:
        total = total.plus(one.coverage)
    return total
