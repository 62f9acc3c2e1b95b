"""Finds the clips that a command line names: files, folders, and listings of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.address import HIDDEN, Address
from streamer.errors import UsageError
from streamer.replay.names import MEDIA_SUFFIXES, AmbiguousNameError, absolute, distinct_names
from streamer.replay.truth import lines_of, name_in

LISTING_SUFFIXES = frozenset((".tsv", ".csv", ".txt"))
_TAKEN = ("classes",)
"""Names that no clip may have: `scores.npz` has its classes under this one."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording to replay."""

    path: str  # as it was named, or a URL
    name: str  # in results: the last part of its path, with as many folders as make it unique


def clips_of(arguments: Sequence[str]) -> list[Clip]:
    """The clips that `arguments` name, in their order, each once; a folder's clips are sorted by name.

    In a folder only files with a media suffix are clips; a file that is named itself may have any suffix. A listing is
    a text file with a clip at the start of each line, like a truth file: a header `filename`, and whatever follows a
    tab, are skipped. Its paths are relative to its folder, and it may name URLs.

    Raises:
        UsageError: a folder or listing names no clip, or two clips would have the same name in results.

    """
    clips: dict[str, str] = {}  # absolute path -> as named
    for argument in arguments:
        path = Path(argument)
        if "://" not in argument and path.is_dir():
            found = [str(inner) for inner in sorted(path.rglob("*")) if inner.suffix.lower() in MEDIA_SUFFIXES]
            if not found:
                raise UsageError(
                    f"{argument}: no clips in this folder; they must have a media suffix: .wav, .flac, .mp4, ..."
                )
        elif path.suffix.lower() in LISTING_SUFFIXES and path.is_file():
            found = _listed(path)
        else:
            found = [argument]
        for clip in found:
            clips.setdefault(absolute(clip), clip)
    try:
        names = distinct_names(clips, _TAKEN)
    except AmbiguousNameError as error:
        alike = " and ".join(Address.parse(name).shown for name in error.names)
        raise UsageError(f"{alike} would have the same name in results; replay them separately") from None
    return [Clip(clip, _fit_to_show(clip, names[path])) for path, clip in clips.items()]


def _fit_to_show(clip: str, name: str) -> str:
    """The clip's name in results. What is not on disk may be a URL without its scheme, with a password."""
    shown = Address.parse(clip).shown
    return name if shown == clip or "://" in clip or Path(clip).exists() else shown


def _listed(path: Path) -> list[str]:
    try:
        lines = lines_of(path)
    except (OSError, UnicodeDecodeError):
        raise UsageError(
            f"{path}: can't be read as a listing of clips: UTF-8 text with a clip at the start of each line"
        ) from None
    names = dict.fromkeys(name_in(line.partition("\t")[0]) for line in lines)
    clips = [_beside(path, name) for name in names if name and name != "filename"]
    if not clips:
        raise UsageError(f"{path}: the listing names no clips")
    if not any(Address.parse(clip).scheme or Path(clip).is_file() for clip in clips):
        first = Address.parse(clips[0]).shown[:200]
        raise UsageError(f"{path}: neither a clip nor a listing of clips; there is no {first}")
    return clips


def _beside(listing: Path, name: str) -> str:
    """The path of a listing's clip. A URL, or what looks like a damaged one, gets no folder in front: its secrets would
    be taken for file names.
    """
    path = listing.parent / name
    is_url = bool(Address.parse(name).scheme) or (HIDDEN in Address.parse(name).shown and not path.exists())
    return name if is_url else str(path)
