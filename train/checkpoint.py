"""The state of a training run on disk: everything needed to resume it with identical results."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.forms import FusionNetwork
from streamer.networks.stream_crnn import StreamCrnn
from train.config import FitConfig
from train.learning.warm_start import stream_of_window

CHECKPOINT, BEST, LOG = "checkpoint.pt", "best.pt", "log.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Best:
    """The networks with the best validation scores so far; with `keep: last`, the last ones."""

    merit: float = -1.0  # mean of the validation's F1 scores
    state: Mapping[str, Any] | None = None  # teacher, student, step, validation, as in `best.pt`; None: none yet

    def save(self, out: Path) -> None:
        """Write `best.pt`, or remove it if the run has no best teacher (not yet, or not at the restored checkpoint)."""
        if self.state is not None:
            save(out / BEST, self.state)
        else:
            (out / BEST).unlink(missing_ok=True)


@dataclass(slots=True)
class Learner:
    """Everything that changes during training."""

    student: FusionNetwork
    teacher: FusionNetwork
    optimiser: torch.optim.Optimizer
    rng: np.random.Generator
    step: int = 0
    best: Best = field(default_factory=Best)
    kept: tuple[tuple[float, int], ...] = ()  # merit and step of the validations in `kept.Kept`
    sums: dict[str, float] = field(default_factory=dict)  # of the terms of the cost since the last validation
    summed: int = 0  # steps in `sums`

    def save(self, out: Path) -> None:
        """Write `checkpoint.pt` atomically."""
        save(out / CHECKPOINT, self.state())

    def state(self) -> dict[str, Any]:
        """Everything that changes during training, as `restore` takes it."""
        cuda = {"cuda_rng": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
        return {
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "best": {"merit": self.best.merit, "state": self.best.state},
            "kept": [list(row) for row in self.kept],
            "sums": dict(self.sums),
            "summed": self.summed,
            "rng": json.dumps(self.rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
            "modalities": list(self.student.modalities),
            **cuda,
        }

    def load(self, out: Path) -> bool:
        """Restore `checkpoint.pt`; False if there is none.

        Raises:
            EarwitnessError: it is damaged, or belongs to another network.

        """
        path = out / CHECKPOINT
        if not path.exists():
            return False
        with reading(path) as state:
            modalities = list(state["modalities"])
            if modalities != list(self.student.modalities):
                raise EarwitnessError(
                    f"{path}: was trained on {', '.join(modalities)}: name another folder or delete it"
                )
            if not isinstance(state["best"], dict):  # an older checkpoint: only the merit; the teacher is in `best.pt`
                state["best"] = {"merit": float(state["best"]), "state": _load_best(out)}
            self.restore(state)
        _log.info("%s: resuming at step %d", out, self.step)
        return True

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self.student.load_state_dict(state["student"])
        self.teacher.load_state_dict(state["teacher"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        torch.set_rng_state(state["torch_rng"])
        if "cuda_rng" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda_rng"])
        self.step = int(state["step"])
        self.best = Best(**state["best"])
        self.kept = tuple((float(merit), int(step)) for merit, step in state.get("kept", ()))
        self.sums, self.summed = dict(state.get("sums", {})), int(state.get("summed", 0))

    def change_settings(self, config: FitConfig, *, reseed: bool) -> None:
        """Continue with settings that differ from the checkpoint's."""
        for group in self.optimiser.param_groups:  # restored from the checkpoint
            group["weight_decay"] = config.weight_decay
            group["decoupled_weight_decay"] = config.optimiser == "adamw"  # all that tells torch's two apart
        if reseed:
            self.rng = np.random.default_rng(config.seed)
            torch.manual_seed(config.seed)

    def start_from(self, bundle: Bundle, step: int) -> None:
        """Begin with a trained network instead of a random one; the stream form also with one of the window form.

        Raises:
            EarwitnessError: the bundle's network has another architecture.

        """
        tensors: Mapping[str, Tensor] = bundle.tensors
        try:
            if bundle.stream is None and isinstance(self.student, StreamCrnn):
                tensors = stream_of_window(tensors, self.student.state_dict())
            self.student.load_state_dict(tensors)
            self.teacher.load_state_dict(tensors)
        except (RuntimeError, ValueError, KeyError) as error:
            raise EarwitnessError(
                f"bundle {bundle.name}: its network does not match the configuration: "
                f"{' '.join(str(error).split())[:160]}"
            ) from None
        self.step = step


@contextmanager
def reading(path: Path) -> Iterator[dict[str, Any]]:
    """The state in the checkpoint `path`, for a block that uses it.

    Raises:
        EarwitnessError: it can't be read, or the block fails on it: it is damaged, or of another network.

    """
    try:
        yield torch.load(path, map_location="cpu", weights_only=True)
    except EarwitnessError:
        raise
    except Exception as error:  # damaged data can raise any exception, in torch.load and in what uses the state
        what = " ".join(str(error).split()).partition(". ")[0][:120]  # torch advises to run the code in it, after that
        raise EarwitnessError(
            f"{path}: is damaged, or not a checkpoint of this run ({what}): restore it, or delete it to start over"
        ) from None


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically."""
    part = path.with_name(path.name + ".part")
    torch.save(dict(state), part)
    os.replace(part, path)


def trim_log(out: Path, step: int) -> None:
    """Remove from `log.jsonl` the lines after `step` and a truncated last line: training writes them again."""
    path = out / LOG
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            _log.warning("%s: removed an unreadable line: %.80s", path, line.strip())
    part = path.with_name(path.name + ".part")
    part.write_text("".join(kept))
    part.replace(path)


def _load_best(out: Path) -> Mapping[str, Any] | None:
    path = out / BEST
    if not path.exists():
        return None
    with reading(path) as state:
        return state
