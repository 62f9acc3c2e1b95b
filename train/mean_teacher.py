"""The mean teacher (Tarvainen & Valpola 2017) as used in the paper (section 2.3)."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from streamer.networks.crnn import Crnn, Posteriors
from train.augment import Batch
from train.config import FitConfig


def learning_rate(step: int, config: FitConfig) -> float:
    """`highest * exp(-5 (1 - t / ramp)^2)` during the ramp, then times `decay` per step; annealed at the end."""
    left = min(1.0, (config.steps - step) / config.anneal_steps) if config.anneal_steps else 1.0
    return config.learning_rate * ramp(step, config) * config.decay ** max(0, step - config.ramp_steps) * left


def ramp(step: int, config: FitConfig) -> float:
    """The exponential ramp, from exp(-5) at step 0 to 1."""
    return math.exp(-5 * (1 - min(1.0, step / config.ramp_steps)) ** 2)


def new_teacher(student: Crnn) -> Crnn:
    """A copy of the student without gradients, in evaluation mode: no dropout, running statistics."""
    return copy.deepcopy(student).eval().requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, step: int, config: FitConfig) -> None:
    """Move the teacher towards the student: an exponential moving average of weights and of float buffers.

    Batch norm's running statistics are averaged like the weights, so that they match the averaged weights; its
    counters are copied. Step 0 is the first one.
    """
    keep = min(1 - 1 / (step + 2), config.ema) if config.ema_warmup else config.ema
    for ours, theirs in zip(teacher.state_dict().values(), student.state_dict().values(), strict=True):
        if ours.is_floating_point():
            ours.lerp_(theirs, 1 - keep)
        else:
            ours.copy_(theirs)


def costs(
    student: Posteriors, teacher: Posteriors, batch: Batch, valid: Tensor, config: FitConfig
) -> dict[str, Tensor]:
    """The terms of the training cost, before the consistency weights are applied.

    Args:
        student, teacher: both networks' posteriors of the batch's clips, (B, T, classes) and (B, classes).
        batch: its first clips have strong labels, the next weak ones, the rest none.
        valid: (B, T) bool, cells that hold media.

    """
    strong_clips, weak_clips = len(batch.strong), len(batch.weak)
    bce = nn.functional.binary_cross_entropy_with_logits(student.logits[:strong_clips], batch.strong, reduction="none")
    weight = valid[:, :, None].float()
    clip_targets = torch.cat([batch.strong.amax(dim=1), batch.weak])
    clips = student.clip[: strong_clips + weak_clips].clamp(1e-6, 1 - 1e-6)
    clip_bce = nn.functional.binary_cross_entropy(clips, clip_targets, reduction="none").mean(dim=1)
    clip_weight = torch.cat([torch.full((strong_clips,), config.clip_cost), torch.ones(weak_clips)])
    frames = (bce * weight[:strong_clips]).mean() / weight[:strong_clips].mean().clamp_min(1e-6)
    frame_gap = (student.cells - teacher.cells).square()
    return {
        "frames": frames if strong_clips else torch.zeros(()),  # weak labels give no targets per cell
        "clips": (clip_weight * clip_bce).sum() / max(1, len(clip_bce)),
        "consistency_frames": (frame_gap * weight).mean() / weight.mean().clamp_min(1e-6),
        "consistency_clips": (student.clip - teacher.clip).square().mean(),
    }
