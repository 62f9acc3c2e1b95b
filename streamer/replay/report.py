"""Writes the files of `earwitness replay --report`, clip by clip."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streamer.errors import UsageError
from streamer.replay.clips import Clip
from streamer.replay.counts import counts_tsv
from streamer.replay.journal import Asked, BrokenEntry, ClipEntry, End, Journal, kept, write_all
from streamer.replay.scoring import F1_EXPLAINED, ClipCounts, Report
from streamer.replay.truth import STRONG_HEADER, WEAK_HEADER, strong_rows, strong_tsv, weak_row, weak_tsv
from streamer.types import CELL, SAMPLE_RATE_HZ, Floats

JOURNAL, EVENTS, TAGS, SUMMARY, TEXT, COUNTS, SCORES = (
    "clips.jsonl",
    "events.tsv",
    "tags.tsv",
    "scores.json",
    "report.md",
    "counts.tsv",
    "scores.npz",
)
FILES = (JOURNAL, EVENTS, TAGS, SUMMARY, TEXT, COUNTS, SCORES)
"""The files of a report; a new report replaces those of an old one."""
_CELLS = "scores.part"
"""Folder of the clips' scores, until they are collected in one file."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """`scores.json`: the figures of one replay."""

    command: str
    bundle: str
    bundle_sha256: str = ""  # `Bundle.fingerprint`; "" in reports of version 0.1
    mode: str
    truth: str | None
    complete: bool = True  # False: it was interrupted, and some clips are missing
    clips: int
    seconds: float
    events: int
    coverage: float | None  # share of the cells for which the model had media
    broken: tuple[str, ...]  # a line for each clip that could not be replayed
    notes: dict[str, tuple[str, ...]] = {}  # clip -> what was not heard of it
    scores: dict[str, Any] | None  # `Report.json`
    tags: dict[str, dict[str, float]]  # clip -> class -> score of its tag


@dataclass(frozen=True, slots=True)
class Asking:
    """The options of the replay, for its report."""

    command: str
    bundle: str
    bundle_sha256: str
    mode: str
    audio_track: str  # as on the command line; empty: the best one
    channel: str
    preset: str  # of a live stream's windows; empty: whole clips
    classes: tuple[str, ...]
    truth: str | None
    scores: bool  # whether the scores of every cell are written


class ReportFolder:
    """A report in progress: as soon as a clip is done, its events, tags and scores are in the folder.

    `clips.jsonl`, `events.tsv` and `tags.tsv` grow clip by clip; `scores.json`, `report.md`, with a truth `counts.tsv`
    and, if asked for, `scores.npz` are written at the end, or when the replay is interrupted. The files of an older
    report are removed.
    """

    def __init__(self, folder: Path, asking: Asking, clips: Sequence[Clip], *, resume: bool) -> None:
        """Begin the report, or resume one.

        Raises:
            UsageError: the folder can't be created or written; it holds an unfinished report or, with `resume`, one
                of another model or mode.

        """
        self._folder, self._asking, self._clips = folder, asking, clips
        asked = Asked(
            model=asking.bundle,
            model_sha256=asking.bundle_sha256,
            mode=asking.mode,
            audio_track=asking.audio_track,
            channel=asking.channel,
            preset=asking.preset,
            scores=asking.scores,
        )
        with _explained(folder, "can't create the folder"):
            folder.mkdir(parents=True, exist_ok=True)
        with _explained(folder, "can't write"):
            self._journal = Journal(folder / JOURNAL, asked)
            try:
                self.kept = self._begin(resume)
                """The clips that a resumed report already has, by name."""
            except BaseException:
                self._journal.close()
                raise
        self._done = len(self.kept)

    def add(self, entry: ClipEntry, scores: Floats) -> None:
        """Write the results of a clip. Raises `UsageError` if they can't be written."""
        with _explained(self._folder, "can't write", self._done):
            if self._asking.scores:
                with self._cells_of(entry).open("wb") as file:
                    np.lib.format.write_array(file, scores, allow_pickle=False)
            self._append(EVENTS, strong_rows(entry.clip_name, entry.labelled))
            self._append(TAGS, weak_row(entry.clip_name, entry.tags))
            self._journal.add(entry)
        self._done += 1

    def add_broken(self, entry: BrokenEntry) -> None:
        """Record that a clip could not be replayed. Raises `UsageError` if that can't be written."""
        with _explained(self._folder, "can't write", self._done):
            self._journal.add(entry)

    def finish(
        self,
        entries: Sequence[ClipEntry],
        broken: Sequence[BrokenEntry],
        counts: ClipCounts | None,
        *,
        complete: bool,
    ) -> None:
        """Write the figures; `complete` unless the replay was interrupted. Raises `UsageError`."""
        report = None if counts is None else counts.report()
        order = {clip.name: place for place, clip in enumerate(self._clips)}
        entries = sorted(entries, key=lambda entry: order[entry.clip_name])
        summary = _summary(self._asking, entries, broken, report, complete=complete)
        with _explained(self._folder, "can't write", len(entries)):
            # Written again as a whole: an interrupt may have come between two files of a clip.
            _replace(self._folder / EVENTS, strong_tsv({one.clip_name: one.labelled for one in entries}))
            _replace(self._folder / TAGS, weak_tsv({one.clip_name: one.tags for one in entries}))
            _replace(
                self._folder / SUMMARY, msgspec.json.format(msgspec.json.encode(summary), indent=1).decode() + "\n"
            )
            _replace(self._folder / TEXT, _markdown(summary, report, len(self._clips)))
            if counts is not None:
                _replace(self._folder / COUNTS, counts_tsv(counts))
            if self._asking.scores:
                self._write_scores(entries)
            if complete:
                self._journal.add(End())
                shutil.rmtree(self._folder / _CELLS, ignore_errors=True)

    def close(self) -> None:
        """Unlock the folder."""
        self._journal.close()

    def _begin(self, resume: bool) -> dict[str, ClipEntry]:
        before = self._journal.entries
        found = len(before)
        keep: dict[str, ClipEntry] = {}
        if found and not self._journal.finished and not resume:
            raise UsageError(
                f"--report {self._folder}: holds a replay that was interrupted after {found} clips; resume it with "
                "--resume, name another folder, or delete this one"
            )
        if self._journal.finished and resume:
            raise UsageError(f"--report {self._folder}: is complete; omit --resume to replay the clips again")
        if found and resume:
            difference = self._journal.difference()
            if difference:
                raise UsageError(f"--report {self._folder}: can't be resumed: {difference}")
            keep = kept(before, self._clips)
            if self._asking.scores:
                keep = {name: one for name, one in keep.items() if self._cells_of(one).exists()}
        self._journal.begin(list(keep.values()))
        for name in set(FILES) - {JOURNAL}:
            (self._folder / name).unlink(missing_ok=True)
        if not keep:
            shutil.rmtree(self._folder / _CELLS, ignore_errors=True)
        if self._asking.scores:
            (self._folder / _CELLS).mkdir(exist_ok=True)
        self._append(EVENTS, "\t".join(STRONG_HEADER) + "\n")
        self._append(TAGS, "\t".join(WEAK_HEADER) + "\n")
        for entry in keep.values():
            self._append(EVENTS, strong_rows(entry.clip_name, entry.labelled))
            self._append(TAGS, weak_row(entry.clip_name, entry.tags))
        return keep

    def _append(self, name: str, text: str) -> None:
        file = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            write_all(file, text.encode())
        finally:
            os.close(file)

    def _cells_of(self, entry: ClipEntry) -> Path:
        return self._folder / _CELLS / f"{hashlib.sha256(entry.name.encode()).hexdigest()[:32]}.npy"

    def _write_scores(self, entries: Sequence[ClipEntry]) -> None:
        """Like `np.savez_compressed`, but one array at a time in memory, and with any array names."""
        part = self._folder / f"{SCORES}.part"
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("classes.npy", "w") as file:
                np.lib.format.write_array(file, np.array(self._asking.classes), allow_pickle=False)
            for entry in entries:
                archive.write(self._cells_of(entry), f"{entry.name}.npy")
        os.replace(part, self._folder / SCORES)


@contextmanager
def _explained(folder: Path, what: str, done: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        so_far = f" after {done} clips, whose results are kept" if done else ""
        raise UsageError(f"--report {folder}: {what}{so_far}: {error.strerror or error}") from None


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _summary(
    asking: Asking,
    entries: Sequence[ClipEntry],
    broken: Sequence[BrokenEntry],
    report: Report | None,
    *,
    complete: bool,
) -> Summary:
    cells = sum(entry.cells for entry in entries)
    return Summary(
        command=asking.command,
        bundle=asking.bundle,
        bundle_sha256=asking.bundle_sha256,
        mode=asking.mode,
        truth=asking.truth,
        complete=complete,
        clips=len(entries),
        seconds=round(sum(entry.seconds for entry in entries), 3),
        events=sum(len(entry.events) for entry in entries),
        coverage=sum(entry.covered for entry in entries) / cells if cells else None,
        broken=tuple(one.error for one in broken),
        notes={entry.name: entry.notes for entry in entries if entry.notes},
        scores=report.json() if report else None,
        tags={
            entry.name: {label: round(score, 6) for label, score in zip(asking.classes, entry.tag_scores, strict=True)}
            for entry in entries
        },
    )


def _markdown(summary: Summary, report: Report | None, asked: int) -> str:
    lines = [
        "# Replay",
        "",
        f"- command: `{summary.command}`",
        f"- model: {summary.bundle}, mode: {summary.mode}",
        f"- {summary.clips} clips, {summary.seconds:.1f} s, {summary.events} events",
    ]
    if not summary.complete:
        lines.append(
            f"- **interrupted**: {asked - summary.clips} of {asked} clips are missing; `--resume` replays them"
        )
    if summary.broken:
        lines += [f"- {len(summary.broken)} clips could not be replayed and do not count in any figure:"]
        lines += [f"  - {line}" for line in summary.broken]
    if summary.notes:
        lines += [f"- notes on {len(summary.notes)} clips:"]
        lines += [f"  - {name}: {'; '.join(notes)}" for name, notes in summary.notes.items()]
    if report:
        lines += [
            "",
            f"F1 in percent against {summary.truth}. {F1_EXPLAINED}",
            "",
            report.table(),
            "",
            f"{report.subset()}.",
            "",
            f"The three figures that Boes & Van hamme (2021) give: {report.paper()}.",
        ]
    lines += ["", f"A cell of `{SCORES}` is {CELL / SAMPLE_RATE_HZ * 1000:.2f} ms.", ""]
    return "\n".join(lines)
