"""Augmentation on batches of raw cells: linear mel magnitudes, so sounds add and filters multiply."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer.features import SPECTRAL
from train.config import FitConfig
from train.data.cache import GUIDE


@dataclass(slots=True)
class Batch:
    """Clips of every kind: first those with strong labels, then with weak labels, then unlabelled."""

    features: dict[str, Tensor]  # modality -> (B, T, ...)
    valid: dict[str, Tensor]  # modality -> (B, T) bool
    strong: Tensor  # (S, T, classes)
    weak: Tensor  # (W, classes)
    unheard: frozenset[str] = frozenset()  # modalities that give labels and are no network's input

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        return Batch(
            {name: values.to(device) for name, values in self.features.items()},
            {name: flags.to(device) for name, flags in self.valid.items()},
            self.strong.to(device),
            self.weak.to(device),
            self.unheard,
        )

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.weak.shape[1]

    @property
    def spectral(self) -> str | None:
        """The modality whose cells are (frames, mels), if there is one: magnitudes, which can be added and filtered."""
        return SPECTRAL if SPECTRAL in self.features else None


def unused(modalities: Collection[str], config: FitConfig) -> list[str]:
    """The configured augmentations that have no effect with these modalities and kinds of clips."""
    spectral = SPECTRAL in modalities
    without = [name for name in ("filter_db", "mask_mels", "mask_cells") if getattr(config, name) and not spectral]
    if config.mixup and not (spectral and len(modalities) == 1 and config.batch.get("strong", 0)):
        without.append("mixup")
    return without


def augment(batch: Batch, config: FitConfig, rng: np.random.Generator) -> Batch:
    """The batch with every augmentation that `config` enables. The student and the teacher both receive these clips."""
    strong_clips = len(batch.strong)
    clips, cells = next(iter(batch.valid.values())).shape
    if config.shift:
        for row in range(clips):
            _shift(batch, row, int(rng.integers(cells)), strong_clips)
    name = batch.spectral
    if name is not None:
        if config.mixup and strong_clips and set(batch.features) - batch.unheard == {name}:
            _mixup(batch, name, config.mixup, strong_clips, rng)
        if config.filter_db:
            magnitudes = batch.features[name]
            batch.features[name] = magnitudes * _filters(magnitudes, config.filter_db, rng)
    if rng.random() < config.crop:
        _crop(batch, rng)
    return batch


def blanked(batch: Batch, config: FitConfig, rng: np.random.Generator) -> dict[str, Tensor]:
    """The student's input: features with some adjacent mel bins and cells set to zero (SpecAugment)."""
    features = dict(batch.features)
    name = batch.spectral
    if name is not None and (config.mask_mels or config.mask_cells):
        magnitudes = features[name].clone()
        for clip in magnitudes:
            if config.mask_mels:
                clip[:, :, some_adjacent(config.mask_mels, clip.shape[2], rng)] = 0
            if config.mask_cells:
                clip[some_adjacent(config.mask_cells, len(clip), rng)] = 0
        features[name] = magnitudes
    return features


def some_adjacent(most: int, count: int, rng: np.random.Generator) -> slice:
    """Up to `most` adjacent places of `count`, anywhere among them."""
    width = min(int(rng.integers(most + 1)), count)
    first = int(rng.integers(count - width + 1))
    return slice(first, first + width)


def response_db(mels: int, most_db: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random frequency response, (mels,), up to `most_db` up or down."""
    bands = int(rng.integers(2, 7))
    places = np.sort(np.concatenate([[0, mels - 1], rng.integers(0, mels, bands - 1)]))
    response: NDArray[np.float64] = np.interp(np.arange(mels), places, rng.uniform(-most_db, most_db, len(places)))
    return response


def _shift(batch: Batch, row: int, cells: int, strong_clips: int) -> None:
    for name in batch.features:
        batch.features[name][row] = batch.features[name][row].roll(cells, 0)
        batch.valid[name][row] = batch.valid[name][row].roll(cells, 0)
    if row < strong_clips:
        batch.strong[row] = batch.strong[row].roll(cells, 0)


def _mixup(batch: Batch, name: str, share: float, strong_clips: int, rng: np.random.Generator) -> None:
    """Add another clip's power at a random level to some strong clips; the result has the labels of both."""
    magnitudes = batch.features[name]
    partners = torch.from_numpy(rng.permutation(strong_clips))
    chosen = torch.from_numpy((rng.random(strong_clips) < share).astype(np.float32))
    peaks = magnitudes[:strong_clips].amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    gains_db = torch.from_numpy(rng.uniform(-8, 8, strong_clips).astype(np.float32))
    gains = chosen[:, None, None, None] * peaks / peaks[partners] * (10 ** (gains_db / 20))[:, None, None, None]
    other = magnitudes[partners] * gains
    batch.features[name] = torch.cat(
        [(magnitudes[:strong_clips].square() + other.square()).sqrt(), magnitudes[strong_clips:]]
    )
    batch.strong = torch.maximum(batch.strong, batch.strong[partners] * chosen[:, None, None])
    if GUIDE in batch.features:  # its posteriors are targets as the labels are
        guide = batch.features[GUIDE][:strong_clips]
        both = torch.maximum(guide, guide[partners] * chosen[:, None, None])
        batch.features[GUIDE] = torch.cat([both, batch.features[GUIDE][strong_clips:]])


def _filters(magnitudes: Tensor, most_db: float, rng: np.random.Generator) -> Tensor:
    """A smooth random frequency response for each clip, (B, 1, 1, mels)."""
    clips, mels = magnitudes.shape[0], magnitudes.shape[3]
    curves = []
    for _ in range(clips):
        curve = response_db(mels, most_db, rng)
        if rng.random() < 0.25:  # a narrow-band microphone or codec
            cut = int(rng.integers(mels // 2, mels))
            curve[cut:] -= np.minimum(np.arange(mels - cut) * 6.0, 60.0)
        curves.append(curve)
    return torch.from_numpy((10 ** (np.array(curves) / 20)).astype(np.float32))[:, None, None, :]


def _crop(batch: Batch, rng: np.random.Generator) -> None:
    cells = next(iter(batch.valid.values())).shape[1]
    width = int(rng.integers(min(23, cells), cells + 1))
    first = int(rng.integers(cells - width + 1))
    batch.features = {name: values[:, first : first + width] for name, values in batch.features.items()}
    batch.valid = {name: valid[:, first : first + width] for name, valid in batch.valid.items()}
    batch.strong = batch.strong[:, first : first + width]
    batch.weak = batch.weak[:0]  # the labels of a whole clip do not hold for a part of it
