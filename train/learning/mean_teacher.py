"""The mean teacher (Tarvainen & Valpola 2017) as used in the paper (section 2.3)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamer.networks.crnn import Posteriors
from streamer.networks.forms import FusionNetwork
from train.config import FitConfig
from train.learning.augment import Batch
from train.learning.edges import edge_weights


def learning_rate(step: int, config: FitConfig) -> float:
    """`highest * exp(-5 (1 - t / ramp)^2)` during the ramp, then times `decay` per step; annealed at the end."""
    left = min(1.0, (config.steps - step) / config.anneal_steps) if config.anneal_steps else 1.0
    return config.learning_rate * ramp(step, config) * config.decay ** max(0, step - config.ramp_steps) * left


def ramp(step: int, config: FitConfig) -> float:
    """The exponential ramp, from exp(-5) at step 0 to 1."""
    return math.exp(-5 * (1 - min(1.0, step / config.ramp_steps)) ** 2)


def new_teacher(student: FusionNetwork) -> FusionNetwork:
    """A copy of the student without gradients, in evaluation mode: no dropout, running statistics."""
    return copy.deepcopy(student).eval().requires_grad_(False)


def follow(teacher: nn.Module, student: nn.Module, step: int, config: FitConfig) -> None:
    """Move the teacher towards the student: an exponential moving average of weights and of float buffers.

    Batch norm's running statistics are averaged like the weights, so that they match the averaged weights; its
    counters are copied. Step 0 is the first one.
    """
    average_into(teacher, student, warm_share(step, config.ema) if config.ema_warmup else config.ema)


def warm_share(step: int, ema: float) -> float:
    """What a moving average keeps of itself after a step: at first less than `ema`, so that it leaves its start."""
    return min(1 - 1 / (step + 2), ema)


@torch.no_grad()
def average_into(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """Move weights and float buffers: what stays of the teacher's is the share `keep`. Counters are copied."""
    for ours, theirs in zip(teacher.state_dict().values(), student.state_dict().values(), strict=True):
        if ours.is_floating_point():
            ours.lerp_(theirs, 1 - keep)
        else:
            ours.copy_(theirs)


@dataclass(frozen=True, slots=True)
class Guidance:
    """Further targets of some clips and cells: of other models, or made from their scores."""

    cells: Tensor  # (B, T, classes), 0 to 1
    cell_weight: Tensor  # (B, T, classes); 0: there is no target
    clips: Tensor  # (B, classes), 0 to 1
    clip_weight: Tensor  # (B, classes)

    def of(self, rows: Tensor) -> Guidance:
        """That of some clips."""
        return Guidance(self.cells[rows], self.cell_weight[rows], self.clips[rows], self.clip_weight[rows])

    def to(self, device: torch.device) -> Guidance:
        """The same on `device`."""
        return Guidance(*(one.to(device) for one in (self.cells, self.cell_weight, self.clips, self.clip_weight)))


@dataclass(frozen=True, slots=True)
class Totals:
    """What the means of a batch's costs are taken over.

    They are those of the whole batch, also in a process that has only some of its clips: the sum of all processes'
    costs is then the cost of one process with the whole batch, however the clips, labels and masks are distributed.
    """

    clips: float
    labelled: float  # clips with labels
    frames: float  # sum of the weights of strong labels
    cells: float  # valid cells of all clips


def totals_of(batch: Batch, valid: Tensor, config: FitConfig) -> Totals:
    """The totals of a whole batch. Arguments as for `costs`."""
    weight = edge_weights(batch.strong, config) * valid[: len(batch.strong), :, None]
    return Totals(
        len(valid), len(batch.strong) + len(batch.weak), float(weight.sum()), float(valid.sum()) * batch.classes
    )


def costs(
    student: Posteriors,
    teacher: Posteriors,
    batch: Batch,
    valid: Tensor,
    config: FitConfig,
    totals: Totals | None = None,
) -> dict[str, Tensor]:
    """The terms of the training cost, before `weights_of` is applied.

    Args:
        student, teacher: both networks' posteriors of the batch's clips, (B, T, classes) and (B, classes).
        batch: its first clips have strong labels, the next weak ones, the rest none.
        valid: (B, T) bool, cells of which the student has media.
        config: of the run.
        totals: of the whole batch, if these are some of its clips; None: they are all.

    """
    if totals is None:
        totals = totals_of(batch, valid, config)
    strong_clips, weak_clips = len(batch.strong), len(batch.weak)
    weight = valid[:, :, None].float()
    bce = nn.functional.binary_cross_entropy_with_logits(student.logits[:strong_clips], batch.strong, reduction="none")
    frames = (bce * (edge_weights(batch.strong, config) * weight[:strong_clips])).sum() / max(totals.frames, 1e-6)
    clip_targets = torch.cat([batch.strong.amax(dim=1), batch.weak])
    clips = student.clip[: strong_clips + weak_clips].clamp(1e-6, 1 - 1e-6)
    clip_bce = nn.functional.binary_cross_entropy(clips, clip_targets, reduction="none").mean(dim=1)
    clip_weight = torch.ones_like(clip_bce)
    clip_weight[:strong_clips] = config.clip_cost
    frame_gap = (student.cells - teacher.cells).square()
    clip_gap = (student.clip - teacher.clip).square()
    return {
        "frames": frames,  # 0 without strong clips: weak labels give no targets per cell
        "clips": (clip_weight * clip_bce).sum() / max(1, totals.labelled),
        "consistency_frames": (frame_gap * weight).sum() / max(totals.cells, 1e-6),
        "consistency_clips": clip_gap.sum() / (totals.clips * clip_gap.shape[1]),
    }


def guided_costs(
    student: Posteriors, guidance: Guidance, valid: Tensor, name: str, totals: tuple[float, float]
) -> dict[str, Tensor]:
    """Binary cross-entropy against further targets, means over what has one: `<name>_frames` and `<name>_clips`.

    Args:
        student: its posteriors, (B, T, classes) and (B, classes).
        guidance: of the same clips.
        valid: (B, T) bool, cells of which the student has media.
        name: of the targets.
        totals: sums of the weights of cells and of clips over the whole batch, as `guided_totals` returns them.

    """
    cells = nn.functional.binary_cross_entropy_with_logits(student.logits, guidance.cells, reduction="none")
    clips = nn.functional.binary_cross_entropy(student.clip.clamp(1e-6, 1 - 1e-6), guidance.clips, reduction="none")
    heard = valid.any(dim=1)[:, None]
    return {
        f"{name}_frames": (cells * guidance.cell_weight * valid[:, :, None]).sum() / max(totals[0], 1e-6),
        f"{name}_clips": (clips * guidance.clip_weight * heard).sum() / max(totals[1], 1e-6),
    }


def guided_totals(cell_weight: Tensor, clip_weight: Tensor, valid: Tensor) -> tuple[float, float]:
    """Sums of the weights of cells and of clips of a whole batch; arguments as in `Guidance` and `guided_costs`."""
    heard = valid.any(dim=1)[:, None]
    return float((cell_weight * valid[:, :, None]).sum()), float((clip_weight * heard).sum())


def weights_of(step: int, config: FitConfig) -> dict[str, float]:
    """The weight of each term of the cost at a step."""
    consistency = ramp(step, config) if config.consistency_ramp else 1.0
    return {
        "frames": 1.0,
        "clips": 1.0,
        "consistency_frames": consistency * config.consistency_frames,
        "consistency_clips": consistency * config.consistency_clip,
        "distilled_frames": config.distil_frames,
        "distilled_clips": config.distil_clips,
        "pseudo_frames": config.pseudo_frames,
        "pseudo_clips": config.pseudo_clips,
    }
