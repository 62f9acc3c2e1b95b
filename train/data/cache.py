"""`earwitness-train features`: every clip of a corpus through the daemon's own reader and extractors, once.

```
OUT/<part>/clips.json               names and cells of the clips, and the features' specs
OUT/<part>/<modality>.f32           (cells of all clips, ...) float32, memory-mapped when read
OUT/<part>/<modality>.valid         (cells of all clips,) bool
```
Nothing is rounded: a model is trained on the very values that the daemon computes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from streamer.errors import EarwitnessError
from streamer.features import EXTRACTORS
from streamer.features.base import ExtractorFactory, want_of
from streamer.media.source import open_media
from streamer.networks.weights import WeightsStore
from streamer.types import SAMPLE_RATE_HZ, Bools, Chunk, Discontinuity, Floats, Picture, Want, cells_in

MEDIA_SUFFIXES = (".flac", ".wav", ".mp4", ".mkv", ".ogg", ".mp3", ".m4a", ".webm")


@dataclass(frozen=True, slots=True)
class CachedPart:
    """The features of one part of a corpus, on disk; clip after clip without padding."""

    names: tuple[str, ...]  # file names of the clips
    cells: NDArray[np.int64]  # (clips,)
    features: Mapping[str, Floats]  # modality -> (cells of all clips, ...)
    valid: Mapping[str, Bools]  # modality -> (cells of all clips,)
    specs: Mapping[str, Mapping[str, Any]]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Each modality's shape of one cell."""
        return {name: of.shape[1:] for name, of in self.features.items()}

    def batch(self, rows: Sequence[int], cells: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Some clips as one batch: features (B, cells, ...) and valid (B, cells), shorter clips padded and masked."""
        starts = np.cumsum(self.cells) - self.cells
        features = {name: np.zeros((len(rows), cells, *of.shape[1:]), np.float32) for name, of in self.features.items()}
        valid = {name: np.zeros((len(rows), cells), np.bool_) for name in self.valid}
        for index, row in enumerate(rows):
            length = min(int(self.cells[row]), cells)
            span = slice(int(starts[row]), int(starts[row]) + length)
            for name in features:
                features[name][index, :length] = self.features[name][span]
                valid[name][index, :length] = self.valid[name][span]
        return (
            {name: torch.from_numpy(values) for name, values in features.items()},
            {name: torch.from_numpy(flags) for name, flags in valid.items()},
        )


def clip_cells(
    path: Path, factories: Mapping[str, ExtractorFactory]
) -> tuple[int, dict[str, Floats], dict[str, Bools]]:
    """All cells of one clip: pushed whole and flushed, as the daemon would at its end.

    Returns:
        the number of cells, and for each modality the values (cells, ...) and validity (cells,).

    Raises:
        SourceError: the clip can't be read.
        EarwitnessError: its timestamps jump, so that it is not one clip.

    """
    want = want_of(factories.values()) | Want(frozenset({SAMPLE_RATE_HZ}))
    extractors = {name: factory.new() for name, factory in factories.items()}
    made: dict[str, list[Any]] = {name: [] for name in factories}
    end = 0
    with open_media(str(path), want) as media:
        for item in media:
            if isinstance(item, Discontinuity):
                raise EarwitnessError(f"{path}: its timestamps jump ({item.reason}): cut it there, or leave it out")
            for name, factory in factories.items():
                if factory.want.takes(item):
                    assert isinstance(item, (Chunk, Picture))
                    made[name].append(extractors[name].push(item))
            if isinstance(item, Chunk) and item.rate_hz == SAMPLE_RATE_HZ:
                end = max(end, item.end)
    cells = cells_in(end)
    for name in factories:
        made[name].append(extractors[name].flush(cells))
    values = {name: np.concatenate([part.values for part in parts])[:cells] for name, parts in made.items()}
    valid = {name: np.concatenate([part.valid for part in parts])[:cells] for name, parts in made.items()}
    return cells, values, valid


def make(folder: Path, out: Path, modalities: Sequence[str], weights: Path, workers: int) -> None:
    """Compute and store the features of all clips in `folder`. A part that is already there is left alone.

    Raises:
        EarwitnessError: the folder has no clips, or one has jumping timestamps.
        SourceError: a clip can't be read.
        WeightsError: a pretrained network's weights are missing.

    """
    if (out / "clips.json").exists():
        return
    paths = sorted(path for path in folder.iterdir() if path.suffix in MEDIA_SUFFIXES)
    if not paths:
        raise EarwitnessError(f"{folder}: has no clips ({', '.join(MEDIA_SUFFIXES)})")
    out.mkdir(parents=True, exist_ok=True)
    factories = _factories(modalities, weights)
    cells: list[int] = []
    with ExitStack() as stack:
        stores = {name: stack.enter_context((out / f"{name}.f32").open("wb")) for name in modalities}
        flags = {name: stack.enter_context((out / f"{name}.valid").open("wb")) for name in modalities}
        pool = stack.enter_context(ProcessPoolExecutor(workers, initializer=_begin, initargs=(modalities, weights)))
        made = pool.map(_clip_job, paths, chunksize=8)
        for count, values, valid in tqdm(made, total=len(paths), desc=f"features of {folder.name}", unit="clip"):
            cells.append(count)
            for name in modalities:
                stores[name].write(values[name].tobytes())
                flags[name].write(valid[name].tobytes())
    summary = {
        "names": [path.name for path in paths],
        "cells": cells,
        "shapes": {name: factory.shape for name, factory in factories.items()},
        "specs": {name: dict(factory.spec()) for name, factory in factories.items()},
    }
    (out / "clips.json").write_text(json.dumps(summary))


_worker_factories: dict[str, ExtractorFactory] = {}
"""Of a worker process: networks are loaded once in each, not once a clip."""


def _begin(modalities: Sequence[str], weights: Path) -> None:
    torch.set_num_threads(1)
    _worker_factories.update(_factories(modalities, weights))


def _clip_job(path: Path) -> tuple[int, dict[str, Floats], dict[str, Bools]]:
    return clip_cells(path, _worker_factories)


def _factories(modalities: Sequence[str], weights: Path) -> dict[str, ExtractorFactory]:
    return {name: EXTRACTORS[name]({}, WeightsStore(weights, {})) for name in modalities}


def read(folder: Path, modalities: Sequence[str]) -> CachedPart:
    """The stored features of one part.

    Raises:
        EarwitnessError: they are missing, or lack a modality.

    """
    modalities = sorted(modalities, key=list(EXTRACTORS).index)
    try:
        summary = json.loads((folder / "clips.json").read_text())
        shapes = {name: (sum(summary["cells"]), *summary["shapes"][name]) for name in modalities}
        features = {name: np.memmap(folder / f"{name}.f32", np.float32, "r", shape=shapes[name]) for name in modalities}
        valid = {name: np.fromfile(folder / f"{name}.valid", np.bool_) for name in modalities}
        specs = {name: summary["specs"][name] for name in modalities}
    except (OSError, ValueError, KeyError) as error:
        raise EarwitnessError(
            f"{folder}: has no features of {', '.join(modalities)}: run `earwitness-train features` first ({error})"
        ) from None
    return CachedPart(tuple(summary["names"]), np.array(summary["cells"]), features, valid, specs)
