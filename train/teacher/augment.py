"""Augmentation of log-mel frames: sounds add as powers, filters and gains add to the log."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streamer.features.mn04 import PER_DB, SILENCE, log_of, power_of
from train.learning.augment import response_db, some_adjacent
from train.teacher.config import TeachConfig
from train.teacher.frames import frames_in

_FAINTEST = 1e-3
"""The lowest peak power of a sound: what is below is digital silence, whose rounding must not be amplified."""


def augmented(log_mel: Tensor, targets: Tensor, config: TeachConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch with every augmentation that `config` enables.

    Args:
        log_mel: (B, 128, frames), changed in place.
        targets: (B, cells, classes) of 0 and 1, changed in place.
        config: how much of each.
        rng: all draws are from it.

    """
    clips, cells = targets.shape[:2]
    for row in range(clips):
        shift = int(rng.integers(cells))
        log_mel[row] = log_mel[row].roll(frames_in(shift), 1)
        targets[row] = targets[row].roll(shift, 0)
    if config.mixup:
        log_mel, targets = _mixed(log_mel, targets, config, rng)
    for clip in log_mel:
        clip += _response(clip.shape[0], config, rng)[:, None]
        clip.clamp_(min=SILENCE)
        clip[some_adjacent(config.mask_mels, clip.shape[0], rng)] = SILENCE
        clip[:, some_adjacent(config.mask_frames, clip.shape[1], rng)] = SILENCE
    return log_mel, targets


def _mixed(log_mel: Tensor, targets: Tensor, config: TeachConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Another clip's power is added to some clips, peak to peak within `gain_db`; the result has the labels of both."""
    clips = len(log_mel)
    partners = torch.from_numpy(rng.permutation(clips))
    chosen = torch.from_numpy((rng.random(clips) < config.mixup).astype(np.float32))
    gains_db = torch.from_numpy(rng.uniform(-config.gain_db, config.gain_db, clips).astype(np.float32))
    powers = power_of(log_mel)
    peaks = powers.amax(dim=(1, 2))
    gains = chosen * 10 ** (gains_db / 10) * peaks / peaks[partners].clamp_min(_FAINTEST)
    mixed = powers + powers[partners] * gains[:, None, None]
    return log_of(mixed), torch.maximum(targets, targets[partners] * chosen[:, None, None])


def _response(mels: int, config: TeachConfig, rng: np.random.Generator) -> Tensor:
    """A smooth random frequency response with a random gain, (mels,), as log-mel values."""
    made_db = response_db(mels, config.filter_db, rng) + rng.uniform(-config.gain_db, config.gain_db)
    return torch.from_numpy((made_db * PER_DB).astype(np.float32))
