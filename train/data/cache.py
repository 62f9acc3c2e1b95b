"""`earwitness-train features`: computes the features of clips once, with the daemon's own reader and extractors.

`store` describes the files. A clip is identified by the hash of its file, not by its name: several corpora can share
a folder, a changed clip counts as new, and stored features are never recomputed. Nothing is rounded: a model is
trained on exactly the values that the daemon computes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from streamer.errors import ConfigError, EarwitnessError, SourceError
from streamer.features import EXTRACTORS
from streamer.features.base import FEATURES_VERSION, ExtractorFactory, want_of
from streamer.features.extraction import Extraction
from streamer.media.source import open_media
from streamer.networks.weights import WeightsStore
from streamer.types import SAMPLE_RATE_HZ, Bools, Chunk, Discontinuity, Floats, Picture, Want
from train.data.store import Entry, Key, Stored, Writer, read_store, shown
from train.lock import only_writer
from train.workers import pool

_log = logging.getLogger(__name__)
_BROKEN = "broken.json"
"""The media that could not be read, by SHA-256."""
Specs: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Modality -> fields of its extractor's spec."""


@dataclass(frozen=True, slots=True)
class ClipCells:
    """All cells of one clip."""

    values: Mapping[str, Floats]  # modality -> (cells, ...)
    valid: Mapping[str, Bools]  # modality -> (cells,)
    cells: int
    picture_cells: int  # up to the last picture, if pictures were read


@dataclass(frozen=True, slots=True)
class Features:
    """The stored features of some clips, in their order."""

    cells: NDArray[np.int64]  # (clips,)
    specs: Specs  # modality -> its extractor's spec
    _stores: Mapping[str, Stored]
    _entries: Mapping[str, Sequence[Entry]]  # modality -> one entry per clip

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Modality -> shape of one cell."""
        return {name: store.values.shape[1:] for name, store in self._stores.items()}

    def batch(self, rows: Sequence[int], cells: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Some clips as one batch: features (B, cells, ...) and valid (B, cells), shorter clips padded and masked."""
        features = {name: np.zeros((len(rows), cells, *shape), np.float32) for name, shape in self.shapes.items()}
        valid: dict[str, Bools] = {name: np.zeros((len(rows), cells), np.bool_) for name in self._stores}
        for place, row in enumerate(rows):
            self.fill(row, place, features, valid)
        return (
            {name: torch.from_numpy(values) for name, values in features.items()},
            {name: torch.from_numpy(flags) for name, flags in valid.items()},
        )

    def fill(self, row: int, place: int, features: Mapping[str, Floats], valid: Mapping[str, Bools]) -> None:
        """Write a clip to `place` in arrays of zeros, modality -> (B, cells, ...) and (B, cells)."""
        for name, store in self._stores.items():
            entry = self._entries[name][row]
            length = min(entry.cells, int(self.cells[row]), valid[name].shape[1])
            span = slice(entry.start, entry.start + length)
            features[name][place, :length] = store.values[span]
            valid[name][place, :length] = store.valid[span]


def media_sha256(path: Path) -> str:
    """The hash that identifies a clip. Raises `EarwitnessError` if the file can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EarwitnessError(f"{path}: can't be read: {error.strerror}") from None


def clip_cells(path: Path, factories: Mapping[str, ExtractorFactory]) -> ClipCells:
    """All cells of one clip, as the stream's pipeline computes them; none if the clip has no usable media.

    The clip's audio decides where it ends, also for modalities that do not use audio. Cells of different
    modalities thus match, even if they are computed at different times.

    Raises:
        SourceError: the clip can't be read.
        EarwitnessError: its timestamps jump, so it is not one continuous clip.

    """
    want = want_of(factories.values()) | Want(frozenset({SAMPLE_RATE_HZ}))
    extraction = Extraction(factories)
    blocks: dict[str, list[Any]] = {name: [] for name in factories}
    try:
        opened = open_media(str(path), want)
    except SourceError as error:
        if error.reason not in ("no_audio", "no_video"):
            raise
        nothing = {name: np.zeros((0, *factory.shape), np.float32) for name, factory in factories.items()}
        return ClipCells(nothing, {name: np.zeros(0, np.bool_) for name in factories}, 0, 0)
    with opened as media:
        for item in media:
            if isinstance(item, Discontinuity):
                raise EarwitnessError(f"{path}: its timestamps jump ({item.reason}): cut it there, or leave it out")
            if isinstance(item, (Chunk, Picture)):
                for name, cells in extraction.push(item):
                    blocks[name].append(cells)
    count = extraction.cells
    for name, cells in extraction.flush(count).items():
        blocks[name].append(cells)
    return ClipCells(
        {name: np.concatenate([one.values for one in of])[:count] for name, of in blocks.items()},
        {name: np.concatenate([one.valid for one in of])[:count] for name, of in blocks.items()},
        count,
        extraction.picture_cells,
    )


def add(
    folder: Path,
    clips: Mapping[Path, str],
    modalities: Sequence[str],
    weights: Path,
    workers: int,
    specs: Specs | None = None,
    *,
    tolerant: bool = False,
) -> int:
    """Compute and store the clips' features that `folder` lacks; returns the number of clips computed.

    Each clip is stored as soon as it is done, so an interrupted or killed command can be resumed.

    Args:
        folder: created if it does not exist.
        clips: path of the media -> its SHA-256.
        modalities: some of `EXTRACTORS`.
        weights: folder of pretrained networks.
        workers: number of processes.
        specs: fields of a modality's spec that differ from the default, by modality.
        tolerant: leave out clips that can't be read; they are counted, and `broken` has them.

    Raises:
        EarwitnessError: the folder holds features of another spec, a field of `specs` is wrong, or a clip has jumping
            timestamps.
        SourceError: a clip can't be read.
        WeightsError: a pretrained network's weights are missing.

    """
    chosen = {name: dict((specs or {}).get(name, {})) for name in in_order(modalities)}
    with only_writer(folder), ExitStack() as stack:
        keys = {name: _key(factory) for name, factory in _factories(chosen, weights).items()}
        stores = {name: stack.enter_context(Writer(folder / name, keys[name])) for name in keys}
        jobs: list[tuple[Path, str, tuple[str, ...]]] = []
        begun: set[str] = set()
        for path, sha256 in clips.items():
            missing = tuple(name for name, store in stores.items() if sha256 not in store.known)
            if missing and sha256 not in begun:
                jobs.append((path, sha256, missing))
            begun.add(sha256)
        if not jobs:
            return 0
        processes = stack.enter_context(pool(min(workers, len(jobs)), _begin, (chosen, weights)))
        made = processes.map(_tolerant_job if tolerant else _clip_job, *zip(*jobs, strict=True))
        bar = tqdm(made, total=len(jobs), desc="features", unit="clip")
        faults: dict[str, str] = {}
        for (path, sha256, missing), clip in zip(jobs, bar, strict=True):
            if isinstance(clip, str):
                _log.warning("left out: %s", clip)
                faults[sha256] = f"{path.name}: {clip}"
                continue
            for name in missing:
                stores[name].add(sha256, clip.values[name], clip.valid[name], clip.picture_cells)
        if tolerant:
            known = {sha256: what for sha256, what in broken(folder).items() if sha256 not in begun}
            part = folder / (_BROKEN + ".part")
            part.write_bytes(msgspec.json.format(msgspec.json.encode({**known, **faults}), indent=1) + b"\n")
            part.replace(folder / _BROKEN)
    return len(jobs) - len(faults)


def broken(folder: Path) -> dict[str, str]:
    """The media that a tolerant `add` could not read: SHA-256 -> what is wrong.

    Raises:
        EarwitnessError: the list is damaged.

    """
    try:
        return msgspec.json.decode((folder / _BROKEN).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise EarwitnessError(f"{folder / _BROKEN}: is damaged ({error}): run `earwitness-train features`") from None


def read(folder: Path, clips: Mapping[Path, str], modalities: Sequence[str]) -> Features:
    """The stored features of `clips`, in their order.

    Raises:
        EarwitnessError: a modality or a clip is missing, or the features were made by another version.

    """
    stores: dict[str, Stored] = {}
    for name in in_order(modalities):
        stores[name] = store = read_store(folder / name, name)
        missing = [path for path, sha256 in clips.items() if sha256 not in store.entries]
        if missing:
            raise EarwitnessError(
                f"{folder}: has no {name} features of {len(missing)} of {len(clips)} clips in their current version, "
                f"the first is {missing[0]}: run `earwitness-train features` for this corpus"
            )
    entries = {name: [store.entries[sha256] for sha256 in clips.values()] for name, store in stores.items()}
    if all(store.key.pictures_alone for store in stores.values()):  # a stream of pictures ends with its last picture
        counts = [[min(one.cells, one.picture_cells) for one in of] for of in entries.values()]
    else:
        counts = [[one.cells for one in of] for of in entries.values()]
    cells = np.array(counts, np.int64).max(axis=0)
    return Features(cells, {name: store.key.spec for name, store in stores.items()}, stores, entries)


def check_specs(features: Features, specs: Specs, whose: str) -> None:
    """Check that the features have the spec and weights that a model needs.

    Raises:
        EarwitnessError: they do not.

    """
    for name, spec in specs.items():
        mine = features.specs.get(name, {})
        other = [field for field, value in spec.items() if value is not None and mine.get(field) != value]
        if other:
            raise EarwitnessError(
                f"{whose} needs {name} features with {shown(spec, other)}, these were made with "
                f"{shown(mine, other)}: compute them in another folder with `earwitness-train features`"
            )


def in_order(modalities: Sequence[str]) -> list[str]:
    """The modalities in the order of a network's inputs. Raises `EarwitnessError` if one is unknown."""
    for name in modalities:
        if name not in EXTRACTORS:
            raise EarwitnessError(f"there is no modality {name!r}; there are {', '.join(EXTRACTORS)}")
    return sorted(set(modalities), key=list(EXTRACTORS).index)


_worker_factories: dict[str, ExtractorFactory] = {}
"""State of a worker process: networks are loaded once per process, not once per clip."""


def _begin(specs: Specs, weights: Path) -> None:
    _worker_factories.update(_factories(specs, weights))


def _clip_job(path: Path, sha256: str, modalities: Sequence[str]) -> ClipCells:
    cells = clip_cells(path, {name: _worker_factories[name] for name in modalities})
    if media_sha256(path) != sha256:
        raise EarwitnessError(f"{path}: changed while it was being read: run the command again")
    return cells


def _tolerant_job(path: Path, sha256: str, modalities: Sequence[str]) -> ClipCells | str:
    try:
        return _clip_job(path, sha256, modalities)
    except EarwitnessError as error:
        return str(error)


def _factories(specs: Specs, weights: Path) -> dict[str, ExtractorFactory]:
    store = WeightsStore(weights, {})
    made: dict[str, ExtractorFactory] = {}
    for name, spec in specs.items():
        try:
            made[name] = EXTRACTORS[name](spec, store)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"features: {name}: {error}: correct it in the configuration") from None
    return made


def _key(factory: ExtractorFactory) -> Key:
    return Key(FEATURES_VERSION, dict(factory.spec()), factory.shape, factory.want.pictures and not factory.want.audio)
