"""The pictures that corpora show: photos and real clips, from a manifest or from a folder for each class."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tqdm import tqdm

from streamer.errors import EarwitnessError
from train.data.hashes import media_sha256
from train.data.recordings import Kind, Recording, read_manifest
from train.film.gallery import open_clip, open_photo
from train.workers import pool

_log = logging.getLogger(__name__)
_SUFFIXES: Mapping[str, Kind] = {
    **dict.fromkeys((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"), "image"),
    **dict.fromkeys((".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm"), "video"),
}
_OWN = "own"
"""`use` of the pictures of a folder without a manifest."""
_UNKNOWN = "not stated"


@dataclass(frozen=True, slots=True)
class PicturePool:
    """The pictures of one part of the split."""

    classes: Mapping[str, Sequence[Sequence[Recording]]]  # class -> groups -> pictures; a class without is not in it
    unrelated: Sequence[Sequence[Recording]]  # groups -> pictures of none of the classes


def read_pictures(
    folders: Sequence[Path], classes: Sequence[str], uses: Iterable[str], leave_out: Sequence[str]
) -> list[Recording]:
    """The pictures of `folders`, each identical file once.

    A folder has a `manifest.tsv`, whose rows of the kinds image and video are taken; or one folder for each class, and
    any others for unrelated pictures. There, a photo is a group of its own, named by its content, so that it stays in
    its part if it is renamed; pictures in a further subfolder (of one scene or one camera) are one group.

    Raises:
        EarwitnessError: a folder can't be read or has no pictures.

    """
    found: list[Recording] = []
    for folder in folders:
        if (folder / "manifest.tsv").exists():
            rows = read_manifest(folder, uses, ("image", "video"))
            doubtful = [one for one in rows if any(text in one.note for text in leave_out)]
            if doubtful:
                _log.info("%s: %d pictures are left out because of their notes", folder, len(doubtful))
            found += [one for one in rows if one not in doubtful]
        else:
            found += _in_folders(folder, classes)
    if not found:
        raise EarwitnessError(
            f"{', '.join(map(str, folders))}: no pictures: a manifest.tsv needs rows of the kind image or video; or "
            "name a folder that has one folder of pictures for each class (--pictures); or leave out `video`"
        )
    return _each_once(found)


def check_pictures(pictures: Sequence[Recording], workers: int) -> None:
    """Decode each picture once, so that a damaged one is found before hours of mixing.

    Raises:
        EarwitnessError: a picture can't be decoded.

    """
    with pool(workers) as processes, tqdm(total=len(pictures), desc="checking pictures", unit="picture") as bar:
        for _ in processes.map(_check, pictures, chunksize=8):
            bar.update()


def pool_of(pictures: Sequence[Recording], classes: Sequence[str]) -> PicturePool:
    """Pictures are drawn by class, then by group, then within it."""
    groups: dict[str, dict[str, list[Recording]]] = {}
    for picture in pictures:
        label = picture.label if picture.label in classes else ""
        groups.setdefault(label, {}).setdefault(picture.group, []).append(picture)
    seen = {label: list(of.values()) for label, of in groups.items()}
    return PicturePool({label: of for label, of in seen.items() if label}, seen.get("", []))


@lru_cache(None)
def _sha256(path: Path) -> str:
    """Large folders are read once."""
    return media_sha256(path)


def _check(picture: Recording) -> None:
    if picture.kind == "image":
        open_photo(picture.path)
    else:
        open_clip(picture.path, pictures=1)


def _in_folders(folder: Path, classes: Sequence[str]) -> list[Recording]:
    try:
        labelled = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise EarwitnessError(f"{folder}: can't be read: {error.strerror}") from None
    found: list[Recording] = []
    strange: Counter[str] = Counter()
    for label in labelled:
        meant = next((one for one in classes if one.lower() == label.name.lower() != one), None)
        if meant is not None and meant != label.name:
            raise EarwitnessError(f"{label}: is not the name of a class: rename the folder to {meant}")
        for path in sorted(path for path in label.rglob("*") if path.is_file() and not path.name.startswith(".")):
            kind = _SUFFIXES.get(path.suffix.lower())
            if kind is None:
                strange[path.suffix.lower() or path.name] += 1
                continue
            scene = path.relative_to(label).parent
            group = f"photo:{_sha256(path)[:16]}" if scene == Path() else f"{folder.name}:{label.name}/{scene}"
            found.append(Recording(path, label.name, group, _OWN, _UNKNOWN, folder.name, "", kind))
    if strange:
        shown = ", ".join(f"{suffix} ({count})" for suffix, count in sorted(strange.items()))
        _log.warning("%s: files that are no pictures are left out: %s", folder, shown)
    others = [label.name for label in labelled if label.name not in classes]
    if others:
        _log.info("%s: unrelated pictures are those of %s", folder, ", ".join(others))
    return found


def _each_once(pictures: Sequence[Recording]) -> list[Recording]:
    """Without files that are identical to an earlier one: one photo under two names could be in two parts."""
    kept: dict[str, Recording] = {}
    for picture in pictures:
        first = kept.setdefault(_sha256(picture.path), picture)
        if first is not picture:
            _log.warning("%s: is the same picture as %s and is left out", picture.path, first.path)
    return list(kept.values())
