"""`earwitness-train features`: computes the features of clips once, with the daemon's own reader and extractors.

`store` describes the files. A clip is identified by the hash of its file, not by its name: several corpora can share
a folder, a changed clip counts as new, and stored features are never recomputed. A model is trained on the values that
the daemon computes, rounded to float16.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from streamer.errors import ConfigError, EarwitnessError
from streamer.features import EXTRACTORS
from streamer.features.base import FEATURES_VERSION, ExtractorFactory
from streamer.networks.weights import WeightsStore
from streamer.types import Bools, Floats
from train.data.computing import Job, computing
from train.data.estimate import estimated, picked
from train.data.store import Entry, Key, Number, Stored, Writer, known, number_of, read_store, shown, widened
from train.lock import only_writer

_log = logging.getLogger(__name__)
_BROKEN = "broken.json"
"""The media that could not be read, by SHA-256."""
GUIDE = "guide"
"""A store of posteriors, one a class, which `earwitness-train guide` fills: targets, and no network's input. Its spec
has their classes and the groups of recordings that the networks were trained on (`trained_on`; `certain`: all are)."""
Specs: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Modality -> fields of its extractor's spec."""


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

    @property
    def numbers(self) -> dict[str, Number]:
        """Modality -> type of the stored numbers."""
        return {name: store.key.number for name, store in self._stores.items()}

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
            widened(store.values[span], features[name][place, :length])
            valid[name][place, :length] = store.valid[span]


def add(
    folder: Path,
    clips: Mapping[Path, str],
    modalities: Sequence[str],
    weights: Path,
    workers: int,
    specs: Specs | None = None,
    *,
    tolerant: bool = False,
    dry_run: bool = False,
) -> int:
    """Compute and store the clips' features that `folder` lacks; returns the number of clips computed.

    First says how many there are, and what they will take in time and on the disk. Each clip is stored as soon as it is
    done, so an interrupted or killed command can be resumed. A clip that can't be read does not keep the others from
    being computed.

    Args:
        folder: created if it does not exist.
        clips: path of the media -> its SHA-256.
        modalities: some of `EXTRACTORS`.
        weights: folder of pretrained networks.
        workers: number of processes.
        specs: fields of a modality's spec that differ from the default, by modality.
        tolerant: clips that can't be read are no error; they are counted, and `broken` has them.
        dry_run: only say it; nothing is written.

    Raises:
        EarwitnessError: the folder holds features of another spec, a field of `specs` is wrong, the disk is too small,
            or, in the end, a clip can't be read or has jumping timestamps.
        WeightsError: a pretrained network's weights are missing.

    """
    chosen = {name: dict((specs or {}).get(name, {})) for name in in_order(modalities)}
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(only_writer(folder))
        keys = {name: _key(factory, folder / name) for name, factory in _factories(chosen, weights).items()}
        jobs = _jobs(clips, {name: known(folder / name, key) for name, key in keys.items()})
        _log.info("%s: %d of %d clips have all features already", folder, len(clips) - len(jobs), len(clips))
        if not jobs:
            return 0
        workers = min(workers, len(jobs))
        numbers = {name: key.number for name, key in keys.items()}
        run = stack.enter_context(computing(workers, partial(_factories, chosen, weights), numbers))
        sample = picked(jobs, workers)
        measured = list(zip(sample, tqdm(run(sample), total=len(sample), desc="measuring", unit="clip"), strict=True))
        sizes = {name: key.cell_bytes for name, key in keys.items()}
        estimate = estimated(jobs, [made for _, made in measured], sizes, workers)
        free_bytes = shutil.disk_usage(next(one for one in (folder, *folder.absolute().parents) if one.exists())).free
        _log.info("%s: new features\n%s", folder, estimate.text(workers, free_bytes))
        estimate.check_room(folder, free_bytes)
        if dry_run:
            return 0
        stores = {name: stack.enter_context(Writer(folder / name, keys[name])) for name in keys}
        begun = set(sample)
        rest = [job for job in jobs if job not in begun]
        results = chain(measured, zip(rest, run(rest), strict=True))
        faults: dict[str, str] = {}
        for job, made in tqdm(results, total=len(jobs), desc="features", unit="clip"):
            if isinstance(made, str):
                _log.warning("left out: %s", made)
                faults[job.sha256] = made
                continue
            for name in job.modalities:
                stores[name].add(job.sha256, made.values[name], made.valid[name], made.picture_cells)
    if tolerant:
        _note_broken(folder, clips, jobs, faults)
    elif faults:
        others = f" (and {len(faults) - 1} other clips; see above)" if len(faults) > 1 else ""
        raise EarwitnessError(f"{next(iter(faults.values()))}{others}; the features of all others are stored")
    return len(jobs) - len(faults)


def _jobs(clips: Mapping[Path, str], stored: Mapping[str, frozenset[str]]) -> list[Job]:
    """What is to be computed: of clips with the same media, one."""
    jobs: dict[str, Job] = {}
    for path, sha256 in clips.items():
        missing = tuple(name for name, there in stored.items() if sha256 not in there)
        if missing:
            jobs.setdefault(sha256, Job(path, sha256, missing))
    return list(jobs.values())


def _note_broken(folder: Path, clips: Mapping[Path, str], jobs: Sequence[Job], faults: Mapping[str, str]) -> None:
    names = {job.sha256: job.path.name for job in jobs}
    known_still = {sha256: what for sha256, what in broken(folder).items() if sha256 not in set(clips.values())}
    said = {sha256: f"{names[sha256]}: {what}" for sha256, what in faults.items()}
    part = folder / (_BROKEN + ".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode({**known_still, **said}), indent=1) + b"\n")
    part.replace(folder / _BROKEN)


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
    """The stored features of `clips`, in their order; `modalities` may have `GUIDE` too.

    Raises:
        EarwitnessError: a modality or a clip is missing, or the features were made by another version.

    """
    stores: dict[str, Stored] = {}
    targets = [GUIDE] if GUIDE in modalities else []
    for name in (*in_order([name for name in modalities if name != GUIDE]), *targets):
        command = "guide" if name == GUIDE else "features"
        stores[name] = store = read_store(folder / name, name, command)
        missing = [path for path, sha256 in clips.items() if sha256 not in store.entries]
        if missing:
            raise EarwitnessError(
                f"{folder}: has no {name} features of {len(missing)} of {len(clips)} clips in their current version, "
                f"the first is {missing[0]}: run `earwitness-train {command}` for this corpus"
            )
    entries = {name: [store.entries[sha256] for sha256 in clips.values()] for name, store in stores.items()}
    if all(store.key.pictures_alone for store in stores.values()):  # a stream of pictures ends with its last picture
        counts = [[min(one.cells, one.picture_cells) for one in of] for of in entries.values()]
    else:
        counts = [[one.cells for one in of] for of in entries.values()]
    cells = np.array(counts, np.int64).max(axis=0)
    return Features(cells, {name: store.key.spec for name, store in stores.items()}, stores, entries)


def check_specs(features: Features, specs: Specs, whose: str, *, partial: bool = False) -> None:
    """Check that the features have the spec and weights that a model needs.

    A field that is in one of the specs alone makes them differ too, because a spec leaves out a field only where it
    changes nothing; unless `specs` are `partial`, those fields of a configuration that differ from the default.

    Raises:
        EarwitnessError: they do not.

    """
    for name, spec in specs.items():
        mine = features.specs.get(name, {})
        fields = spec if partial else {**spec, **mine}
        other = [field for field in fields if spec.get(field) != mine.get(field) and field not in _any(spec)]
        if other:
            raise EarwitnessError(
                f"{whose} needs {name} features with {shown(spec, other)}, these were made with "
                f"{shown(mine, other)}: compute them in another folder with `earwitness-train features`"
            )


def _any(spec: Mapping[str, Any]) -> set[str]:
    """The fields of a spec that may have any value."""
    return {field for field, value in spec.items() if value is None}


def in_order(modalities: Sequence[str]) -> list[str]:
    """The modalities in the order of a network's inputs. Raises `EarwitnessError` if one is unknown."""
    for name in modalities:
        if name not in EXTRACTORS:
            raise EarwitnessError(f"there is no modality {name!r}; there are {', '.join(EXTRACTORS)}")
    return sorted(set(modalities), key=list(EXTRACTORS).index)


def _factories(specs: Specs, weights: Path) -> dict[str, ExtractorFactory]:
    store = WeightsStore(weights, {})
    made: dict[str, ExtractorFactory] = {}
    for name, spec in specs.items():
        try:
            made[name] = EXTRACTORS[name](spec, store)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"features: {name}: {error}: correct it in the configuration") from None
    return made


def _key(factory: ExtractorFactory, folder: Path) -> Key:
    """The key of a modality's new store in `folder`, or with the type of numbers of the one that is there."""
    alone = factory.want.pictures and not factory.want.audio
    return Key(FEATURES_VERSION, dict(factory.spec()), factory.shape, alone, number_of(folder, "float16"))
