"""`earwitness-train guide`: posteriors of teachers and models, stored once for all runs that learn from them.

A clip's are the sigmoid of the mean log-odds of all networks that hear the cell. They are a store like that of a
modality (`train.data.store`), whose cells are of as many numbers as there are classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.features.base import FEATURES_VERSION
from streamer.features.mn04 import LogMel
from streamer.networks.forms import FusionNetwork
from streamer.types import Bools, Floats
from train.data import cache
from train.data.dataset import Corpus
from train.data.store import Key, Writer, known, narrowed
from train.lock import only_writer
from train.provenance import known_of
from train.split import check_split, joined
from train.teacher.frames import clip_frames
from train.teacher.network import TeacherNetwork
from train.teacher.record import Teacher

_BATCH = 16


class LogOdds(NamedTuple):
    """What a network makes of one clip."""

    values: Tensor  # (cells, classes)
    heard: Tensor  # (cells,) bool: whether it had any input there


@torch.inference_mode()
def add(corpus: Corpus, features: Path, teachers: Sequence[Teacher], bundles: Sequence[Bundle]) -> int:
    """Store the posteriors of all clips of all parts that the store `guide` lacks; returns the number of those clips.

    Each clip is stored as soon as its batch is done, so a killed command can be resumed.

    Args:
        corpus: whose clips.
        features: folder of its features, which also gets the posteriors.
        teachers: of `earwitness-train teach`.
        bundles: models whose features are in `features`.

    Raises:
        EarwitnessError: a teacher or model lacks a class, or was trained on recordings that this corpus tests or
            validates on; features are missing or others; the store is of other teachers; or a clip can't be read.

    """
    trained = [*(one.known for one in teachers), *(known_of(one) for one in bundles)]
    checked = [check_split(one, corpus.summary) for one in trained]
    spec = {
        "classes": list(corpus.classes),
        "teachers": [one.record.tensors_sha256 for one in teachers],
        "bundles": [one.fingerprint() for one in bundles],
        "trained_on": joined(trained).json(),
        "certain": all(checked),
    }
    key = Key(FEATURES_VERSION, spec, (len(corpus.classes),), pictures_alone=False, number="float16")
    ensemble = _Teachers.of(teachers, corpus.classes)
    columns = [_columns(one.name, one.classes, corpus.classes) for one in bundles]
    with only_writer(features):
        there = known(features / cache.GUIDE, key)
        by_hash = {sha256: path for path, sha256 in _media(corpus, features).items() if sha256 not in there}
        clips = {path: sha256 for sha256, path in by_hash.items()}
        if not clips:
            return 0
        models = [_Model.read(one, of, features, clips) for one, of in zip(bundles, columns, strict=True)]
        paths, hashes = list(clips), list(clips.values())
        with (
            Writer(features / cache.GUIDE, key) as writer,
            tqdm(total=len(clips), desc="guide", unit="clip", mininterval=5) as bar,
        ):
            for first in range(0, len(clips), _BATCH):
                rows = range(first, min(first + _BATCH, len(clips)))
                made: dict[int, list[LogOdds]] = {row: [] for row in rows}
                for row, one in ensemble.log_odds(paths, rows):
                    made[row].append(one)
                for model in models:
                    for row, one in model.log_odds(rows):
                        made[row].append(one)
                for row in rows:
                    values, heard = mean_posteriors(made[row], len(corpus.classes))
                    writer.add(hashes[row], narrowed(values, key.number), heard, len(heard))
                bar.update(len(rows))
    return len(clips)


def mean_posteriors(made: Sequence[LogOdds], classes: int) -> tuple[Floats, Bools]:
    """The sigmoid of the mean of log-odds, (cells, classes), and whether any network heard the cell, (cells,).

    A network has no part in the mean where it heard nothing. Where none did, the posteriors are zero.
    """
    cells = max((len(one.heard) for one in made), default=0)
    total, count = torch.zeros(cells, classes), torch.zeros(cells, 1)
    for one in made:
        total[: len(one.heard)] += one.values * one.heard[:, None]
        count[: len(one.heard)] += one.heard[:, None]
    heard = count[:, 0] > 0
    posteriors = torch.sigmoid(total / count.clamp_min(1)) * heard[:, None]
    return posteriors.numpy(), heard.numpy()


@dataclass(frozen=True, slots=True)
class _Teachers:
    """All teachers: the frames of a clip are computed once for them."""

    networks: Sequence[tuple[TeacherNetwork, Tensor]]  # and the corpus's classes among its outputs
    log_mel: LogMel

    @classmethod
    def of(cls, teachers: Sequence[Teacher], classes: Sequence[str]) -> _Teachers:
        networks = [(one.network, _columns(one.name, one.record.classes, classes)) for one in teachers]
        return cls(networks, LogMel())

    def log_odds(self, paths: Sequence[Path], rows: Sequence[int]) -> Iterator[tuple[int, LogOdds]]:
        if not self.networks:
            return
        clips = {row: clip_frames(paths[row], self.log_mel) for row in rows}
        for group in _alike({row: (one.cells, len(one.values)) for row, one in clips.items() if one.cells}):
            cells = clips[group[0]].cells
            log_mel = torch.from_numpy(np.stack([clips[row].values.T for row in group]))
            heard = torch.ones(cells, dtype=torch.bool)
            for network, columns in self.networks:
                for row, values in zip(group, network(log_mel, cells)[..., columns], strict=True):
                    yield row, LogOdds(values, heard)


@dataclass(frozen=True, slots=True)
class _Model:
    """A bundle's network and the stored features of all clips."""

    network: FusionNetwork
    columns: Tensor
    stored: cache.Features

    @classmethod
    def read(cls, bundle: Bundle, columns: Tensor, features: Path, clips: Mapping[Path, str]) -> _Model:
        stored = cache.read(features, clips, bundle.modalities)
        cache.check_specs(stored, bundle.feature_specs, bundle.name)
        return cls(bundle.network().eval().requires_grad_(False), columns, stored)

    def log_odds(self, rows: Sequence[int]) -> Iterator[tuple[int, LogOdds]]:
        counts = {row: int(self.stored.cells[row]) for row in rows}
        for group in _alike({row: cells for row, cells in counts.items() if cells}):
            features, valid = self.stored.batch(group, counts[group[0]])
            out = self.network(features, valid).logits[..., self.columns]
            heard = torch.stack([valid[name] for name in self.network.modalities]).any(dim=0)
            for row, values, cells in zip(group, out, heard, strict=True):
                yield row, LogOdds(values, cells)


def _alike(sizes: Mapping[int, Hashable]) -> list[list[int]]:
    """Rows of the same size, which can share a batch."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, size in sizes.items():
        groups[size].append(row)
    return list(groups.values())


def _columns(name: str, has: Sequence[str], classes: Sequence[str]) -> Tensor:
    """The outputs for a corpus's classes, (classes,) int64. Raises `EarwitnessError` if one is missing."""
    lacking = [label for label in classes if label not in has]
    if lacking:
        raise EarwitnessError(f"{name} has no class {', '.join(lacking)}, which the corpus has: choose another")
    return torch.tensor([list(has).index(label) for label in classes])


def _media(corpus: Corpus, features: Path) -> dict[Path, str]:
    """All clips that can be read, with their SHA-256."""
    broken = cache.broken(features) if corpus.partial else {}
    return {path: sha256 for path, sha256 in corpus.media(features).items() if sha256 not in broken}
