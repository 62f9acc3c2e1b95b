"""Writes a corpus's metadata: DCASE's annotation files, where each sound and picture is from, and what is seen."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from train.data.config import GROUP_PARTS, Part
from train.data.mixing import Label
from train.data.recordings import Recording
from train.film.plan import Film

_Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """What is in a clip that was written."""

    name: str
    labels: tuple[Label, ...]
    background: Recording
    film: Film | None  # None: the corpus has no video


def write_tables(folder: Path, clips: Mapping[Part, Sequence[Made]]) -> None:
    """Write the metadata of a corpus's parts into `folder`, which is created."""
    folder.mkdir()
    for part in GROUP_PARTS:
        _write(folder / f"{part}.tsv", ("filename", "onset", "offset", "event_label"), _strong_rows(clips[part]))
    weak = ((clip.name, ",".join(sorted({one.label for one in clip.labels}))) for clip in clips["weak"])
    _write(folder / "weak.tsv", ("filename", "event_labels"), weak)
    _write(folder / "unlabeled.tsv", ("filename",), ((clip.name,) for clip in clips["unlabeled"]))
    sources = (
        (part, clip.name, label, one.group, one.use, one.licence, one.source)
        for part in clips
        for clip in clips[part]
        for label, one in [*_heard(clip), *_seen(clip)]
    )
    _write(folder / "sources.tsv", ("part", "filename", "label", "group", "use", "licence", "source"), sources)
    if any(clip.film is not None for of in clips.values() for clip in of):
        columns = ("part", "filename", "condition", "since", "fps", "width", "height", "infrared")
        _write(folder / "video.tsv", columns, _video_rows(clips))
        shown = ("part", "filename", "onset", "offset", "role", "seen", "group")
        _write(folder / "seen.tsv", (*shown, "event_label", "event_onset", "event_offset"), _seen_rows(clips))


def _strong_rows(clips: Sequence[Made]) -> Iterator[_Row]:
    for clip in clips:
        if not clip.labels:
            yield clip.name, "", "", ""  # a clip without events is annotated too
        for one in clip.labels:
            yield clip.name, f"{one.onset_s:.3f}", f"{one.offset_s:.3f}", one.label


def _heard(clip: Made) -> list[tuple[str, Recording]]:
    return [("background", clip.background), *((one.label, one.recording) for one in clip.labels)]


def _seen(clip: Made) -> list[tuple[str, Recording]]:
    shots = clip.film.shots() if clip.film is not None else []
    return [(f"picture/{one.picture.label}", one.picture) for one in shots if one.picture is not None]


def _video_rows(clips: Mapping[Part, Sequence[Made]]) -> Iterator[_Row]:
    for part, clip, film in _films(clips):
        form = film.camera.format
        track = (str(form.fps), str(form.width), str(form.height), "yes" if film.camera.infrared else "no")
        since = "" if film.condition == "ok" else f"{film.condition_s:.3f}"
        yield part, clip.name, film.condition, since, *(track if film.condition != "missing" else ("",) * 4)


def _seen_rows(clips: Mapping[Part, Sequence[Made]]) -> Iterator[_Row]:
    for part, clip, film in _films(clips):
        for sight in film.sights:
            shot, heard = sight.shot, sight.heard
            event = (heard.label, f"{heard.onset_s:.3f}", f"{heard.offset_s:.3f}") if heard is not None else ("",) * 3
            if shot is None:
                yield part, clip.name, "", "", sight.role, "", "", *event
                continue
            what = ("room", "") if shot.picture is None else (shot.picture.label, shot.picture.group)
            yield part, clip.name, f"{shot.onset_s:.3f}", f"{shot.offset_s:.3f}", sight.role, *what, *event


def _films(clips: Mapping[Part, Sequence[Made]]) -> Iterator[tuple[Part, Made, Film]]:
    return ((part, clip, clip.film) for part in clips for clip in clips[part] if clip.film is not None)


def _write(path: Path, header: _Row, rows: Iterable[_Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
