"""Matches clips with the names in an annotation file, and names clips in results."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from streamer.address import HIDDEN, Address

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
"""Suffixes of media files, in lower case. Any other ending belongs to the name: `Y<id>_30.000_40.000` has no suffix."""


class AmbiguousNameError(Exception):
    """Several names match one clip equally well, or several clips one name."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(" and ".join(names))
        self.names = tuple(names)


class NameIndex:
    """Finds the name that matches a clip, among names that may have folders and another media suffix.

    A name matches a clip whose path ends with it: `001.wav` matches in any folder, `kitchen/001.wav` only in a folder
    `kitchen`. The longest match wins. If nothing matches, both are compared without media suffixes: the video `001.mp4`
    is then matched by `001.wav` or `001`.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._exact: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self._stems: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name in dict.fromkeys(names):
            parts = parts_of(name)
            self._exact[parts].append(name)
            self._stems[_without_suffix(parts)].append(name)

    def find(self, clip: str) -> str | None:
        """The name that matches `clip` (a path, a URL, or another name); None if none does.

        Raises:
            AmbiguousNameError: several match equally well (`x.wav` and `x.flac` for `x.mp4`).

        """
        parts = parts_of(clip)
        for index, wanted in ((self._exact, parts), (self._stems, _without_suffix(parts))):
            for first in range(len(wanted)):
                found = index.get(wanted[first:], ())
                if len(found) > 1:
                    raise AmbiguousNameError(found)
                if found:
                    return found[0]
        return None


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a path or URL for comparison, in NFC: without `.`, leading `..`, scheme and query.

    macOS writes `é` as two characters, other systems as one; in NFC it is one.
    """
    _, scheme, rest = name.partition("://")
    path = posixpath.normpath(rest.partition("?")[0] if scheme else name)
    parts = path.replace("//", "/").split("/")  # POSIX keeps two leading slashes
    while parts and parts[0] in ("..", "."):
        parts.pop(0)
    return tuple(unicodedata.normalize("NFC", part) for part in parts)


def distinct_names(paths: Collection[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Each path's name in results: its last part, with as many folders in front as make it unique.

    A URL's name is its last part alone: what precedes it may be secret.

    Args:
        paths: absolute, normalised paths, or URLs, without duplicates.
        taken: names that no path may have.

    Raises:
        AmbiguousNameError: two would have the same name, such as URLs with the same last part.

    """
    parts = {path: _telling(path) for path in paths}
    names: dict[str, str] = {}
    unnamed = list(paths)
    length = 0
    while unnamed:
        length += 1
        alike: dict[str, list[str]] = defaultdict(list)
        for path in unnamed:
            alike["/".join(parts[path][-length:])].append(path)
        unnamed = []
        for name, same in alike.items():
            if len(same) == 1 and name not in taken:
                names[same[0]] = name
            elif all(len(parts[path]) <= length for path in same):
                raise AmbiguousNameError(same)
            else:
                unnamed += same
    return {path: names[path] for path in paths}


def absolute(clip: str) -> str:
    """A clip's absolute path, without `.` and `..`; a URL is returned unchanged."""
    return clip if "://" in clip else os.path.abspath(clip)


def _telling(path: str) -> list[str]:
    _, scheme, _ = path.partition("://")
    if not scheme:
        return [part for part in path.split("/") if part]
    address = Address.parse(path)
    place = address.shown.partition("://")[2].partition("?")[0].partition("#")[0]
    parts = [part for part in place.split("/")[1:] if part]
    return parts[-1:] if parts and HIDDEN not in parts[-1] else [address.host or HIDDEN]


def _without_suffix(parts: tuple[str, ...]) -> tuple[str, ...]:
    if not parts:
        return parts
    stem, suffix = os.path.splitext(parts[-1])
    return (*parts[:-1], stem) if suffix.lower() in MEDIA_SUFFIXES else parts
