"""Truth files in DCASE's format: the annotations of clips.

A truth file is tab-separated with a header: `filename onset offset event_label` (strong; a row with only a file name is
a clip without events) or `filename event_labels` (weak; labels are separated by commas). File names are escaped by
`streamer.escapes`. A name may have folders in front; it then matches only the clip in these folders.
"""

from __future__ import annotations

import hashlib
import math
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from streamer.errors import TruthError
from streamer.escapes import escaped, unescaped
from streamer.replay.names import AmbiguousNameError, NameIndex
from streamer.timeline import seconds
from streamer.types import Offset

STRONG_HEADER = ("filename", "onset", "offset", "event_label")
WEAK_HEADER = ("filename", "event_labels")
UNLABELLED_HEADER = ("filename",)


@dataclass(frozen=True, slots=True)
class LabelledEvent:
    """An annotated event, in seconds from the clip's start."""

    onset_s: float
    offset_s: float
    label: str


@dataclass(frozen=True, slots=True)
class Truth:
    """The annotations of all clips in the file, including those without events."""

    source: str  # the file, for messages
    events: Mapping[str, tuple[LabelledEvent, ...]]  # file name -> events; empty for a weak truth
    tags: Mapping[str, frozenset[str]]  # file name -> classes
    strong: bool
    _names: NameIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the names."""
        object.__setattr__(self, "_names", NameIndex(self.tags))

    def name_of(self, clip: str) -> str | None:
        """The file name in the truth that matches `clip`; None if none does.

        This is the only rule that matches media with annotations, everywhere:

        1. the name with which the clip's path ends, the longest if there are several: `001.wav` is meant by
           a clip of any folder, `kitchen/001.wav` only by the one in a folder `kitchen`;
        2. else the same with media suffixes left out of both: a picture and sound `001.mp4` is annotated by
           the row of its `001.wav`, and `Y<id>_30.000_40.000.wav` by a row `Y<id>_30.000_40.000`, whose digits
           are no suffix.

        Args:
            clip: a path or URL; an absolute path where folders should count.

        Raises:
            TruthError: several names match equally well, as `x.wav` and `x.flac` do for `x.mp4`.

        """
        try:
            return self._names.find(clip)
        except AmbiguousNameError as error:
            raise TruthError(
                f"{self.source}: {clip} matches {error}; give its name there with the right suffix"
            ) from None

    def names_of(self, clips: Sequence[str]) -> dict[str, str]:
        """The truth's name for each of `clips` that it has (`name_of`).

        Raises:
            TruthError: a clip matches several names, or two clips match one name.

        """
        found = {clip: name for clip in clips if (name := self.name_of(clip)) is not None}
        clip_of: dict[str, str] = {}
        for clip, name in found.items():
            other = clip_of.setdefault(name, clip)
            if other != clip:
                raise TruthError(
                    f"{self.source}: {other} and {clip} both match {name}; leave one out, or add as many folders to "
                    "the names in the file as tell them apart"
                )
        return found

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise `TruthError` if a label is not one of `classes`."""
        for name, labels in self.tags.items():
            for label in sorted(labels - set(classes)):
                raise TruthError(
                    f"{self.source}: class '{label}' of {name} is not one of the model's: {', '.join(classes)}"
                    f"{nearest(label, classes)}"
                )

    def subset_sha256(self, names: Iterable[str]) -> str:
        """The hash of these clips' annotations: the same for everybody who has the same clips and annotations."""
        rows = (
            strong_rows(name, sorted(self.events[name], key=lambda one: (one.onset_s, one.offset_s, one.label)))
            if self.strong
            else weak_row(name, self.tags[name])
            for name in sorted(names)
        )
        return hashlib.sha256("".join(rows).encode(errors="surrogateescape")).hexdigest()


def labelled(events: Iterable[Offset]) -> tuple[LabelledEvent, ...]:
    """Events as annotations, sorted by onset."""
    found = (LabelledEvent(seconds(event.onset), seconds(event.offset), event.label) for event in events)
    return tuple(sorted(found, key=lambda event: (event.onset_s, event.label)))


@dataclass(frozen=True, slots=True)
class TruthRow:
    """One row of a truth file."""

    line: int
    name: str
    event: LabelledEvent | None  # of a strong truth; None: a clip without events
    labels: frozenset[str]


@dataclass(frozen=True, slots=True)
class RowFault:
    """A row that can't be read, and why."""

    line: int
    kind: str  # fields, times, label
    what: str


@dataclass(frozen=True, slots=True)
class TruthTable:
    """A truth file row by row; unlike `read_truth`, it goes on after a row that can't be read."""

    header: tuple[str, ...]
    rows: tuple[TruthRow | RowFault, ...]


def read_truth(path: Path, *, labels: bool = True) -> Truth:
    """Read a truth file, strong or weak; without `labels`, one with only the column `filename` is accepted too.

    Raises:
        TruthError: it can't be read; the error names the line.

    """
    table = read_table(path)
    if labels and table.header == UNLABELLED_HEADER:
        raise TruthError(f"{path}: lists clips, but has no annotations")
    events: dict[str, list[LabelledEvent]] = {}
    tags: dict[str, set[str]] = {}
    for row in table.rows:
        if isinstance(row, RowFault):
            raise TruthError(f"{path}, line {row.line}: {row.what}")
        tags.setdefault(row.name, set()).update(row.labels)
        if table.header == STRONG_HEADER:
            events.setdefault(row.name, []).extend([row.event] if row.event else [])
    return Truth(
        source=str(path),
        events={name: tuple(row) for name, row in events.items()},
        tags={name: frozenset(labels) for name, labels in tags.items()},
        strong=table.header == STRONG_HEADER,
    )


def read_table(path: Path) -> TruthTable:
    """Read every row of a truth file, strong, weak or unlabelled.

    Raises:
        TruthError: it is not a truth file.

    """
    try:
        lines = lines_of(path)
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TruthError(f"{path}: can't read the truth: {what}") from None
    header = tuple(field.strip() for field in lines[0].split("\t")) if lines else ()
    if header not in (STRONG_HEADER, WEAK_HEADER, UNLABELLED_HEADER):
        raise TruthError(
            f"{path}: the first line must be the tab-separated header '{' '.join(STRONG_HEADER)}' "
            f"or '{' '.join(WEAK_HEADER)}', not {lines[0][:80] if lines else ''!r}"
        )
    return TruthTable(
        header, tuple(_row(number, line, header) for number, line in enumerate(lines[1:], start=2) if line.strip())
    )


def _row(number: int, line: str, header: tuple[str, ...]) -> TruthRow | RowFault:
    first, *rest = line.split("\t")
    fields = [name_in(first), *(field.strip() for field in rest)]
    fields += [""] * (len(header) - len(fields))
    name = fields[0]
    if not name or len(fields) > len(header):
        return RowFault(
            number, "fields", f"expected {len(header)} tab-separated fields, a file name first, not {line[:80]!r}"
        )
    if header == UNLABELLED_HEADER:
        return TruthRow(number, name, None, frozenset())
    if header == WEAK_HEADER:
        labels = frozenset(label.strip() for label in fields[1].split(",") if label.strip())
        return TruthRow(number, name, None, labels)
    if not any(fields[1:]):
        return TruthRow(number, name, None, frozenset())
    event = _event(fields)
    if isinstance(event, LabelledEvent):
        return TruthRow(number, name, event, frozenset((event.label,)))
    return RowFault(number, *event)


def lines_of(path: Path) -> list[str]:
    """The lines of a table in UTF-8; names that are not UTF-8 come out as the file system gives them.

    A table that was made from a folder's listing has its names byte for byte, in any encoding. Only its first line must
    be UTF-8, which shows that the file is text.

    Raises:
        OSError: it can't be read.
        UnicodeDecodeError: its first line is not UTF-8 text.

    """
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    lines[0].decode()
    if lines[-1] == b"":
        lines.pop()
    return [line.decode(errors="surrogateescape") for line in lines]


def name_in(text: str) -> str:
    """A file name as the file system has it, without the quotes that spreadsheets and csv modules add."""
    text = text.strip(" ")
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('""', '"')
    if not text or "://" in text:  # normalising would remove one of a URL's slashes
        return text
    return posixpath.normpath(unescaped(text))


def strong_tsv(events: Mapping[str, Sequence[LabelledEvent]]) -> str:
    """The text of a strong truth file; `events` by file name."""
    return "\t".join(STRONG_HEADER) + "\n" + "".join(strong_rows(name, row) for name, row in events.items())


def strong_rows(name: str, events: Sequence[LabelledEvent]) -> str:
    """A clip's rows of a strong truth file; a clip without events has one row with only its name."""
    shown = escaped(name)
    rows = [f"{shown}\t{event.onset_s:.3f}\t{event.offset_s:.3f}\t{event.label}\n" for event in events]
    return "".join(rows) or f"{shown}\t\t\t\n"


def weak_tsv(tags: Mapping[str, Iterable[str]]) -> str:
    """The text of a weak truth file; `tags` by file name."""
    return "\t".join(WEAK_HEADER) + "\n" + "".join(weak_row(name, labels) for name, labels in tags.items())


def weak_row(name: str, labels: Iterable[str]) -> str:
    """A clip's row of a weak truth file."""
    return f"{escaped(name)}\t{','.join(sorted(labels))}\n"


def _event(fields: Sequence[str]) -> LabelledEvent | tuple[str, str]:
    """The event of a row, or the kind of fault and what is wrong."""
    try:
        onset_s, offset_s = float(fields[1]), float(fields[2])
    except ValueError:
        return "times", f"onset and offset must be seconds, not {fields[1]!r} and {fields[2]!r}"
    if not 0 <= onset_s < offset_s < math.inf:
        return "times", f"an event must have 0 <= onset < offset, not {fields[1]} and {fields[2]}"
    if not fields[3]:
        return "label", "the event has no event_label"
    return LabelledEvent(onset_s, offset_s, fields[3])


def nearest(label: str, classes: Sequence[str]) -> str:
    """A hint at the class that a misspelt label may mean, or nothing."""
    close = get_close_matches(label, classes, n=1)
    return f"; did you mean {close[0]}?" if close else ""
