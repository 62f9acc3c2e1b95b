"""Pseudo-labels of unlabelled clips, from mn04's calibrated scores of the AudioSet classes that stand for ours.

A score up to `pseudo_low` means that a class is not there, one from `pseudo_high` on that it is; between, there is no
label. Scores generalise where the network's embedding overfits few recordings (docs/decisions.md), so they can label
audio that nobody annotated. The student need not have mn04 among its modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamer.errors import EarwitnessError
from streamer.networks.crnn import linear_pooling
from train.config import FitConfig
from train.data import cache
from train.learning.augment import Batch
from train.learning.mean_teacher import Guidance

MODALITY = "mn04_scores"


@dataclass(frozen=True, slots=True)
class Labeller:
    """Makes pseudo-labels of batches."""

    columns: tuple[int | None, ...]  # of each of our classes among the scores; None: it has none
    low: float
    high: float

    @classmethod
    def of_run(cls, config: FitConfig, classes: Sequence[str], features: cache.Features) -> Labeller | None:
        """That of a run; None if it makes none.

        Args:
            config: of the run.
            classes: of the student.
            features: the stored ones.

        Raises:
            EarwitnessError: the stored scores are of none of the student's classes.

        """
        if not config.pseudo:
            return None
        scored = list(features.specs[MODALITY]["classes"])
        columns = tuple(scored.index(label) if label in scored else None for label in classes)
        if set(columns) == {None}:
            raise EarwitnessError(
                f"pseudo_frames, pseudo_clips: {MODALITY} scores {', '.join(scored)}, none of which this corpus has"
            )
        return cls(columns, config.pseudo_low, config.pseudo_high)

    def of(self, batch: Batch) -> Guidance:
        """Labels of the batch's unlabelled clips, where the scores are sure; other clips have weight 0."""
        valid = batch.valid[MODALITY][:, :, None]
        scores = _of_classes(batch.features[MODALITY] * valid, self.columns)
        unlabelled = torch.ones(len(scores), 1, dtype=torch.bool)
        unlabelled[: len(batch.strong) + len(batch.weak)] = False
        scored = torch.tensor([column is not None for column in self.columns])
        clips = linear_pooling(scores)
        sure = valid & unlabelled[:, :, None] & scored & ((scores <= self.low) | (scores >= self.high))
        clip_sure = valid.any(dim=1) & unlabelled & scored & ((clips <= self.low) | (clips >= self.high))
        return Guidance((scores >= self.high).float(), sure.float(), (clips >= self.high).float(), clip_sure.float())


def _of_classes(scores: Tensor, columns: Sequence[int | None]) -> Tensor:
    """(B, T, scores) -> (B, T, classes); 0 for a class without scores."""
    return torch.stack(
        [scores[..., column] if column is not None else torch.zeros_like(scores[..., 0]) for column in columns], dim=-1
    )
