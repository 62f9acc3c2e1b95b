"""How a learner's networks are run: on which device, in which precision and layout, alone or in several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streamer.networks.crnn import Posteriors
from streamer.networks.dropout import ByteDropout, Rows
from streamer.networks.forms import FusionNetwork
from streamer.networks.stream_crnn import StreamCrnn
from train.checkpoint import Learner
from train.config import FitConfig
from train.learning.batch_norm import SharedBatchNorm2d
from train.learning.distributed import Group
from train.learning.mean_teacher import new_teacher

Forward: TypeAlias = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Posteriors]


@dataclass(frozen=True, slots=True)
class Runner:
    """A student and its teacher, ready to run."""

    group: Group
    student: Forward
    teacher: Forward

    @property
    def device(self) -> torch.device:
        """Where inputs must be."""
        return self.group.device


def new_learner(student: FusionNetwork, config: FitConfig, device: torch.device) -> Learner:
    """A student, its teacher and its optimiser, on `device` and in the configured layout and precision."""
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    student.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    student.channels_last, student.reduced_precision = config.channels_last, config.reduced_precision
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimiser]
    optimiser = make(student.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    return Learner(student, new_teacher(student), optimiser, np.random.default_rng(config.seed))


def prepared(learner: Learner, config: FitConfig, group: Group, rows: Rows | None) -> Runner:
    """The learner's networks, changed in place and wrapped for this process; `learner` still holds their state.

    Args:
        learner: after its checkpoint was loaded.
        config: of the run.
        group: the processes of the run.
        rows: the clips of each batch that this process has; None: all.

    Raises:
        EarwitnessError: networks can't be compiled here.

    """
    student: nn.Module = learner.student
    if config.compile:
        for network in (learner.student, learner.teacher):
            _compile(network)
    if group.size > 1:
        assert rows is not None
        _distribute(learner.student, Rows(rows.clips, rows.index.to(group.device)))
        ids = [group.device] if group.device.type == "cuda" else None
        student = DistributedDataParallel(student, device_ids=ids, broadcast_buffers=False)
    return Runner(group, student, learner.teacher)


def _compile(network: FusionNetwork) -> None:
    """Compile the convolutions, which are most of the work: torch can't compile a GRU."""
    if network.convolutions is not None:
        network.convolutions.compile()


def _distribute(network: FusionNetwork, rows: Rows) -> None:
    """Let layers that depend on the whole batch see it: batch norm's statistics, and the draws of dropout."""
    if network.convolutions is not None:
        for module in list(network.convolutions.modules()):
            for name, layer in module.named_children():
                if isinstance(layer, nn.BatchNorm2d):
                    setattr(module, name, SharedBatchNorm2d.of(layer))
    for layer in network.modules():
        if isinstance(layer, ByteDropout):
            layer.rows = rows
    network.dropout = _RowDropout(network.dropout.p, rows)
    if isinstance(network, StreamCrnn):
        network.rows = rows


class _RowDropout(nn.Dropout):
    """`nn.Dropout` on some clips of a batch, with the draws of the whole batch."""

    def __init__(self, p: float, rows: Rows) -> None:
        super().__init__(p)
        self._rows = rows

    def forward(self, values: Tensor) -> Tensor:
        """Drop some of `values`, (clips here, cells, size), in training."""
        if not self.training or self.p == 0:
            return values
        clips, cells, size = self._rows.clips, *values.shape[1:]
        # Draws follow the memory, and a GRU's output lies cell by cell.
        by_cell = not values.is_contiguous() and values.transpose(0, 1).is_contiguous()
        ones = values.new_ones(cells, clips, size).transpose(0, 1) if by_cell else values.new_ones(clips, cells, size)
        return values * nn.functional.dropout(ones, self.p)[self._rows.index]
