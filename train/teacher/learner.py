"""Everything that changes while a teacher is trained, and its checkpoint."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from train.checkpoint import CHECKPOINT, reading, save
from train.learning.mean_teacher import average_into, warm_share
from train.teacher.config import TeachConfig
from train.teacher.network import TeacherNetwork
from train.teacher.record import Record

_log = logging.getLogger(__name__)
_LEAST = 1e-3
"""Share of the highest learning rates that every step has at least."""


@dataclass(slots=True)
class Learner:
    """The network that learns, the mean of its weights, the optimiser and the generator of all draws."""

    network: TeacherNetwork
    mean: TeacherNetwork  # what becomes the teacher
    optimiser: torch.optim.AdamW  # its first group: the new layers, its second one: mn04's
    rng: np.random.Generator
    step: int = 0

    @classmethod
    def new(cls, network: TeacherNetwork, config: TeachConfig) -> Learner:
        """Before the first step."""
        trunk = list(network.trunk.parameters())
        others = [value for name, value in network.named_parameters() if not name.startswith("trunk.")]
        optimiser = torch.optim.AdamW(
            [{"params": others}, {"params": trunk}], lr=config.learning_rate, weight_decay=config.weight_decay
        )
        mean = copy.deepcopy(network).eval().requires_grad_(False)
        return cls(network.train(), mean, optimiser, np.random.default_rng(config.seed))

    def set_rates(self, config: TeachConfig) -> None:
        """The learning rates of the next step."""
        rising = self.step / config.warmup_steps if config.warmup_steps else 1.0
        falling = (config.steps - self.step) / (config.anneal_share * config.steps)
        share = max(min(1.0, rising) * min(1.0, falling), _LEAST)
        for group, highest in zip(
            self.optimiser.param_groups, (config.learning_rate, config.trunk_learning_rate), strict=True
        ):
            group["lr"] = share * highest

    def update_mean(self, ema: float) -> None:
        """Move the mean towards the network, after a step, which `step` counts already."""
        average_into(self.mean, self.network, warm_share(self.step - 1, ema))

    def save(self, out: Path, record: Record) -> None:
        """Write `checkpoint.pt` atomically."""
        state = {
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "rng": json.dumps(self.rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
            "record": msgspec.json.encode(record).decode(),
        }
        save(out / CHECKPOINT, state)

    def load(self, out: Path, record: Record) -> Record | None:
        """Restore `checkpoint.pt`, and return the record that the run began with; None if there is none.

        Raises:
            EarwitnessError: it is damaged, or is of a run with another record.

        """
        path = out / CHECKPOINT
        if not path.exists():
            return None
        with reading(path) as state:
            begun = msgspec.json.decode(state["record"], type=Record)
            begun.check_same(record, out)
            self.network.load_state_dict(state["network"])
            self.mean.load_state_dict(state["mean"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.rng.bit_generator.state = json.loads(state["rng"])
            torch.set_rng_state(state["torch_rng"])
            self.step = int(state["step"])
        _log.info("%s: resuming at step %d", out, self.step)
        return begun
