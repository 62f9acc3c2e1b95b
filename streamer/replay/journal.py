"""The journal of a replay, one line per clip, so that an interrupted replay loses nothing.

`clips.jsonl` begins with the replay's options, has a line for each clip as soon as it is done, and ends with a line
that says that all are. A replay that was interrupted or killed is resumed from it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from streamer.errors import UsageError
from streamer.escapes import escaped, unescaped
from streamer.replay.clips import Clip
from streamer.replay.names import absolute
from streamer.replay.replayer import ClipResult
from streamer.replay.truth import LabelledEvent

VERSION = 1


class Asked(msgspec.Struct, frozen=True, tag="replay", kw_only=True):
    """The first line: everything that the results depend on, except the clips."""

    version: int = VERSION
    model: str
    model_sha256: str  # `Bundle.fingerprint`
    mode: str
    audio_track: str = ""  # as on the command line; empty: the best one
    channel: str = "mix"
    preset: str = ""  # of a live stream's windows; empty: whole clips, or a version that had none
    scores: bool  # whether the scores of every cell are kept


class EventEntry(msgspec.Struct, frozen=True):
    """One event, in seconds from the clip's beginning."""

    onset_s: float
    offset_s: float
    label: str


class ClipEntry(msgspec.Struct, frozen=True, tag="clip", kw_only=True):
    """What was found in one clip."""

    name: str  # escaped by `streamer.escapes`
    file: str  # its absolute path, also escaped; "" for a URL or a pipe
    bytes: int  # of the file; -1 for a URL or a pipe
    modified_s: float  # Unix seconds
    seconds: float
    cells: int
    covered: int  # cells for which the model had media
    events: tuple[EventEntry, ...]
    tags: tuple[str, ...]
    tag_scores: tuple[float, ...]
    notes: tuple[str, ...] = ()  # what was not heard of it

    @property
    def labelled(self) -> tuple[LabelledEvent, ...]:
        """The events as annotations."""
        return tuple(LabelledEvent(one.onset_s, one.offset_s, one.label) for one in self.events)

    @property
    def clip_name(self) -> str:
        """The name as the file system has it."""
        return unescaped(self.name)


class BrokenEntry(msgspec.Struct, frozen=True, tag="broken"):
    """A clip that could not be replayed, and why."""

    name: str
    error: str


class End(msgspec.Struct, frozen=True, tag="end"):
    """The last line: all clips are done."""


Line: TypeAlias = Asked | ClipEntry | BrokenEntry | End
_lines = msgspec.json.Decoder(Line)


def entry_of(clip: Clip, result: ClipResult) -> ClipEntry:
    """The journal's line for a clip's result."""
    file, size, modified_s = _identity(clip)
    return ClipEntry(
        name=escaped(clip.name),
        file=file,
        bytes=size,
        modified_s=modified_s,
        seconds=result.duration_s,
        cells=result.coverage.cells,
        covered=result.coverage.covered,
        events=tuple(EventEntry(one.onset_s, one.offset_s, one.label) for one in result.events),
        tags=tuple(sorted(result.tags)),
        tag_scores=tuple(float(score) for score in result.tag_scores),
        notes=result.notes,
    )


class Journal:
    """The file `clips.jsonl`. One replay writes it at a time: it is locked until `close`."""

    def __init__(self, path: Path, asked: Asked) -> None:
        """Open or create the file, and read it.

        Raises:
            OSError: it can't be written.
            UsageError: another replay is writing it.

        """
        self._asked = asked
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise UsageError(
                f"{path.parent}: another replay is writing its report there; name another folder"
            ) from None
        self._lines = _read(path)

    @property
    def finished(self) -> bool:
        """Whether the file holds a complete replay."""
        return bool(self._lines) and isinstance(self._lines[-1], End)

    @property
    def entries(self) -> list[ClipEntry]:
        """The clips in the file."""
        return [line for line in self._lines if isinstance(line, ClipEntry)]

    def difference(self) -> str:
        """How the options of the replay in the file differ from this replay's, in words; empty if they don't."""
        before = self._lines[0] if self._lines else None
        if not isinstance(before, Asked):
            return "its clips.jsonl was not written by this version"
        for field in Asked.__struct_fields__:
            was, now = getattr(before, field), getattr(self._asked, field)
            if was != now:
                options = {"scores", "mode", "audio_track", "channel", "preset"}
                what = f"--{field.replace('_', '-')}" if field in options else field
                return f"its {what} is {was if was != '' else 'not recorded'}, not {now}"
        return ""

    def begin(self, keep: Sequence[ClipEntry]) -> None:
        """Start the file over with only these clips. Raises `OSError`."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.add(self._asked)
        for line in keep:
            self.add(line)

    def add(self, line: Line) -> None:
        """Write a line. Raises `OSError`."""
        write_all(self._file, msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Close and unlock the file."""
        os.close(self._file)


def kept(entries: Sequence[ClipEntry], clips: Sequence[Clip]) -> dict[str, ClipEntry]:
    """Those of `entries` that are still valid, by clip name: the same file, unchanged, under the same name."""
    by_name = {entry.name: entry for entry in entries}
    found: dict[str, ClipEntry] = {}
    for clip in clips:
        entry = by_name.get(escaped(clip.name))
        if entry is not None and entry.bytes >= 0 and (entry.file, entry.bytes, entry.modified_s) == _identity(clip):
            found[clip.name] = entry
    return found


def write_all(file: int, data: bytes) -> None:
    """Write all of `data` now. Raises `OSError`, e.g. as soon as the disk is full."""
    while data:
        data = data[os.write(file, data) :]


def _identity(clip: Clip) -> tuple[str, int, float]:
    try:
        status = None if "://" in clip.path else os.stat(clip.path)
    except OSError:
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        return "", -1, 0.0  # a URL may contain secrets; and its content, or a pipe's, can't be compared
    return escaped(absolute(clip.path)), status.st_size, status.st_mtime


def _read(path: Path) -> list[Line]:
    """The lines up to the first incomplete one, which was being written when the replay was killed."""
    lines: list[Line] = []
    for text in path.read_bytes().split(b"\n")[:-1]:
        try:
            lines.append(_lines.decode(text))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            break
    return lines
