"""The teacher's network: mn04's trunk, heard at three depths on the cell grid, and a GRU over the whole clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamer.networks.mn04 import MELS, SIZE, Mn04Network
from train.teacher.frames import FRAMES_PER_CELL


@dataclass(frozen=True, slots=True)
class Depth:
    """A place in the trunk whose maps are heard."""

    stride: int  # frames of one column, mel bins of one row
    channels: int
    averaged: bool = False  # over the rows, as mn04 itself does at its end; otherwise each row is heard

    @property
    def width(self) -> int:
        """Values of one column."""
        return self.channels if self.averaged else self.channels * MELS // self.stride


DEPTHS: Mapping[int, Depth] = {6: Depth(8, 16), 12: Depth(16, 48), 16: Depth(32, SIZE, averaged=True)}
"""By the number of the layer in `Mn04Network.features`: a column in 80, 160 and 320 ms."""
_PROJECTION = 96
_GRU_SIZE = 128
_RARE = -2.0
"""The classifier's first bias: most cells have none of the classes."""


class TeacherNetwork(nn.Module):
    """The network. Squeeze and excitation average over the whole clip, so clips of one batch are equally long."""

    def __init__(self, trunk: nn.Sequential, classes: int, dropout: float = 0.0) -> None:
        """`trunk`: `Mn04Network.features`, which becomes a part of this network."""
        super().__init__()
        self.trunk = trunk.requires_grad_(True)
        self.norms = nn.ModuleDict({str(at): nn.BatchNorm1d(depth.width) for at, depth in DEPTHS.items()})
        self.projections = nn.ModuleDict({str(at): nn.Linear(depth.width, _PROJECTION) for at, depth in DEPTHS.items()})
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(
            _PROJECTION * len(DEPTHS), _GRU_SIZE, 2, batch_first=True, bidirectional=True, dropout=dropout
        )
        self.classify = nn.Linear(2 * _GRU_SIZE, classes)
        nn.init.constant_(self.classify.bias, _RARE)

    @classmethod
    def empty(cls, classes: int) -> TeacherNetwork:
        """A network for a stored state."""
        return cls(Mn04Network().features, classes)

    def forward(self, log_mel: Tensor, cells: int) -> Tensor:
        """(B, 128, frames) log-mel frames to the log-odds of the first `cells` >= 1 cells, (B, cells, classes)."""
        maps = log_mel[:, None].contiguous(memory_format=torch.channels_last)
        heard: list[Tensor] = []
        for at, layer in enumerate(self.trunk):
            maps = layer(maps)
            if at in DEPTHS:
                columns = maps.mean(dim=2) if DEPTHS[at].averaged else maps.flatten(1, 2)  # (B, width, columns)
                on_cells = self.norms[str(at)](_at_cells(columns, cells, DEPTHS[at].stride)).transpose(1, 2)
                heard.append(self.dropout(torch.relu(self.projections[str(at)](on_cells))))
        context, _ = self.gru(torch.cat(heard, dim=2))
        log_odds: Tensor = self.classify(self.dropout(context))
        return log_odds


def _at_cells(columns: Tensor, cells: int, stride: int) -> Tensor:
    """(B, width, columns) to (B, width, cells): between the two columns beside each cell's centre, linearly.

    Column k is centred on frame k x stride, because the convolutions pad both sides alike.
    """
    last = columns.shape[2] - 1
    places = (torch.arange(cells, device=columns.device) + 0.5) * (FRAMES_PER_CELL / stride)
    before = places.floor().long().clamp(max=last)
    after = (before + 1).clamp(max=last)
    share = (places - before).clamp(max=1)
    return columns[:, :, before] * (1 - share) + columns[:, :, after] * share
