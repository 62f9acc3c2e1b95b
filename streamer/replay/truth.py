"""Truth files in DCASE's form: what is annotated, clip by clip.

A truth file is tab-separated with a header: `filename onset offset event_label` (strong; a row with
nothing behind the file name is a clip without events) or `filename event_labels` (weak; labels
separated by commas). Clips are known by the last part of their path.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath

from streamer.errors import TruthError
from streamer.timeline import seconds
from streamer.types import Offset

STRONG_HEADER = ("filename", "onset", "offset", "event_label")
WEAK_HEADER = ("filename", "event_labels")


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
