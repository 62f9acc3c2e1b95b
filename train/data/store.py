"""One modality's features on disk: clips are appended as they are computed.

```
FEATURES/<modality>/store.json     how cells are computed: the extractor's spec with its weights' SHA-256, our version,
                                   and the type of the stored numbers
FEATURES/<modality>/clips.jsonl    one line per clip, by its media's SHA-256, appended after its cells
FEATURES/<modality>/values.f16     (cells of all clips, ...) float16, memory-mapped when read
FEATURES/<modality>/valid.u8       (cells of all clips,) bool
```

float16 rounds by at most 1 in 2048. On 150 mixed clips the shipped model's log-mel values moved by at most 0.001 and
its posteriors by at most 0.0006; standardised values of mn04 and EfficientNet-Lite0 move by at most 0.012. Versions up
to 0.3 wrote float32, in `values.f32` and without a type in `store.json`: such a store is read, and extended, as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from streamer.errors import EarwitnessError
from streamer.features.base import FEATURES_VERSION
from streamer.types import Bools, Floats

_STORE, _CLIPS, _VALID = "store.json", "clips.jsonl", "valid.u8"
Number: TypeAlias = Literal["float16", "float32"]
"""The type of the stored numbers."""
_VALUES: Mapping[Number, str] = {"float16": "values.f16", "float32": "values.f32"}
Numbers: TypeAlias = NDArray[np.float16] | Floats


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything except the media that decides the values of a modality's cells."""

    version: int
    spec: dict[str, Any]
    shape: tuple[int, ...]
    pictures_alone: bool  # it uses no audio
    number: Number = "float32"  # as versions up to 0.3 wrote them, which did not say so

    @property
    def cell_bytes(self) -> int:
        """Size of one cell on disk."""
        return np.dtype(self.number).itemsize * int(np.prod(self.shape)) + 1  # and whether it is valid


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
    values: Numbers
    valid: Bools


def narrowed(values: Floats, number: Number) -> Numbers:
    """Values as they are stored.

    Raises:
        ValueError: one is not finite, or too large.

    """
    stored = torch.from_numpy(values).to(getattr(torch, number))  # numpy takes twenty times as long
    if not stored.isfinite().all():
        raise ValueError(f"values up to {np.abs(values).max():.3g} can't be stored as {number}")
    made: Numbers = stored.numpy()
    return made


def widened(stored: Numbers, into: Floats) -> None:
    """Write stored values into an array of their shape."""
    torch.from_numpy(into).copy_(torch.from_numpy(stored))  # numpy takes twenty times as long


def number_of(folder: Path, new: Number) -> Number:
    """The type of the numbers in a store, or `new` if there is none. Raises `EarwitnessError` if it is damaged."""
    return _read_key(folder).number if (folder / _STORE).exists() else new


def known(folder: Path, key: Key) -> frozenset[str]:
    """The SHA-256 of the clips in a store, which need not exist yet.

    Raises:
        EarwitnessError: it has another key, or is damaged.

    """
    if not (folder / _STORE).exists():
        return frozenset()
    _check_key(folder, key, _read_key(folder))
    return frozenset(_read_entries(folder)[0])


class Writer:
    """One modality's store, opened for appending. A partial clip of a killed run is cut off."""

    def __init__(self, folder: Path, key: Key) -> None:
        """A new store gets `key`; raises `EarwitnessError` if the one that is there has another."""
        folder.mkdir(exist_ok=True)
        path = folder / _STORE
        if path.exists():
            _check_key(folder, key, _read_key(folder))
        else:
            part = path.with_name(path.name + ".part")
            part.write_bytes(msgspec.json.format(msgspec.json.encode(key), indent=1) + b"\n")
            part.replace(path)
        entries, length = _read_entries(folder)
        self._cells = max((one.start + one.cells for one in entries.values()), default=0)
        self._clips = _append_to(folder / _CLIPS, length)
        self._values = _append_to(folder / _VALUES[key.number], self._cells * (key.cell_bytes - 1))
        self._valid = _append_to(folder / _VALID, self._cells)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in (self._values, self._valid, self._clips):
            file.close()

    def add(self, sha256: str, values: Numbers, valid: Bools, picture_cells: int) -> None:
        """Store a clip's `narrowed` cells. Its line is written last, so that every line refers to stored cells."""
        self._values.write(values.data)
        self._valid.write(valid.data)
        self._values.flush()
        self._valid.flush()
        entry = Entry(sha256, self._cells, len(valid), picture_cells)
        self._clips.write(msgspec.json.encode(entry) + b"\n")
        self._clips.flush()
        self._cells += len(valid)


def _append_to(path: Path, length: int) -> BinaryIO:
    file = path.open("ab")
    if file.tell() < length:
        raise EarwitnessError(f"{path}: is shorter than {_CLIPS} requires: delete {path.parent}")
    if file.tell() > length:
        file.truncate(length)
    return file


def read_store(folder: Path, name: str, command: str = "features") -> Stored:
    """The stored features of the modality `name`, which a command of `earwitness-train` makes.

    Raises:
        EarwitnessError: there are none, they are damaged, or another version wrote them.

    """
    if not (folder / _STORE).exists():
        raise EarwitnessError(f"{folder.parent}: has no features of {name}: run `earwitness-train {command}` first")
    key = _read_key(folder)
    if key.version != FEATURES_VERSION:
        raise EarwitnessError(
            f"{folder}: was made by version {key.version} of the extractors, this is {FEATURES_VERSION}: delete it and "
            f"run `earwitness-train {command}` again"
        )
    entries, _ = _read_entries(folder)
    cells = max((one.start + one.cells for one in entries.values()), default=0)
    try:
        shape = (cells, *key.shape)
        empty = cells == 0  # an empty file can't be memory-mapped
        dtype = np.dtype(key.number)
        # Copy-on-write, because torch wants arrays that can be written; none is.
        path = folder / _VALUES[key.number]
        values = np.zeros(shape, dtype) if empty else np.memmap(path, dtype, "c", shape=shape)
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
