"""Dropout that costs little on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Rows:
    """The clips that this process has of a batch that is distributed over several."""

    clips: int  # of the whole batch
    index: Tensor  # of the clips that are here, (clips here,) int64


class ByteDropout(nn.Module):
    """Dropout with a probability that is rounded to 1/256, so that one random byte decides about one value.

    `nn.Dropout` draws a float for each value, which took a third of a training step on a CPU.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self._dropped = round(probability * 256)  # of the 256 values of a byte

    rows: Rows | None = None
    """Of a batch that is distributed: the draws are those of a process that has all of it."""

    def forward(self, values: Tensor) -> Tensor:
        """Drop some of `values`, of any shape, in training, and scale up the others to keep the mean."""
        if not self.training or self._dropped == 0:
            return values
        count = values.numel() if self.rows is None else values.numel() // len(values) * self.rows.clips
        words = torch.empty(-(-count // 8), dtype=torch.int64, device=values.device).random_(-(2**63), None)
        drawn = words.view(torch.uint8)[:count]
        if self.rows is not None:
            drawn = drawn.view(self.rows.clips, -1)[self.rows.index].flatten()
        kept = (drawn >= self._dropped).to(values.dtype)
        # In the memory order of `values`, so that the product is one pass over both.
        mask = torch.as_strided(kept, values.shape, values.stride()) if _is_dense(values) else kept.view(values.shape)
        return values * mask.mul_(256 / (256 - self._dropped))


def _is_dense(values: Tensor) -> bool:
    return values.is_contiguous() or values.is_contiguous(memory_format=torch.channels_last)
