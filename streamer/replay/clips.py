"""Which clips a command line names: files, folders, and listings of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamer.errors import UsageError
from streamer.replay.replayer import clip_name

# fmt: off
_AUDIO = (
    ".aac", ".ac3", ".aif", ".aiff", ".amr", ".caf", ".flac", ".m4a", ".mka", ".mp2", ".mp3", ".oga", ".ogg", ".opus",
    ".wav", ".wma",
)
_VIDEO = (
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm",
    ".wmv",
)
# fmt: on
MEDIA_SUFFIXES = frozenset(_AUDIO + _VIDEO)
"""What counts as a clip inside a folder; a file that is named itself may end in anything."""
LISTING_SUFFIXES = frozenset((".tsv", ".csv", ".txt"))


def clips_of(arguments: Sequence[str]) -> list[str]:
    """The clips that `arguments` name, in their order; a folder's by name, each path once.

    A listing is a text file with a clip at the beginning of each line, as truth files are: what follows
    a tab and a header `filename` are passed over. Its paths are relative to its folder.

    Raises:
        UsageError: a folder or listing names no clip, or two clips have the same file name.

    """
    clips: dict[str, None] = {}
    for argument in arguments:
        path = Path(argument)
        if "://" not in argument and path.is_dir():
            found = [str(inner) for inner in sorted(path.rglob("*")) if inner.suffix.lower() in MEDIA_SUFFIXES]
            if not found:
                raise UsageError(
                    f"{argument}: the folder holds no clips; they would end in .wav, .flac, .mp4 or the like"
                )
        elif path.suffix.lower() in LISTING_SUFFIXES and path.is_file():
            found = _listed(path)
        else:
            found = [argument]
        clips.update(dict.fromkeys(found))
    _check_names(clips)
    return list(clips)


def _listed(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UsageError(
            f"{path}: can't be read as a listing of clips, UTF-8 text with one at the start of each line"
        ) from None
    names = dict.fromkeys(line.partition("\t")[0].strip() for line in lines)
    clips = [str(path.parent / name) for name in names if name and name != "filename"]
    if not clips:
        raise UsageError(f"{path}: the listing names no clips")
    if not any(Path(clip).is_file() for clip in clips):
        raise UsageError(f"{path}: neither a clip nor a listing of clips; there is no {clips[0][:200]}")
    return clips


def _check_names(clips: dict[str, None]) -> None:
    seen: dict[str, str] = {}
    for clip in clips:
        other = seen.setdefault(clip_name(clip), clip)
        if other != clip:
            raise UsageError(
                f"{other} and {clip} have the same file name, which is all that results tell: replay them apart"
            )
