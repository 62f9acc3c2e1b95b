"""`earwitness-train data check`: reads every row and every clip of DCASE's files, and says what is wrong and where."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from streamer.errors import EarwitnessError, TruthError
from streamer.replay.names import MEDIA_SUFFIXES, NameIndex
from streamer.replay.truth import (
    STRONG_HEADER,
    UNLABELLED_HEADER,
    WEAK_HEADER,
    LabelledEvent,
    RowFault,
    Truth,
    TruthRow,
    nearest,
    read_table,
)
from train.data import dcase
from train.data.config import CLASSES
from train.data.dcase import TABLES, Table
from train.data.probe import Probe, probe
from train.workers import pool

_SHORT_S = 0.5
"""A clip may be shorter than its name says by this much: videos are cut at their own pictures."""
WHAT_TO_DO: Mapping[str, str] = {
    "table": "copy the file again from the dataset",
    "fields": "write the row as the header says, with tabs between the fields",
    "name": "write the name as the dataset does: Y<11 characters>_<start>_<end>.wav",
    "times": "correct onset and offset, in seconds, or remove the row",
    "label": "correct the class, or remove the row",
    "duplicate": "remove one of the rows",
    "beyond": "correct onset and offset: the clip has ended before",
    "two parts": "remove the clip from one of the parts: no model may be scored on what it learned from",
    "missing": "download it; everything runs without it, and scores say on how many clips they are",
    "two files": "leave one of the files out",
    "unfinished": "finish the download, or give the file the suffix of its format",
    "empty": "download it again",
    "unreadable": "download it again; it is left out",
    "no sound": "download it again with its sound; it counts as silence",
    "silent": "listen to it, and download it again if it should sound",
    "no picture": "download the video if pictures are wanted; without it they are masked",
    "too short": "nothing, if the video ends there; else download it again: it is used as it is",
    "late event": "download it again: it ends before the event begins, so it may be another recording",
}
"""Kind of finding -> what to do about it. These are all kinds."""
HARMLESS = frozenset(("missing", "no sound", "silent", "no picture", "too short"))
"""Kinds that training and evaluation live with."""
_UNUSED = frozenset(("empty", "unreadable", "two files"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where it is, and what to do."""

    kind: str
    file: str  # relative to the root
    line: int  # 0: it is about the whole file
    what: str

    def __str__(self) -> str:
        """One line."""
        where = f"{self.file}, line {self.line}" if self.line else self.file
        return f"{where}: {self.kind}: {self.what}; {WHAT_TO_DO[self.kind]}"


@dataclass(frozen=True, slots=True)
class TableReport:
    """One annotation file and its clips."""

    table: Table
    file: str  # relative to the root; "": it is not there
    rows: int
    clips: int
    without_events: int
    usable: int  # clips whose media is there and can be read
    pictures: int  # of these, with pictures
    subset_sha256: str  # of the usable clips, as every score on them has it


@dataclass(frozen=True, slots=True)
class Check:
    """What `check` found."""

    tables: tuple[TableReport, ...]
    findings: tuple[Finding, ...]
    media: int  # files
    unmatched: int  # of these, those that no row means

    @property
    def well(self) -> bool:
        """Whether there are clips, and nothing is wrong but what training and evaluation live with."""
        return any(one.usable for one in self.tables) and all(one.kind in HARMLESS for one in self.findings)

    def counts(self) -> dict[str, int]:
        """Kind -> number of findings, in the order of `WHAT_TO_DO`."""
        counted = Counter(one.kind for one in self.findings)
        return {kind: counted[kind] for kind in WHAT_TO_DO if counted[kind]}


@dataclass(slots=True)
class _Read:
    """An annotation file as read: its good rows, and the line of each clip's first row."""

    table: Table
    file: str
    truth: Truth
    rows: int
    lines: dict[str, int]
    events: list[tuple[int, str, LabelledEvent]]


def check(root: Path, workers: int, *, rows_only: bool = False) -> Check:
    """Read all annotation files under `root`, and all media that their rows mean.

    Args:
        root: see `train.data.dcase`.
        workers: processes that decode media.
        rows_only: do not open media; only look whether they are there.

    Raises:
        EarwitnessError: `root` has none of the annotation files.

    """
    if not dcase.is_root(root):
        stems = ", ".join(f"metadata/{stem}.tsv" for table in TABLES for stem in table.stems)
        raise EarwitnessError(f"{root}: has none of the annotation files of DCASE 2018 or DESED: {stems} (or .csv)")
    findings: list[Finding] = []
    tables = [_read(root, table, findings) for table in TABLES]
    there = [one for one in tables if one is not None]
    _find_two_parts(there, findings)
    files = dcase.files_in(root)
    media = [path for path in files if path.suffix.lower() in MEDIA_SUFFIXES]
    found = _find_media(root, there, media, findings)
    _find_unfinished(root, there, found, files, findings)
    wanted = sorted({path for path in found.values() if path is not None})
    probes = {path: Probe(picture=True) for path in wanted} if rows_only else _probe(wanted, workers)
    unusable = {
        path
        for path in wanted
        if not rows_only and _judge_media(str(path.relative_to(root)), path, probes[path], findings)
    }
    reports = []
    for table in TABLES:
        one = next((read for read in there if read.table is table), None)
        if one is None:
            reports.append(TableReport(table, "", 0, 0, 0, 0, 0, ""))
            continue
        clips = {name: path for name in one.truth.tags if (path := found.get(name)) is not None}
        if not rows_only:
            _judge_clips(root, one, clips, probes, unusable, findings)
        usable = {name: path for name, path in clips.items() if path not in unusable}
        reports.append(
            TableReport(
                table,
                one.file,
                one.rows,
                len(one.truth.tags),
                sum(not labels for labels in one.truth.tags.values()) if table.labels else 0,
                len(usable),
                sum(probes[path].picture for path in usable.values()),
                one.truth.subset_sha256(usable) if usable else "",
            )
        )
    order = list(WHAT_TO_DO)
    findings.sort(key=lambda one: (order.index(one.kind), one.file, one.line))
    return Check(tuple(reports), tuple(findings), len(media), len(media) - len(wanted))


def _read(root: Path, table: Table, findings: list[Finding]) -> _Read | None:
    path = dcase.path_of(root, table)
    if path is None:
        return None
    file = str(path.relative_to(root))
    try:
        read = read_table(path)
        wanted = (
            (STRONG_HEADER,) if table.strong else (WEAK_HEADER,) if table.labels else (UNLABELLED_HEADER, WEAK_HEADER)
        )
        if read.header not in wanted:
            raise TruthError(f"the first line is '{' '.join(read.header)}', must be '{' '.join(wanted[0])}'")
    except TruthError as error:
        findings.append(Finding("table", file, 1, str(error)))
        return None
    lines: dict[str, int] = {}
    tags: dict[str, set[str]] = {}
    events: dict[str, list[LabelledEvent]] = defaultdict(list)
    listed: list[tuple[int, str, LabelledEvent]] = []
    for row in read.rows:
        faults = list(_faults(row, table, lines, events))
        findings += [Finding(kind, file, row.line, what) for kind, what in faults]
        if isinstance(row, RowFault) or any(kind != "duplicate" for kind, _ in faults):
            continue
        lines.setdefault(row.name, row.line)
        tags.setdefault(row.name, set()).update(row.labels)
        if row.event is not None and not faults:
            events[row.name].append(row.event)
            listed.append((row.line, row.name, row.event))
    truth = Truth(
        str(path),
        {name: tuple(events[name]) for name in tags} if table.strong else {},
        {name: frozenset(labels) for name, labels in tags.items()},
        table.strong,
    )
    return _Read(table, file, truth, len(read.rows), lines, listed)


def _faults(
    row: TruthRow | RowFault, table: Table, lines: Mapping[str, int], events: Mapping[str, Sequence[LabelledEvent]]
) -> Iterator[tuple[str, str]]:
    """The kind of each fault of a row, and what is wrong; `lines` and `events` are those of the rows before."""
    if isinstance(row, RowFault):
        yield row.kind, row.what
        return
    name = dcase.clip_name(row.name)
    if name is None:
        yield "name", f"{row.name!r:.80} is not the name of a clip"
    if table.strong and row.event is None and row.name in lines:
        yield "duplicate", f"{row.name} has events in line {lines[row.name]}, and none here"
    elif not table.strong and row.name in lines:
        yield "duplicate", f"{row.name} is in line {lines[row.name]} already"
    elif row.event is not None and row.event in events.get(row.name, ()):
        yield "duplicate", f"the same event of {row.name} is there already"
    if table.labels and not table.strong and not row.labels:
        yield "label", f"{row.name} has no class"
    for label in sorted(row.labels - set(CLASSES)):
        yield "label", f"{label!r:.60} is not one of the ten classes{nearest(label, CLASSES)}"
    if name is not None and row.event is not None and row.event.onset_s >= name.end_s - name.start_s:
        length_s = name.end_s - name.start_s
        yield "beyond", f"the event begins at {row.event.onset_s:g} s of a clip of {length_s:g} s"


def _find_two_parts(tables: Sequence[_Read], findings: list[Finding]) -> None:
    first: dict[str, _Read] = {}
    for one in tables:
        if one.table.part is None and one.table.name == "validation":
            continue  # it repeats test and eval
        for name, line in one.lines.items():
            other = first.setdefault(name, one)
            if other is not one:
                what = f"{name} is also in {other.file}, line {other.lines[name]}"
                findings.append(Finding("two parts", one.file, line, what))


def _find_media(
    root: Path, tables: Sequence[_Read], media: Sequence[Path], findings: list[Finding]
) -> dict[str, Path | None]:
    """The file of each name that has media; None if several are meant."""
    found: dict[str, Path | None] = {}
    for one in tables:
        meant: dict[str, list[Path]] = defaultdict(list)
        for path in media:
            try:
                name = one.truth.name_of(str(path.absolute()))
            except TruthError as error:
                findings.append(Finding("two files", str(path.relative_to(root)), 0, str(error)))
                continue
            if name is not None:
                meant[name].append(path)
        for name, line in one.lines.items():
            paths = meant.get(name, [])
            if not paths:
                findings.append(Finding("missing", one.file, line, f"there is no media of {name}"))
            elif len(paths) > 1:
                both = " and ".join(str(path.relative_to(root)) for path in paths)
                findings.append(Finding("two files", one.file, line, f"{name} is meant by {both}"))
            if paths:
                found[name] = paths[0] if len(paths) == 1 else None
    return found


def _find_unfinished(
    root: Path,
    tables: Sequence[_Read],
    found: Mapping[str, Path | None],
    files: Iterable[Path],
    findings: list[Finding],
) -> None:
    """Files of clips without media whose ending no media has: `.mp4.part`, `.ytdl`, `.bin`, or none."""
    missing = NameIndex(name for one in tables for name in one.lines if name not in found)
    for path in files:
        if path.suffix.lower() in MEDIA_SUFFIXES:
            continue
        stem, name = path, missing.find(path.name)
        while name is None and stem.suffix and not stem.suffix[1].isdigit():  # `_40.000` has no suffix
            stem = stem.with_suffix("")
            name = missing.find(stem.name)
        if name is not None:
            what = f"is named like {name}, but is no finished media"
            findings.append(Finding("unfinished", str(path.relative_to(root)), 0, what))


def _probe(paths: Sequence[Path], workers: int) -> dict[Path, Probe]:
    if not paths:
        return {}
    with pool(min(workers, len(paths))) as processes:
        made = processes.map(probe, paths, chunksize=max(1, min(16, len(paths) // workers)))
        return dict(zip(paths, tqdm(made, total=len(paths), desc="checking", unit="clip"), strict=True))


def _judge_media(file: str, path: Path, one: Probe, findings: list[Finding]) -> bool:
    """Add the findings about a file; True if it can't be used."""
    if path.stat().st_size == 0:
        findings.append(Finding("empty", file, 0, "the file has no bytes"))
        return True
    if one.fault:
        findings.append(Finding("unreadable", file, 0, one.fault))
        return True
    if not one.sound:
        findings.append(Finding("no sound", file, 0, "it has no sound"))
    elif not one.audible:
        findings.append(Finding("silent", file, 0, "all of its sound is digital silence"))
    if not one.picture:
        findings.append(Finding("no picture", file, 0, "it has no pictures"))
    return False


def _judge_clips(
    root: Path,
    one: _Read,
    clips: Mapping[str, Path],
    probes: Mapping[Path, Probe],
    unusable: set[Path],
    findings: list[Finding],
) -> None:
    """Add what a table's rows and their clips contradict each other in."""
    heard = {name: probes[path] for name, path in clips.items() if path not in unusable and probes[path].sound}
    for name, found in heard.items():
        said = dcase.clip_name(name)
        if said is not None and found.duration_s < said.end_s - said.start_s - _SHORT_S:
            what = f"{clips[name].relative_to(root)} has {found.duration_s:.1f} s"
            what += f", its name says {said.end_s - said.start_s:g} s"
            findings.append(Finding("too short", one.file, one.lines[name], what))
    for line, name, event in one.events:
        if name in heard and event.onset_s >= heard[name].duration_s:
            what = f"the event begins at {event.onset_s:g} s, {clips[name].relative_to(root)} ends at"
            findings.append(Finding("late event", one.file, line, f"{what} {heard[name].duration_s:.1f} s"))
