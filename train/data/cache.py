"""`earwitness-train features`: every clip of a corpus through the daemon's own reader and extractors, once.

```
OUT/<part>/clips.json               names and cells of the clips, and the features' specs
OUT/<part>/<modality>.npy           (clips, cells, ...) float32, memory-mapped when read
OUT/<part>/<modality>.valid.npy     (clips, cells) bool
```
Nothing is rounded: a model is trained on the very values that the daemon computes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from streamer.errors import EarwitnessError
from streamer.features.base import ExtractorFactory
from streamer.media import Want, open_media
from streamer.types import SAMPLE_RATE_HZ, Bools, Chunk, Floats, Frame, cells_in

MEDIA_SUFFIXES = (".flac", ".wav", ".mp4", ".mkv", ".ogg", ".mp3", ".m4a", ".webm")


@dataclass(frozen=True, slots=True)
class CachedPart:
    """The features of one part of a corpus, on disk."""

    names: tuple[str, ...]  # file names of the clips
    cells: NDArray[np.int64]  # (clips,), how many of the cells below are the clip's
    features: Mapping[str, Floats]  # modality -> (clips, cells, ...)
    valid: Mapping[str, Bools]  # modality -> (clips, cells)
    specs: Mapping[str, Mapping[str, Any]]


def clip_cells(
    path: Path, factories: Mapping[str, ExtractorFactory]
) -> tuple[int, dict[str, Floats], dict[str, Bools]]:
    """All cells of one clip: pushed whole and flushed, as the daemon would at its end.

    Returns:
        the number of cells, and for each modality the values (cells, ...) and validity (cells,).

    Raises:
        SourceError: the clip can't be read.

    """
    rates_hz = frozenset(factory.rate_hz for factory in factories.values() if factory.rate_hz is not None)
    want = Want(rates_hz | {SAMPLE_RATE_HZ}, pictures=any(factory.rate_hz is None for factory in factories.values()))
    extractors = {name: factory.new() for name, factory in factories.items()}
    made: dict[str, list[Any]] = {name: [] for name in factories}
    end = 0
    with open_media(str(path), want) as media:
        for item in media:
            for name, factory in factories.items():
                if (isinstance(item, Chunk) and item.rate_hz == factory.rate_hz) or (
                    isinstance(item, Frame) and factory.rate_hz is None
                ):
                    made[name].append(extractors[name].push(item))
            if isinstance(item, Chunk) and item.rate_hz == SAMPLE_RATE_HZ:
                end = max(end, item.end)
    cells = cells_in(end)
    for name in factories:
        made[name].append(extractors[name].flush(cells))
    values = {name: np.concatenate([part.values for part in parts])[:cells] for name, parts in made.items()}
    valid = {name: np.concatenate([part.valid for part in parts])[:cells] for name, parts in made.items()}
    return cells, values, valid


def make(folder: Path, out: Path, factories: Mapping[str, ExtractorFactory]) -> None:
    """Compute and store the features of all clips in `folder`. A part that is already there is left alone.

    Raises:
        EarwitnessError: the folder has no clips.
        SourceError: a clip can't be read.

    """
    if (out / "clips.json").exists():
        return
    paths = sorted(path for path in folder.iterdir() if path.suffix in MEDIA_SUFFIXES)
    if not paths:
        raise EarwitnessError(f"{folder}: has no clips ({', '.join(MEDIA_SUFFIXES)})")
    out.mkdir(parents=True, exist_ok=True)
    longest = max(1, clip_cells(paths[0], factories)[0])
    stores = {
        name: np.lib.format.open_memmap(out / f"{name}.npy", "w+", np.float32, (len(paths), longest, *factory.shape))
        for name, factory in factories.items()
    }
    valid = {name: np.zeros((len(paths), longest), np.bool_) for name in factories}
    cells: list[int] = []
    for row, path in enumerate(tqdm(paths, desc=f"features of {folder.name}", unit="clip")):
        count, values, validity = clip_cells(path, factories)
        cells.append(min(count, longest))
        for name in factories:
            stores[name][row, : cells[-1]] = values[name][: cells[-1]]
            valid[name][row, : cells[-1]] = validity[name][: cells[-1]]
    for name, store in stores.items():
        store.flush()
        np.save(out / f"{name}.valid.npy", valid[name])
    specs = {name: dict(factory.spec()) for name, factory in factories.items()}
    summary = {"names": [path.name for path in paths], "cells": cells, "specs": specs}
    (out / "clips.json").write_text(json.dumps(summary))


def read(folder: Path, modalities: Sequence[str]) -> CachedPart:
    """The stored features of one part.

    Raises:
        EarwitnessError: they are missing, or lack a modality.

    """
    try:
        summary = json.loads((folder / "clips.json").read_text())
        features = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in modalities}
        valid = {name: np.load(folder / f"{name}.valid.npy") for name in modalities}
    except (OSError, ValueError) as error:
        raise EarwitnessError(
            f"{folder}: has no features of {', '.join(modalities)}: run `earwitness-train features` first ({error})"
        ) from None
    specs = {name: summary["specs"][name] for name in modalities}
    return CachedPart(tuple(summary["names"]), np.array(summary["cells"]), features, valid, specs)
