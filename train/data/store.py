"""One modality's features on disk: clips are appended as they are computed.

```
FEATURES/<modality>/store.json     how cells are computed: the extractor's spec with its weights' SHA-256, our version
FEATURES/<modality>/clips.jsonl    one line per clip, by its media's SHA-256, appended after its cells
FEATURES/<modality>/values.f32     (cells of all clips, ...) float32, memory-mapped when read
FEATURES/<modality>/valid.u8       (cells of all clips,) bool
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from streamer.errors import EarwitnessError
from streamer.features.base import FEATURES_VERSION
from streamer.types import Bools, Floats

_STORE, _CLIPS, _VALUES, _VALID = "store.json", "clips.jsonl", "values.f32", "valid.u8"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything except the media that decides the values of a modality's cells."""

    version: int
    spec: dict[str, Any]
    shape: tuple[int, ...]
    pictures_alone: bool  # it uses no audio


class Entry(msgspec.Struct, frozen=True):
    """A clip's cells in a store."""

    sha256: str
    start: int
    cells: int
    picture_cells: int


@dataclass(frozen=True, slots=True)
class Stored:
    """One modality's store, opened for reading."""

    key: Key
    entries: Mapping[str, Entry]  # media's SHA-256 -> its cells
    values: Floats
    valid: Bools


class Writer:
    """One modality's store, opened for appending. A partial clip of a killed run is cut off."""

    def __init__(self, folder: Path, key: Key) -> None:
        folder.mkdir(exist_ok=True)
        path = folder / _STORE
        if path.exists():
            _check_key(folder, key, _read_key(folder))
        else:
            part = path.with_name(path.name + ".part")
            part.write_bytes(msgspec.json.format(msgspec.json.encode(key), indent=1) + b"\n")
            part.replace(path)
        entries, length = _read_entries(folder)
        self.known = set(entries)
        self._cells = max((one.start + one.cells for one in entries.values()), default=0)
        row = 4 * int(np.prod(key.shape))
        self._clips = _append_to(folder / _CLIPS, length)
        self._values = _append_to(folder / _VALUES, self._cells * row)
        self._valid = _append_to(folder / _VALID, self._cells)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in (self._values, self._valid, self._clips):
            file.close()

    def add(self, sha256: str, values: Floats, valid: Bools, picture_cells: int) -> None:
        """Store a clip's cells. Its line is written last, so that every line refers to stored cells."""
        self._values.write(values.tobytes())
        self._valid.write(valid.tobytes())
        self._values.flush()
        self._valid.flush()
        entry = Entry(sha256, self._cells, len(valid), picture_cells)
        self._clips.write(msgspec.json.encode(entry) + b"\n")
        self._clips.flush()
        self._cells += len(valid)
        self.known.add(sha256)


def _append_to(path: Path, length: int) -> BinaryIO:
    file = path.open("ab")
    if file.tell() < length:
        raise EarwitnessError(f"{path}: is shorter than {_CLIPS} requires: delete {path.parent}")
    if file.tell() > length:
        file.truncate(length)
    return file


def read_store(folder: Path, name: str) -> Stored:
    """The stored features of the modality `name`.

    Raises:
        EarwitnessError: there are none, they are damaged, or another version wrote them.

    """
    if not (folder / _STORE).exists():
        raise EarwitnessError(f"{folder.parent}: has no features of {name}: run `earwitness-train features` first")
    key = _read_key(folder)
    if key.version != FEATURES_VERSION:
        raise EarwitnessError(
            f"{folder}: was made by version {key.version} of the extractors, this is {FEATURES_VERSION}: delete it and "
            "run `earwitness-train features` again"
        )
    entries, _ = _read_entries(folder)
    cells = max((one.start + one.cells for one in entries.values()), default=0)
    try:
        shape = (cells, *key.shape)
        empty = cells == 0  # an empty file can't be memory-mapped
        values = np.zeros(shape, np.float32) if empty else np.memmap(folder / _VALUES, np.float32, "r", shape=shape)
        valid = np.fromfile(folder / _VALID, np.bool_, cells)
        if len(valid) < cells:
            raise ValueError(f"{_VALID} is too short")
    except (OSError, ValueError) as error:
        raise EarwitnessError(f"{folder}: is damaged: {error}: delete it") from None
    return Stored(key, entries, values, valid)


def _read_key(folder: Path) -> Key:
    try:
        return msgspec.json.decode((folder / _STORE).read_bytes(), type=Key)
    except (OSError, msgspec.MsgspecError) as error:
        raise EarwitnessError(f"{folder / _STORE}: can't be read: {error}: delete {folder}") from None


def _read_entries(folder: Path) -> tuple[dict[str, Entry], int]:
    """The clips by their SHA-256, and the length of all complete lines: a killed run may leave a partial one."""
    try:
        data = (folder / _CLIPS).read_bytes() if (folder / _CLIPS).exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        entries = [msgspec.json.decode(line, type=Entry) for line in whole.splitlines()]
    except (OSError, msgspec.MsgspecError) as error:
        raise EarwitnessError(f"{folder / _CLIPS}: is damaged: {error}: delete {folder}") from None
    return {one.sha256: one for one in entries}, len(whole)


def _check_key(folder: Path, wanted: Key, found: Key) -> None:
    if found == wanted:
        return
    if found.version != wanted.version:
        what = f"were made by version {found.version} of the extractors, this is {wanted.version}"
    else:
        fields = {field for field in (*found.spec, *wanted.spec) if found.spec.get(field) != wanted.spec.get(field)}
        what = f"have {shown(found.spec, sorted(fields))}, not {shown(wanted.spec, sorted(fields))}"
    raise EarwitnessError(f"{folder}: its features {what}: name another folder, or delete this one")


def shown(spec: Mapping[str, Any], fields: Sequence[str]) -> str:
    """These fields of a spec, for an error."""
    return ", ".join(f"{field}={json.dumps(spec.get(field))[:24]}" for field in fields)
