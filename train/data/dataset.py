"""A corpus as training sees it: each part's clips, what is annotated of them, and their features."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import EarwitnessError, TruthError
from streamer.replay.names import MEDIA_SUFFIXES
from streamer.replay.truth import Truth, read_truth
from streamer.types import CELL, SAMPLE_RATE_HZ
from train.config import Part
from train.data import cache
from train.data.summary import Summary, read_summary

_log = logging.getLogger(__name__)
_ANNOTATIONS: Mapping[Part, tuple[str, ...]] = {"unlabeled": ("unlabeled.tsv", "unlabel_in_domain.tsv")}
"""The files of a part in `metadata`, where there is more than `<part>.tsv`: DCASE's name for the unlabelled one."""
_STRONG: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class PartData:
    """The clips of one part that are annotated (all of them, in an unlabelled part), and their features."""

    part: Part
    clips: tuple[Path, ...]
    rows: tuple[str, ...]  # each clip's name in the truth; its file name where there is none
    truth: Truth | None
    features: cache.Features
    sha256: str  # of all that is in here: media, annotations, what makes the features

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of `earwitness-train corpus`, or one of the same form."""

    folder: Path
    summary: Summary

    @classmethod
    def read(cls, folder: Path) -> Corpus:
        """The corpus in `folder`. Raises `EarwitnessError` if it is none, or not whole."""
        return cls(folder, read_summary(folder))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of a model's outputs."""
        return self.summary.classes

    def media(self) -> dict[Path, str]:
        """All clips of all parts, with their media's SHA-256.

        Raises:
            EarwitnessError: there are none, or one can't be read.

        """
        folders = sorted(path for path in (self.folder / "audio").glob("*") if path.is_dir())
        clips = [clip for folder in folders for clip in _clips_in(folder)]
        if not clips:
            raise EarwitnessError(f"{self.folder / 'audio'}: has no clips in folders of the parts' names")
        return {clip: cache.media_sha256(clip) for clip in clips}

    def part(self, part: Part, features: Path, modalities: Sequence[str]) -> PartData:
        """A part with the features of its clips, as they are now.

        Clips without annotation are left out, and annotations without a clip passed over, with a counted warning.

        Raises:
            EarwitnessError: there are no clips, no annotation is of any of them, or features of a clip are missing.
            TruthError: the annotations can't be read, are not of the part's kind, or have an unknown class.

        """
        folder = self.folder / "audio" / part
        clips = _clips_in(folder)
        if not clips:
            raise EarwitnessError(f"{folder}: has no clips ({', '.join(sorted(MEDIA_SUFFIXES))})")
        path, truth = self._truth(part)
        rows = {clip: clip.name for clip in clips} if truth is None else _matched(truth, clips, folder)
        media = {clip: cache.media_sha256(clip) for clip in rows}
        stored = cache.read(features, media, modalities)
        data = PartData(
            part, tuple(rows), tuple(rows.values()), truth, stored, _sha256(part, media, path, stored.specs)
        )
        _check_cells(data, modalities)
        _warn_of_late_events(data)
        return data

    def _truth(self, part: Part) -> tuple[Path | None, Truth | None]:
        names = _ANNOTATIONS.get(part, (f"{part}.tsv",))
        paths = [self.folder / "metadata" / name for name in names]
        path = next((one for one in paths if one.exists()), None)
        if path is None:
            if part == "unlabeled":  # its clips are all that there is to know
                return None, None
            raise TruthError(f"{paths[0]}: there is no such file, so nothing is known of the clips in audio/{part}")
        truth = read_truth(path, labels=part != "unlabeled")
        truth.check_classes(self.classes)
        if part in _STRONG and not truth.strong:
            raise TruthError(f"{path}: has no onsets and offsets, which the part {part} needs")
        return path, truth


def _clips_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in MEDIA_SUFFIXES)


def _matched(truth: Truth, clips: Sequence[Path], folder: Path) -> dict[Path, str]:
    """The annotated clips with their names in the truth."""
    rows = truth.names_of([str(clip.absolute()) for clip in clips])
    if not rows:
        raise TruthError(
            f"{truth.source}: speaks of none of the {len(clips)} clips in {folder}: its file names are like "
            f"{next(iter(truth.tags), 'none')}, the clips' like {clips[0].name}"
        )
    if len(rows) < len(clips):
        unknown = next(clip for clip in clips if str(clip.absolute()) not in rows)
        _log.warning(
            "%d of %d clips in %s have no row in %s and are left out, %s the first",
            len(clips) - len(rows), len(clips), folder, truth.source, unknown.name,
        )  # fmt: skip
    absent = sorted(set(truth.tags) - set(rows.values()))
    if absent:
        _log.warning(
            "%d of %d clips in %s are not in %s, %s the first",
            len(absent), len(truth.tags), truth.source, folder, absent[0],
        )  # fmt: skip
    return {clip: rows[str(clip.absolute())] for clip in clips if str(clip.absolute()) in rows}


def _check_cells(data: PartData, modalities: Sequence[str]) -> None:
    """Clips with nothing of what the model takes teach nothing, and a model finds nothing in them."""
    empty = [clip for clip, cells in zip(data.clips, data.features.cells, strict=True) if cells == 0]
    what = f"{len(empty)} of {len(data)} clips in {data.clips[0].parent}"
    if len(empty) == len(data):
        raise EarwitnessError(f"{what} hold nothing that {', '.join(modalities)} could be made of")
    if empty:
        _log.warning(
            "%s hold nothing that %s could be made of, %s the first", what, ", ".join(modalities), empty[0].name
        )


def _warn_of_late_events(data: PartData) -> None:
    """Events that begin when their clip has ended may be another clip's."""
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
            "%d events in %s begin when their clip has ended, one of %s the first",
            len(late),
            data.truth.source,
            late[0],
        )


def _sha256(
    part: Part, media: Mapping[Path, str], truth: Path | None, specs: Mapping[str, Mapping[str, object]]
) -> str:
    digest = hashlib.sha256(part.encode())
    for clip, sha256 in media.items():
        digest.update(f"{clip.name}\0{sha256}\0".encode(errors="surrogateescape"))
    digest.update(truth.read_bytes() if truth is not None else b"")
    digest.update(json.dumps(specs, sort_keys=True).encode())
    return digest.hexdigest()
