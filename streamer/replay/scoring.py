"""How right events and tags are: clip, segment and event F1, counted by sed_eval."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from streamer.errors import TruthError
from streamer.replay.truth import LabelledEvent, Truth

SEGMENT_S = 1.0
"""Length of a segment (paper section 3.3, DCASE 2018 task 4)."""
ONSET_COLLAR_S = 0.2
"""Largest distance of a right onset from the true one; an offset may be as far, or `OFFSET_SHARE` of the event."""
OFFSET_SHARE = 0.2
_PADDING_S = 0.1
"""Codecs pad a clip's end by up to two frames of AAC: that makes no segment of its own."""


@dataclass(frozen=True, slots=True)
class ClipPrediction:
    """What was found in one clip."""

    events: tuple[LabelledEvent, ...]
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Counts:
    """How often a class is there, was said to be there, and both: in clips, segments or events."""

    true: int
    found: int
    right: int

    @property
    def f1(self) -> float | None:
        """0 to 1; None where the class is neither there nor found."""
        return 2 * self.right / (self.true + self.found) if self.true + self.found else None

    @property
    def precision(self) -> float | None:
        """The part of what was found that is right; None where nothing was found."""
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        """The part of what is there that was found; None where nothing is there."""
        return self.right / self.true if self.true else None


@dataclass(frozen=True, slots=True)
class ClassReport:
    """The scores of one class."""

    label: str
    clip: Counts
    segment: Counts
    event: Counts


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of a set of clips, 0 to 1.

    Macro means are over the classes that the truth holds. A class that is there but was never found
    counts as 0: sed_eval's own class-wise average leaves it out, which pays a model for silence. On
    classes that are both there and found, the two agree.
    """

    classes: tuple[ClassReport, ...]
    clips: int
    strong: bool  # False: the truth has no times, segment and event scores mean nothing

    @property
    def clip_f1(self) -> float:
        """Macro F1 of the tags."""
        return _macro([one.clip for one in self.classes])

    @property
    def segment_f1(self) -> float:
        """Macro F1 in segments of 1 s."""
        return _macro([one.segment for one in self.classes])

    @property
    def event_f1(self) -> float:
        """Macro F1 of events: onset within 200 ms, offset within max(200 ms, 20 % of the event)."""
        return _macro([one.event for one in self.classes])

    def json(self) -> dict[str, Any]:
        """The figures as JSON-able values: F1 (0 to 1) and counts, over all and for each class."""
        kinds = ("clip", "segment", "event") if self.strong else ("clip",)
        means = {"clip": self.clip_f1, "segment": self.segment_f1, "event": self.event_f1}
        return {
            "clips": self.clips,
            **{f"{kind}_f1": means[kind] for kind in kinds},
            "classes": {one.label: {kind: _counts_json(getattr(one, kind)) for kind in kinds} for one in self.classes},
        }

    def table(self) -> str:
        """A Markdown table: a row a class with its number of true clips and events, and the means below, in percent."""
        rows = ["| class | clips | events | clip F1 | segment F1 | event F1 |", "|---|---:|---:|---:|---:|---:|"]
        for one in self.classes:
            times = [_percent(one.segment.f1), _percent(one.event.f1)] if self.strong else ["", ""]
            events = one.event.true if self.strong else ""
            rows.append(f"| {one.label} | {one.clip.true} | {events} | {_percent(one.clip.f1)} | {' | '.join(times)} |")
        times = [_percent(self.segment_f1), _percent(self.event_f1)] if self.strong else ["", ""]
        events = sum(one.event.true for one in self.classes) if self.strong else ""
        rows.append(f"| **macro** | {self.clips} | {events} | {_percent(self.clip_f1)} | {' | '.join(times)} |")
        widths = [max(len(cell) for cell in column) for column in zip(*map(_split, rows), strict=True)]
        return "\n".join(_aligned(row, widths) for row in rows)


def evaluate(
    truth: Truth,
    predictions: Mapping[str, ClipPrediction],
    classes: Sequence[str],
    durations_s: Mapping[str, float],
) -> Report:
    """Score what was found in clips against the truth, by sed_eval's own counts.

    Args:
        truth: annotations; clips of it that are not in `predictions` are left out.
        predictions: what was found, by the truth's file names; a clip without events is scored too.
        classes: the model's classes, in the order of the report.
        durations_s: of each predicted clip's media, which may differ from what its name says.

    Raises:
        TruthError: the truth has a class that is none of `classes`, or does not speak of a clip.

    """
    # sed_eval takes half a second to import and warns of its own dependencies: only who scores pays that.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sed_eval.audio_tag import AudioTaggingMetrics
        from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics

    truth.check_classes(classes)
    labels = list(classes)
    clip = AudioTaggingMetrics(tags=labels)
    segment = SegmentBasedMetrics(event_label_list=labels, time_resolution=SEGMENT_S)
    event = EventBasedMetrics(event_label_list=labels, t_collar=ONSET_COLLAR_S, percentage_of_length=OFFSET_SHARE)
    for name, prediction in predictions.items():
        if name not in truth.tags:
            raise TruthError(f"{truth.source}: does not speak of {name}")
        clip.evaluate([_tag_item(truth.tags[name])], [_tag_item(prediction.tags)])
        if truth.strong:
            true, found = _event_items(truth.events[name]), _event_items(prediction.events)
            length_s = max(math.ceil(durations_s[name] - _PADDING_S), 1)
            segment.evaluate(true, found, evaluated_length_seconds=length_s)
            event.evaluate(true, found)
    return Report(
        classes=tuple(
            ClassReport(
                label,
                _counts(clip.tag_wise[label]),
                _counts(segment.class_wise[label]),
                _counts(event.class_wise[label]),
            )
            for label in labels
        ),
        clips=len(predictions),
        strong=truth.strong,
    )


def _tag_item(tags: Iterable[str]) -> dict[str, Any]:
    return {"filename": "clip", "tags": sorted(tags)}


def _event_items(events: Iterable[LabelledEvent]) -> list[dict[str, Any]]:
    return [{"onset": one.onset_s, "offset": one.offset_s, "event_label": one.label} for one in events]


def _counts(tally: Mapping[str, float]) -> Counts:
    return Counts(int(tally["Nref"]), int(tally["Nsys"]), int(tally["Ntp"]))


def _counts_json(counts: Counts) -> dict[str, float | int | None]:
    return {"true": counts.true, "found": counts.found, "right": counts.right, "f1": counts.f1}


def _macro(counts: Iterable[Counts]) -> float:
    there = [one.f1 for one in counts if one.true and one.f1 is not None]
    return fmean(there) if there else 0.0


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.2f}"


def _split(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def _aligned(row: str, widths: Sequence[int]) -> str:
    cells = _split(row)
    if set(cells[0]) == {"-"}:
        return "|" + "|".join(("-" * (width + 1) + (":" if index else "-")) for index, width in enumerate(widths)) + "|"
    pairs = zip(cells[1:], widths[1:], strict=True)
    return " | ".join([f"| {cells[0].ljust(widths[0])}", *(cell.rjust(width) for cell, width in pairs)]) + " |"
