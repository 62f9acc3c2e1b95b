"""How right events and tags are: clip, segment and event F1 with sed_eval, and truth files in DCASE's form.

A truth file is tab-separated with a header: `filename onset offset event_label` (strong; a row with
nothing behind the file name is a clip without events) or `filename event_labels` (weak; labels
separated by commas). Clips are known by the last part of their path.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath
from statistics import fmean
from typing import Any

from streamer.errors import TruthError
from streamer.timeline import seconds
from streamer.types import Offset

STRONG_HEADER = ("filename", "onset", "offset", "event_label")
WEAK_HEADER = ("filename", "event_labels")
SEGMENT_S = 1.0
"""Length of a segment (paper section 3.3, DCASE 2018 task 4)."""
ONSET_COLLAR_S = 0.2
"""Largest distance of a right onset from the true one; an offset may be as far, or `OFFSET_SHARE` of the event."""
OFFSET_SHARE = 0.2
_PADDING_S = 0.1
"""Codecs pad a clip's end by up to two frames of AAC: that makes no segment of its own."""


@dataclass(frozen=True, slots=True)
class LabelledEvent:
    """One event as annotators write it, in seconds from the clip's beginning."""

    onset_s: float
    offset_s: float
    label: str


@dataclass(frozen=True, slots=True)
class Truth:
    """What is annotated: every clip of the file, those without events too."""

    source: str  # the file, for messages
    events: Mapping[str, tuple[LabelledEvent, ...]]  # file name -> events; empty for a weak truth
    tags: Mapping[str, frozenset[str]]  # file name -> classes
    strong: bool

    def name_of(self, clip: str) -> str | None:
        """The truth's file name for `clip` (a path or a name): the same, else the only one of that stem, else None.

        So a picture and sound `clip.mp4` is scored against the row of its `clip.wav`.
        """
        name = PurePath(clip).name
        if name in self.tags:
            return name
        stem = _stem(name)
        same = [other for other in self.tags if _stem(other) == stem]
        return same[0] if len(same) == 1 else None

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raises `TruthError` if a label is none of `classes`."""
        for name, labels in self.tags.items():
            for label in sorted(labels - set(classes)):
                raise TruthError(
                    f"{self.source}: class '{label}' of {name} is not one of the model's: {', '.join(classes)}"
                    f"{_nearest(label, classes)}"
                )


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


def labelled(events: Iterable[Offset]) -> tuple[LabelledEvent, ...]:
    """Tracked events in an annotator's terms, by onset."""
    found = (LabelledEvent(seconds(event.onset), seconds(event.offset), event.label) for event in events)
    return tuple(sorted(found, key=lambda event: (event.onset_s, event.label)))


def read_truth(path: Path) -> Truth:
    """Read a truth file, strong or weak by its header. Raises `TruthError` that names the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TruthError(f"{path}: can't read the truth: {what}") from error
    header = tuple(field.strip() for field in lines[0].split("\t")) if lines else ()
    if header not in (STRONG_HEADER, WEAK_HEADER):
        raise TruthError(
            f"{path}: the first line must be the tab-separated header '{' '.join(STRONG_HEADER)}' "
            f"or '{' '.join(WEAK_HEADER)}', not {lines[0][:80] if lines else ''!r}"
        )
    events: dict[str, list[LabelledEvent]] = {}
    tags: dict[str, set[str]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        fields += [""] * (len(header) - len(fields))
        where = f"{path}, line {number}"
        name = PurePath(fields[0]).name
        if not name or len(fields) > len(header):
            raise TruthError(
                f"{where}: expected {len(header)} tab-separated fields, a file name first, not {line[:80]!r}"
            )
        found = tags.setdefault(name, set())
        if header == WEAK_HEADER:
            found.update(label.strip() for label in fields[1].split(",") if label.strip())
            continue
        row = events.setdefault(name, [])
        if any(fields[1:]):
            event = _event(fields, where)
            row.append(event)
            found.add(event.label)
    return Truth(
        source=str(path),
        events={name: tuple(row) for name, row in events.items()},
        tags={name: frozenset(labels) for name, labels in tags.items()},
        strong=header == STRONG_HEADER,
    )


def strong_tsv(events: Mapping[str, Sequence[LabelledEvent]]) -> str:
    """File name -> events as a strong truth file's text; a clip without events is a row of its name alone."""
    rows = ["\t".join(STRONG_HEADER)]
    for name, row in events.items():
        rows += [f"{name}\t{event.onset_s:.3f}\t{event.offset_s:.3f}\t{event.label}" for event in row]
        if not row:
            rows.append(f"{name}\t\t\t")
    return "\n".join(rows) + "\n"


def weak_tsv(tags: Mapping[str, Iterable[str]]) -> str:
    """File name -> classes as a weak truth file's text."""
    rows = [f"{name}\t{','.join(sorted(labels))}" for name, labels in tags.items()]
    return "\n".join(["\t".join(WEAK_HEADER), *rows]) + "\n"


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


def _event(fields: Sequence[str], where: str) -> LabelledEvent:
    try:
        onset_s, offset_s = float(fields[1]), float(fields[2])
    except ValueError:
        raise TruthError(f"{where}: onset and offset must be seconds, not {fields[1]!r} and {fields[2]!r}") from None
    if not 0 <= onset_s < offset_s < math.inf:
        raise TruthError(f"{where}: an event must have 0 <= onset < offset, not {fields[1]} and {fields[2]}")
    if not fields[3]:
        raise TruthError(f"{where}: the event has no event_label")
    return LabelledEvent(onset_s, offset_s, fields[3])


def _stem(name: str) -> str:
    """A file name without its ending; the digits behind the last point of `Y<id>_30.000_40.000` are none."""
    stem, point, ending = name.rpartition(".")
    return stem if point and stem and not ending.isdigit() else name


def _nearest(label: str, classes: Sequence[str]) -> str:
    close = get_close_matches(label, classes, n=1)
    return f"; did you mean {close[0]}?" if close else ""


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
