"""A corpus as training uses it: the clips of each part, their annotations and their features."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import EarwitnessError, TruthError
from streamer.provenance import Source
from streamer.replay.names import MEDIA_SUFFIXES
from streamer.replay.truth import Truth, read_truth
from streamer.types import CELL, SAMPLE_RATE_HZ
from train.data import cache, dcase
from train.data.config import Part
from train.data.hashes import hashed
from train.data.summary import FILE, Summary, read_summary

_log = logging.getLogger(__name__)
_ANNOTATIONS: Mapping[Part, tuple[str, ...]] = {"unlabeled": ("unlabeled.tsv", "unlabel_in_domain.tsv")}
"""Possible annotation files of a part, if not only `<part>.tsv`: DCASE names the unlabelled one differently."""
_STRONG: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class PartData:
    """The clips of one part that are annotated (all of them, in an unlabelled part), and their features."""

    part: Part
    clips: tuple[Path, ...]
    rows: tuple[str, ...]  # each clip's name in the truth, or its file name if there is no truth
    truth: Truth | None
    features: cache.Features
    sha256: str  # of media, annotations and feature specs

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True, slots=True)
class Annotated:
    """The clips of one part that are annotated (all of them, in an unlabelled part), without features."""

    media: Mapping[Path, str]  # clip -> its media's SHA-256
    rows: Mapping[Path, str]  # clip -> its name in the truth, or its file name if there is no truth
    truth: Truth | None
    table: Path | None  # the truth's file


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder written by `earwitness-train corpus` or with the same layout, or the files of DCASE 2018 or DESED."""

    folder: Path
    summary: Summary
    partial: bool = False  # DCASE's files, of which some clips can no longer be had: what is there is used

    @classmethod
    def read(cls, folder: Path) -> Corpus:
        """The corpus in `folder`. Raises `EarwitnessError` if there is none, or it is incomplete."""
        if not (folder / FILE).exists() and dcase.is_root(folder):
            return cls(folder, dcase.summary_of(folder), partial=True)
        return cls(folder, read_summary(folder))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of a model's outputs."""
        return self.summary.classes

    def media(self, features: Path) -> dict[Path, str]:
        """All clips of all parts, with their media's SHA-256; `features` is the folder that remembers them.

        Raises:
            EarwitnessError: there are none, or one can't be read.

        """
        if self.partial:
            return hashed(dcase.media_of(self.folder), features)
        folders = sorted(path for path in (self.folder / "audio").glob("*") if path.is_dir())
        clips = [clip for folder in folders for clip in _clips_in(folder)]
        if not clips:
            raise EarwitnessError(f"{self.folder / 'audio'}: has no clips in folders named after the parts")
        return hashed(clips, features)

    def part(self, part: Part, features: Path, modalities: Sequence[str]) -> PartData:
        """A part with the features of its current clips.

        Clips without annotations and annotations without a clip are left out, with a warning that counts them.

        Raises:
            EarwitnessError: there are no clips, none of them is annotated, or features of a clip are missing.
            TruthError: the annotations can't be read, have the wrong kind for the part, or have an unknown class.

        """
        known = self.annotated(part, features)
        stored = cache.read(features, known.media, modalities)
        sha256 = _sha256(part, known.media, known.table, stored)
        data = PartData(part, tuple(known.rows), tuple(known.rows.values()), known.truth, stored, sha256)
        _check_cells(data, modalities)
        _warn_of_late_events(data)
        return data

    def annotated(self, part: Part, features: Path) -> Annotated:
        """The annotated clips of a part; `features` is the folder that remembers their hashes.

        Clips without annotations and annotations without a clip are left out, with a warning that counts them.

        Raises:
            EarwitnessError: there are no clips, or none of them is annotated.
            TruthError: the annotations can't be read, have the wrong kind for the part, or have an unknown class.

        """
        folder = self.folder if self.partial else self.folder / "audio" / part
        path, truth = self._truth(part)
        clips = dcase.media_in(folder) if self.partial else _clips_in(folder)
        if not clips:
            raise EarwitnessError(f"{folder}: has no clips ({', '.join(sorted(MEDIA_SUFFIXES))})")
        others = self.partial  # the clips of all parts are in one folder
        rows = {clip: clip.name for clip in clips} if truth is None else _matched(truth, clips, folder, others=others)
        media = hashed(rows, features)
        if self.partial:
            media = _readable(media, features, self.folder)
            rows = {clip: rows[clip] for clip in media}
        return Annotated(media, rows, truth, path)

    def sources(self) -> tuple[Source, ...]:
        """Where the training clips come from. Raises `EarwitnessError` if that is not recorded."""
        if self.partial:
            groups = self.summary.split["train"] if self.summary.split else ()
            rights = "of the videos' owners; annotations: see the dataset"
            return (Source("YouTube, DCASE 2018 task 4", rights, "train", len(groups)),)
        try:
            with (self.folder / "metadata" / "sources.tsv").open(newline="") as file:
                rows = [
                    row for row in csv.DictReader(file, delimiter="\t") if row["part"] in ("train", "weak", "unlabeled")
                ]
            recordings = {(row["source"], row["licence"], row["use"], row["group"]) for row in rows}
        except (OSError, ValueError, KeyError) as error:
            raise EarwitnessError(f"{self.folder}: is incomplete: {error}") from None
        counts = Counter((source, licence, use) for source, licence, use, _ in recordings)
        return tuple(Source(*key, count) for key, count in sorted(counts.items()))

    def _truth(self, part: Part) -> tuple[Path | None, Truth | None]:
        if self.partial:
            return self._table(part)
        names = _ANNOTATIONS.get(part, (f"{part}.tsv",))
        paths = [self.folder / "metadata" / name for name in names]
        path = next((one for one in paths if one.exists()), None)
        if path is None:
            if part == "unlabeled":  # it needs no annotations
                return None, None
            raise TruthError(f"{paths[0]}: there is no such file, so the clips in audio/{part} have no annotations")
        truth = read_truth(path, labels=part != "unlabeled")
        truth.check_classes(self.classes)
        if part in _STRONG and not truth.strong:
            raise TruthError(f"{path}: has no onsets and offsets, which the part {part} needs")
        return path, truth

    def _table(self, part: Part) -> tuple[Path, Truth]:
        table = dcase.table_of(part)
        if table is None:
            raise EarwitnessError(
                f"{self.folder}: DCASE 2018 has no strongly labelled training clips: set `batch` to weak and unlabeled "
                "clips, as configs/train/paper.yaml does"
            )
        path = dcase.path_of(self.folder, table)
        if path is None:
            stems = " or ".join(f"metadata/{stem}.tsv" for stem in table.stems)
            raise TruthError(f"{self.folder}: has no {stems}, which the part {part} needs")
        truth = read_truth(path, labels=table.labels)
        truth.check_classes(self.classes)
        if table.strong and not truth.strong:
            raise TruthError(f"{path}: has no onsets and offsets, which the part {part} needs")
        return path, truth


def _readable(media: Mapping[Path, str], features: Path, root: Path) -> dict[Path, str]:
    """The clips without those that `features` could not read, which are counted."""
    broken = cache.broken(features)
    left = {clip: sha256 for clip, sha256 in media.items() if sha256 not in broken}
    if len(left) < len(media):
        first = next(clip for clip in media if clip not in left)
        _log.warning(
            "%d of %d clips can't be read and are left out; the first is %s; `earwitness-train data check %s` says why",
            len(media) - len(left), len(media), first.name, root,
        )  # fmt: skip
    return left


def _clips_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in MEDIA_SUFFIXES)


def _matched(truth: Truth, clips: Sequence[Path], folder: Path, *, others: bool) -> dict[Path, str]:
    """The annotated clips with their names in the truth; `others`: clips of other parts are expected there too."""
    rows = truth.names_of([str(clip.absolute()) for clip in clips])
    if not rows:
        raise TruthError(
            f"{truth.source}: annotates none of the {len(clips)} clips in {folder}: its file names look like "
            f"{next(iter(truth.tags), 'none')}, those of the clips like {clips[0].name}"
        )
    if len(rows) < len(clips) and not others:
        unknown = next(clip for clip in clips if str(clip.absolute()) not in rows)
        _log.warning(
            "%d of %d clips in %s have no row in %s and are left out; the first is %s",
            len(clips) - len(rows), len(clips), folder, truth.source, unknown.name,
        )  # fmt: skip
    absent = sorted(set(truth.tags) - set(rows.values()))
    if absent:
        _log.warning(
            "%d of %d clips in %s are not in %s; the first is %s",
            len(absent), len(truth.tags), truth.source, folder, absent[0],
        )  # fmt: skip
    return {clip: rows[str(clip.absolute())] for clip in clips if str(clip.absolute()) in rows}


def _check_cells(data: PartData, modalities: Sequence[str]) -> None:
    """Warn of clips without any of the model's inputs: they do not contribute to training or detection."""
    empty = [clip for clip, cells in zip(data.clips, data.features.cells, strict=True) if cells == 0]
    what = f"{len(empty)} of {len(data)} clips in {data.clips[0].parent}"
    if len(empty) == len(data):
        raise EarwitnessError(f"{what} have no media for {', '.join(modalities)}")
    if empty:
        _log.warning("%s have no media for %s; the first is %s", what, ", ".join(modalities), empty[0].name)


def _warn_of_late_events(data: PartData) -> None:
    """Warn of events that begin after the end of their clip: they may belong to another clip."""
    if data.truth is None or not data.truth.strong:
        return
    late = [
        clip.name
        for clip, row, cells in zip(data.clips, data.rows, data.features.cells, strict=True)
        for event in data.truth.events[row]
        if event.onset_s * SAMPLE_RATE_HZ >= cells * CELL
    ]
    if late:
        _log.warning(
            "%d events in %s begin after their clip has ended; the first is in %s",
            len(late),
            data.truth.source,
            late[0],
        )


def _sha256(part: Part, media: Mapping[Path, str], truth: Path | None, stored: cache.Features) -> str:
    digest = hashlib.sha256(part.encode())
    for clip, sha256 in media.items():
        digest.update(f"{clip.name}\0{sha256}\0".encode(errors="surrogateescape"))
    digest.update(truth.read_bytes() if truth is not None else b"")
    digest.update(json.dumps(stored.specs, sort_keys=True).encode())
    if rounded := sorted(name for name, number in stored.numbers.items() if number != "float32"):
        digest.update(json.dumps(rounded).encode())
    return digest.hexdigest()
