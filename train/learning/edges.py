"""Onset- and offset-weighted costs (Song 2024, arXiv 2403.13254): errors at an event's ends count more.

A median filter mends errors in the middle of events and of silence, but not at their ends.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from train.config import FitConfig


def edge_weights(strong: Tensor, config: FitConfig) -> Tensor:
    """The weight of each strong label in the frame cost, (S, T, classes), at least 1.

    An onset lies between a cell without a class and a cell with it. With `onset_weight` a, the two cells beside it
    have the weight 1 + a cos(pi / 2 x 0.5 / `edge_cells`), and so on by a half sine window to 1 at a distance of
    `edge_cells` cells. Likewise for offsets. Where windows overlap, the larger one counts. The ends of a clip are
    neither: what continues there may continue outside.

    Args:
        strong: (S, T, classes) of 0 and 1.
        config: its `onset_weight`, `offset_weight` and `edge_cells`.

    """
    weights = torch.ones_like(strong)
    steps = strong.diff(dim=1)  # (S, T - 1, classes): between a cell and the next
    for most, ends in ((config.onset_weight, steps > 0), (config.offset_weight, steps < 0)):
        if most and ends.shape[1] > 0:
            weights += most * _windows(ends, config.edge_cells)
    return weights


def _windows(ends: Tensor, cells: int) -> Tensor:
    """A half sine window around each of `ends`, (S, T - 1, classes) -> (S, T, classes); the larger where they meet."""
    made = ends.new_zeros((ends.shape[0], ends.shape[1] + 1, ends.shape[2]), dtype=torch.float32)
    for away in range(min(cells, ends.shape[1])):
        height = math.cos(math.pi / 2 * (away + 0.5) / cells)
        near = ends[:, : ends.shape[1] - away] * height  # the cell `away` after the one behind an end
        made[:, 1 + away :] = torch.maximum(made[:, 1 + away :], near)
        near = ends[:, away:] * height
        made[:, : ends.shape[1] - away] = torch.maximum(made[:, : ends.shape[1] - away], near)
    return made
