"""Scores events and tags: clip, segment and event F1, micro and macro, as counted by sed_eval."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from streamer.errors import TruthError
from streamer.replay.truth import LabelledEvent, Truth

Kind: TypeAlias = Literal["clip", "segment", "event"]
"""What is counted: clips that have a class, segments of 1 s in which it is active, or its events."""
KINDS: tuple[Kind, ...] = get_args(Kind)
SEGMENT_S = 1.0
"""Length of a segment (paper section 4.3.2, DCASE 2018 task 4)."""
ONSET_COLLAR_S = 0.2
"""Collar of an onset; that of an offset is the same, or `OFFSET_SHARE` of the event if that is more."""
OFFSET_SHARE = 0.2
_PADDING_S = 0.1
"""Codecs pad a clip's end by up to two frames of AAC, which must not add a segment."""
F1_EXPLAINED = (
    "As in sed_eval, F1 is counted in clips, in segments of 1 s, and in events (onset within 200 ms; offset within "
    "200 ms or 20 % of the event, whichever is more). Micro F1 is that of the counts of all classes together. Macro F1 "
    "is the mean over the classes in the truth; a class that was never found counts as 0 (sed_eval leaves it out)."
)
"""What the figures of a `Report` mean, for those who read them."""


@dataclass(frozen=True, slots=True)
class ClipPrediction:
    """What was found in one clip."""

    events: tuple[LabelledEvent, ...]
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many clips, segments or events of a class are true, how many were found, and how many are both."""

    true: int
    found: int
    right: int

    @property
    def f1(self) -> float | None:
        """0 to 1; None if the class is neither in the truth nor found."""
        return 2 * self.right / (self.true + self.found) if self.true + self.found else None


@dataclass(frozen=True, slots=True)
class ClipCounts:
    """The counts of every class in every clip: what a `Report` sums up, and intervals resample."""

    names: tuple[str, ...]  # of the clips, in the truth
    classes: tuple[str, ...]
    seconds: tuple[float, ...]  # of each clip's media
    counts: NDArray[np.int64]  # (clips, classes, kinds, 3): true, found, right
    strong: bool  # False: the truth has no times, so only clips are counted
    annotated: int  # clips in the truth
    subset_sha256: str  # `Truth.subset_sha256` of these clips

    def of(self, kind: Kind) -> NDArray[np.int64]:
        """The counts of a kind: (clips, classes, 3)."""
        return self.counts[:, :, KINDS.index(kind)]

    def report(self) -> Report:
        """The scores of all clips together."""
        totals = self.counts.sum(axis=0).tolist()
        return Report(
            tuple(
                ClassReport(label, *(Counts(*of) for of in row))
                for label, row in zip(self.classes, totals, strict=True)
            ),
            clips=len(self.names),
            strong=self.strong,
            annotated=self.annotated,
            subset_sha256=self.subset_sha256,
        )


@dataclass(frozen=True, slots=True)
class ClassReport:
    """The scores of one class."""

    label: str
    clip: Counts
    segment: Counts
    event: Counts

    def counts(self, kind: Kind) -> Counts:
        """The counts of `kind`."""
        return {"clip": self.clip, "segment": self.segment, "event": self.event}[kind]


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of a set of clips, 0 to 1.

    A tag is right if the clip has the class; a segment of 1 s, if the class is active in it; an event, if its onset is
    within 200 ms of the true one, and its offset within 200 ms or 20 % of the event, whichever is more.

    Micro and macro are sed_eval's, with one exception: a class that is in the truth and was never found counts as 0 in
    the macro mean. sed_eval leaves it out, which rewards silence. Both leave out a class that is not in the truth, so
    its false alarms count in the micro figure alone.
    """

    classes: tuple[ClassReport, ...]
    clips: int
    strong: bool  # False: the truth has no times, so segment and event scores mean nothing
    annotated: int = 0  # clips in the truth; 0: an older version did not record it
    subset_sha256: str = ""  # `Truth.subset_sha256` of the scored clips; "": likewise

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that can be counted against the truth."""
        return KINDS if self.strong else ("clip",)

    def total(self, kind: Kind) -> Counts:
        """The counts of all classes together."""
        counts = [one.counts(kind) for one in self.classes]
        return Counts(
            sum(one.true for one in counts), sum(one.found for one in counts), sum(one.right for one in counts)
        )

    def micro_f1(self, kind: Kind) -> float | None:
        """F1 of the counts of all classes together; None if nothing is true and nothing was found."""
        return self.total(kind).f1

    def macro_f1(self, kind: Kind) -> float | None:
        """The mean F1 of the classes in the truth; None if there are none."""
        there = [one.f1 for report in self.classes if (one := report.counts(kind)).true and one.f1 is not None]
        return fmean(there) if there else None

    @property
    def clip_f1(self) -> float:
        """Macro F1 of the tags; 0 if there is none."""
        return self.macro_f1("clip") or 0.0

    @property
    def segment_f1(self) -> float:
        """Macro F1 of segments; 0 if there is none."""
        return self.macro_f1("segment") or 0.0

    @property
    def event_f1(self) -> float:
        """Macro F1 of events; 0 if there is none."""
        return self.macro_f1("event") or 0.0

    def json(self) -> dict[str, Any]:
        """The figures as JSON-able values: F1 (0 to 1) and counts, overall and for each class.

        `clip_f1`, `segment_f1` and `event_f1` are the macro figures, under the names that they had before micro F1 was
        added.
        """
        means = {"clip": self.clip_f1, "segment": self.segment_f1, "event": self.event_f1}
        subset = {"annotated": self.annotated, "subset_sha256": self.subset_sha256} if self.subset_sha256 else {}
        return {
            "clips": self.clips,
            **subset,
            **{f"{kind}_f1": means[kind] for kind in self.kinds},
            **{f"{kind}_f1_micro": self.micro_f1(kind) for kind in self.kinds},
            **{f"{kind}_f1_macro": self.macro_f1(kind) for kind in self.kinds},
            "classes": {
                one.label: {kind: _counts_json(one.counts(kind)) for kind in self.kinds} for one in self.classes
            },
        }

    @classmethod
    def of_json(cls, figures: Mapping[str, Any]) -> Report:
        """The report whose `json` is `figures`. All figures follow from the counts, so an older one has them too.

        Raises:
            KeyError, TypeError, AttributeError: `figures` is not from a report.

        """
        strong = all("event" in row for row in figures["classes"].values())
        none = {"true": 0, "found": 0, "right": 0}

        def counts(row: Mapping[str, Any], kind: Kind) -> Counts:
            one = row[kind] if kind == "clip" or strong else none
            return Counts(one["true"], one["found"], one["right"])

        return cls(
            tuple(
                ClassReport(label, counts(row, "clip"), counts(row, "segment"), counts(row, "event"))
                for label, row in figures["classes"].items()
            ),
            figures["clips"],
            strong,
            figures.get("annotated", 0),
            figures.get("subset_sha256", ""),
        )

    def table(self) -> str:
        """A Markdown table in percent: a row per class with its numbers of true clips and events, then the means."""
        rows = [["class", "clips", "events", "clip F1", "segment F1", "event F1"], ["-"] * 6]
        for one in self.classes:
            rows.append(self._row(one.label, one.clip.true, one.event.true, [one.counts(kind).f1 for kind in KINDS]))
        events = self.total("event").true
        rows.append(self._row("**micro**", self.clips, events, [self.micro_f1(kind) for kind in KINDS]))
        rows.append(self._row("**macro**", self.clips, events, [self.macro_f1(kind) for kind in KINDS]))
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        return "\n".join(_aligned(row, widths) for row in rows)

    def _row(self, name: str, clips: int, events: int, f1: Sequence[float | None]) -> list[str]:
        times = [percent(one) for one in f1[1:]] if self.strong else ["", ""]
        return [name, str(clips), str(events) if self.strong else "", percent(f1[0]), *times]

    def subset(self) -> str:
        """Which of the annotated clips these scores are of, in words."""
        return f"{self.clips} of {self.annotated} annotated clips; sha256 of this subset: {self.subset_sha256}"

    def paper(self) -> str:
        """The three figures that Boes & Van hamme give (section 4.3.2), in words and percent."""
        return (
            f"clip micro {percent(self.micro_f1('clip'))}, segment micro {percent(self.micro_f1('segment'))}, "
            f"event macro {percent(self.macro_f1('event'))}"
        )


def evaluate(
    truth: Truth,
    predictions: Mapping[str, ClipPrediction],
    classes: Sequence[str],
    durations_s: Mapping[str, float],
) -> Report:
    """Score the predictions for clips against the truth: the report of `count`, which describes the arguments.

    Raises:
        TruthError: the truth has a class that is not one of `classes`, or lacks a clip.

    """
    return count(truth, predictions, classes, durations_s).report()


def count(
    truth: Truth,
    predictions: Mapping[str, ClipPrediction],
    classes: Sequence[str],
    durations_s: Mapping[str, float],
    kinds: Collection[Kind] = KINDS,
) -> ClipCounts:
    """Compare the predictions for clips with the truth, clip by clip, with sed_eval's own counts.

    Args:
        truth: annotations; its clips that are not in `predictions` are left out.
        predictions: by the truth's file names; a clip without events is scored too.
        classes: the model's classes, in the order of the report.
        durations_s: of each clip's media, by the same names.
        kinds: what to count; the counts of the others stay 0.

    Raises:
        TruthError: the truth has a class that is not one of `classes`, or lacks a clip.

    """
    truth.check_classes(classes)
    counts = np.zeros((len(predictions), len(classes), len(KINDS), 3), np.int64)
    for row, (name, prediction) in enumerate(predictions.items()):
        if name not in truth.tags:
            raise TruthError(f"{truth.source}: does not have {name}")
        true = ClipPrediction(truth.events[name] if truth.strong else (), truth.tags[name])
        its = [kind for kind in kinds if truth.strong or kind == "clip"]
        counts[row] = count_clip(true, prediction, classes, durations_s[name], its)
    return ClipCounts(
        names=tuple(predictions),
        classes=tuple(classes),
        seconds=tuple(durations_s[name] for name in predictions),
        counts=counts,
        strong=truth.strong,
        annotated=len(truth.tags),
        subset_sha256=truth.subset_sha256(predictions),
    )


def count_clip(
    true: ClipPrediction,
    found: ClipPrediction,
    classes: Sequence[str],
    duration_s: float,
    kinds: Collection[Kind] = KINDS,
) -> NDArray[np.int64]:
    """Compare what was found in one clip with what is true of it, with sed_eval's own counts.

    Returns (classes, kinds, 3), by `KINDS`; those of kinds that are not in `kinds` are 0. Each class is counted without
    regard to the others.
    """
    # sed_eval takes half a second to import, and its dependencies warn: only scoring pays for that.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sed_eval.audio_tag import AudioTaggingMetrics
        from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics

    labels = list(classes)
    counts = np.zeros((len(labels), len(KINDS), 3), np.int64)
    if "clip" in kinds:
        clip = AudioTaggingMetrics(tags=labels)
        clip.evaluate([_tag_item(true.tags)], [_tag_item(found.tags)])
        counts[:, 0] = [_counts(clip.tag_wise[label]) for label in labels]
    if "segment" in kinds:
        length_s = max(math.ceil(duration_s - _PADDING_S), 1)
        segment = SegmentBasedMetrics(event_label_list=labels, time_resolution=SEGMENT_S)
        segment.evaluate(_event_items(true.events), _event_items(found.events), evaluated_length_seconds=length_s)
        counts[:, 1] = [_counts(segment.class_wise[label]) for label in labels]
    if "event" in kinds:
        event = EventBasedMetrics(event_label_list=labels, t_collar=ONSET_COLLAR_S, percentage_of_length=OFFSET_SHARE)
        event.evaluate(_event_items(true.events), _event_items(found.events))
        counts[:, 2] = [_counts(event.class_wise[label]) for label in labels]
    return counts


def _tag_item(tags: Iterable[str]) -> dict[str, Any]:
    return {"filename": "clip", "tags": sorted(tags)}


def _event_items(events: Iterable[LabelledEvent]) -> list[dict[str, Any]]:
    return [{"onset": one.onset_s, "offset": one.offset_s, "event_label": one.label} for one in events]


def _counts(tally: Mapping[str, float]) -> tuple[int, int, int]:
    return int(tally["Nref"]), int(tally["Nsys"]), int(tally["Ntp"])


def _counts_json(counts: Counts) -> dict[str, float | int | None]:
    return {"true": counts.true, "found": counts.found, "right": counts.right, "f1": counts.f1}


def percent(score: float | None, digits: int = 2) -> str:
    """A score of 0 to 1 in percent, for a table."""
    return "–" if score is None else f"{100 * score:.{digits}f}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    if set(row) == {"-"}:
        return "|" + "|".join(("-" * (width + 1) + (":" if index else "-")) for index, width in enumerate(widths)) + "|"
    pairs = zip(row[1:], widths[1:], strict=True)
    return " | ".join([f"| {row[0].ljust(widths[0])}", *(cell.rjust(width) for cell, width in pairs)]) + " |"
