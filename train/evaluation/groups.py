"""Which groups of recordings each clip was made of: the unit that intervals resample (`bootstrap`).

A mixed clip has a background and sounds. Its counts of a class depend on the groups of that class's sounds in it; where
the class does not sound, its false alarms come from any of the clip's sounds, which then share them equally. Whatever
sounds, the background is the second factor, and the pictures shown, if there are any, are the third, by the same rule
as the sounds. A clip of DCASE or DESED comes from one video.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import TruthError
from streamer.escapes import escaped
from streamer.replay.names import AmbiguousNameError, NameIndex
from streamer.replay.truth import lines_of, name_in
from train.data import dcase
from train.data.dataset import Corpus, PartData
from train.evaluation.bootstrap import Groups, padded

BACKGROUND = "background"
_PICTURE = "picture/"
"""Before the class of a picture, in the label of a corpus's `sources.tsv`."""
_GROUP = "group of recordings"
_COLUMNS = ("filename", "label", "group")


@dataclass(frozen=True, slots=True)
class ClipGroups:
    """The groups of clips, in their order."""

    groups: Groups  # of (clips,), or of (clips, classes)
    unit: str  # what is resampled: group of recordings, video, clip
    rows: tuple[Mapping[str, frozenset[str]], ...]  # for each clip: label or `BACKGROUND` -> groups; empty: unknown

    @property
    def units(self) -> str:
        """The same in the plural."""
        first, *rest = self.unit.split(" ")
        return " ".join([f"{first}s", *rest])

    def number(self, count: int) -> str:
        """So many of them, in words."""
        return f"{count} {self.unit if count == 1 else self.units}"

    @property
    def known(self) -> bool:
        """Whether the recordings behind the clips are known."""
        return bool(self.rows)

    def tsv(self, names: Sequence[str]) -> str:
        """The text of `groups.tsv`, for clips of these names."""
        lines = ["\t".join(_COLUMNS)]
        for name, row in zip(names, self.rows, strict=True):
            lines += [f"{escaped(name)}\t{label}\t{group}" for label, of in row.items() for group in sorted(of)]
        return "\n".join(lines) + "\n"


def of_corpus(corpus: Corpus, part: PartData, classes: Sequence[str]) -> ClipGroups:
    """The groups of a part's clips, for a model of `classes`.

    By the corpus's `sources.tsv`; else by video, if the names of all clips have one; else each clip is its own.

    Raises:
        TruthError: `sources.tsv` is damaged, or lacks a clip.

    """
    path = corpus.folder / "metadata" / "sources.tsv"
    names = [clip.name for clip in part.clips]
    if corpus.partial or not path.exists():
        return of_names(names)
    return of_table(path, names, classes, part=part.part)


def of_table(path: Path, names: Sequence[str], classes: Sequence[str], part: str | None = None) -> ClipGroups:
    """The groups of clips by a table with the columns filename, group and label, which may have others.

    Args:
        path: `sources.tsv` of a corpus, or `groups.tsv` of a report.
        names: of the clips.
        classes: of the model; all other labels are backgrounds.
        part: only the rows of this part, where the table has a column for it.

    Raises:
        TruthError: it can't be read, or has no row of a clip.

    """
    by_name = _read(path, part)
    index = NameIndex(by_name)
    rows: list[Mapping[str, frozenset[str]]] = []
    for name in names:
        try:
            found = index.find(name)
        except AmbiguousNameError as error:
            raise TruthError(f"{path}: {name} matches {error}") from None
        if found is None:
            raise TruthError(f"{path}: has no row of {name}, so the recordings behind it are unknown")
        rows.append({label: frozenset(of) for label, of in by_name[found].items()})
    if all(set(row) == {""} for row in rows):
        return _of_rows(rows, _GROUP)
    return _of_mixtures(rows, classes)


def of_names(names: Sequence[str]) -> ClipGroups:
    """The groups of clips of which nothing but the names is known: their videos, or each its own."""
    if names and all(dcase.clip_name(f"{Path(name).stem}.wav") is not None for name in names):
        videos = [dcase.video_of(f"{Path(name).stem}.wav") for name in names]
        return _of_rows([{"": frozenset({video})} for video in videos], "video")
    return ClipGroups(Groups.each_its_own(len(names)), "clip", ())


def _of_rows(rows: Sequence[Mapping[str, frozenset[str]]], unit: str) -> ClipGroups:
    return ClipGroups(Groups.by_name([row[""] for row in rows]), unit, tuple(rows))


def _of_mixtures(rows: Sequence[Mapping[str, frozenset[str]]], classes: Sequence[str]) -> ClipGroups:
    names = tuple(sorted({group for row in rows for of in row.values() for group in of}))
    number = {name: index for index, name in enumerate(names)}
    factors: tuple[list[list[int]], ...] = ([], [], [])  # sounds, backgrounds, pictures
    for row in rows:
        of_label = {label: [number[name] for name in sorted(of)] for label, of in row.items()}
        seen = {label.removeprefix(_PICTURE): of for label, of in of_label.items() if label.startswith(_PICTURE)}
        heard = {label: of for label, of in of_label.items() if label in classes}
        behind = [of for label, of in of_label.items() if label not in heard and not label.startswith(_PICTURE)]
        factors[0].extend(heard.get(label, _all(heard.values())) for label in classes)
        factors[1].extend([_all(behind)] * len(classes))
        factors[2].extend(seen.get(label, _all(seen.values())) for label in classes)
    shape = (len(rows), len(classes), -1)
    used = tuple(padded(of).reshape(shape) for place, of in enumerate(factors) if place == 0 or any(of))
    return ClipGroups(Groups(names, used), _GROUP, tuple(rows))


def _all(of: Iterable[Iterable[int]]) -> list[int]:
    return sorted({one for group in of for one in group})


def _read(path: Path, part: str | None) -> dict[str, dict[str, set[str]]]:
    """File name -> label -> groups."""
    try:
        lines = lines_of(path)
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TruthError(f"{path}: can't read the groups of recordings: {what}") from None
    header = lines[0].split("\t") if lines else []
    missing = [column for column in ("filename", "group") if column not in header]
    if missing:
        raise TruthError(f"{path}: its first line has no column {' and none '.join(missing)}, separated by tabs")
    found: dict[str, dict[str, set[str]]] = {}
    for number, line in enumerate(lines[1:], start=2):
        fields = dict(zip(header, line.split("\t"), strict=False))
        if not fields["filename"] or not fields.get("group"):
            raise TruthError(f"{path}, line {number}: has no file name or no group: {line[:80]!r}")
        if part is None or fields.get("part", part) == part:
            of_clip = found.setdefault(name_in(fields["filename"]), {})
            of_clip.setdefault(fields.get("label", ""), set()).add(fields["group"])
    return found
