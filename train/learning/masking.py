"""What the student lacks of a batch: whole modalities, and holes in them.

One model then serves every combination of its modalities and survives a dark camera. A masked cell is what the daemon
makes of a missing one (`streamer.windows.Windower`): zeros that are not valid. The teacher hears and sees all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from streamer.types import Bools
from train.config import FitConfig


def masked(
    features: Mapping[str, Tensor],
    valid: Mapping[str, Tensor],
    modalities: Sequence[str],
    config: FitConfig,
    rng: np.random.Generator,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features and masks as the student gets them; the arguments are not changed.

    Args:
        features: modality -> (B, T, ...).
        valid: modality -> (B, T) bool.
        modalities: the student's.
        config: its `modality_dropout`, `holes` and `hole_cells`.
        rng: draws for all clips, whichever of them this process trains on.

    """
    new_features, new_valid = dict(features), dict(valid)
    if not config.modality_dropout and not config.holes:
        return new_features, new_valid
    clips, cells = valid[modalities[0]].shape
    kept = {name: np.ones((clips, cells), np.bool_) for name in modalities}
    if config.modality_dropout:
        there = np.stack([valid[name].any(dim=1).numpy() for name in modalities], axis=1)
        for index, row in enumerate(_without_some(there, config.modality_dropout, rng)):
            for name, stays in zip(modalities, row, strict=True):
                kept[name][index] &= stays
    if config.holes:
        for one in kept.values():
            _make_holes(one, config, rng)
    for name, one in kept.items():
        keep = torch.from_numpy(one)
        new_valid[name] = valid[name] & keep
        new_features[name] = features[name] * keep.view(clips, cells, *(1,) * (features[name].ndim - 2))
    return new_features, new_valid


def _without_some(there: Bools, probability: float, rng: np.random.Generator) -> Bools:
    """(clips, modalities): which stay. Of a clip's own modalities (`there`) one always does."""
    stays: Bools = rng.random(there.shape) >= probability
    lucky = rng.random(there.shape)  # drawn for every clip, so that the number of draws does not depend on the clips
    for row, has, order in zip(stays, there, lucky, strict=True):
        if has.any() and not (row & has).any():
            row[np.argmax(np.where(has, order, -1.0))] = True
    return stays


def _make_holes(kept: Bools, config: FitConfig, rng: np.random.Generator) -> None:
    """Clear a run of cells in some rows of `kept`, (clips, cells)."""
    for row in kept:
        if rng.random() < config.holes:
            width = min(int(rng.integers(1, config.hole_cells + 1)), len(row))
            first = int(rng.integers(len(row) - width + 1))
            row[first : first + width] = False
