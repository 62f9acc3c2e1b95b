"""Where a training run stands on disk: its checkpoint, and the settings that it had from which step on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.crnn import Crnn

_log = logging.getLogger(__name__)
_SPLIT = ("seed", "uses", "validation_share", "test_share")
"""What of a corpus's configuration decides which recordings are trained on."""


def resume(
    out: Path, student: Crnn, teacher: Crnn, optimiser: torch.optim.Optimizer, rng: np.random.Generator
) -> tuple[int, float]:
    """Load `out/checkpoint.pt` into all of these: its step and its best validation; (0, -1.0) if there is none.

    Raises:
        EarwitnessError: it was trained on other modalities.

    """
    path = out / "checkpoint.pt"
    if not path.exists():
        return 0, -1.0
    state = torch.load(path, weights_only=True)
    if state["modalities"] != list(student.modalities):
        raise EarwitnessError(
            f"{path}: was trained on {', '.join(state['modalities'])}: name another folder or delete it"
        )
    student.load_state_dict(state["student"])
    teacher.load_state_dict(state["teacher"])
    optimiser.load_state_dict(state["optimiser"])
    rng.bit_generator.state = json.loads(state["rng"])
    torch.set_rng_state(state["torch_rng"])
    _log.info("continuing at step %d", state["step"])
    return int(state["step"]), float(state["best"])


def begin_with(
    bundle: Bundle, out: Path, student: Crnn, teacher: Crnn, classes: Sequence[str], corpus: Mapping[str, Any]
) -> int:
    """Load a bundle's network into both, and its settings so far into `out`: the step that it was trained to.

    Raises:
        EarwitnessError: it has other classes or modalities, or its corpus was split in another way than `corpus`, a
            corpus's configuration, so that it may have learned from what it would be judged by.

    """
    if bundle.classes != tuple(classes) or bundle.modalities != student.modalities:
        raise EarwitnessError(
            f"{bundle.name} has the classes {', '.join(bundle.classes)} and looks at {', '.join(bundle.modalities)}: "
            "begin with a bundle of the corpus's classes and the configuration's modalities"
        )
    before = bundle.provenance.get("corpus", {})
    step = int(bundle.provenance["steps"])
    phases = [{"corpus": before, **one} for one in bundle.provenance["fit"] if one["from_step"] < step]
    check_split(bundle.name, [{"corpus": before}, *phases], corpus)
    student.load_state_dict(bundle.tensors)
    teacher.load_state_dict(bundle.tensors)
    _write_settings(out, {"phases": phases})
    return step


def check_split(name: str, phases: Iterable[Mapping[str, Any]], corpus: Mapping[str, Any]) -> None:
    """See that what was trained in `phases` can't know what a corpus with this configuration keeps apart.

    Raises:
        EarwitnessError: a phase's corpus was split in another way, or its validation recordings were trained on and
            are not in `corpus`.

    """
    for before in (one["corpus"] for one in phases if "corpus" in one):
        other = [field for field in _SPLIT if before.get(field) != corpus.get(field)]
        if before.get("train_on_validation", False) and not corpus.get("train_on_validation", False):
            other.append("train_on_validation")
        if other:
            raise EarwitnessError(
                f"{name} was trained on a corpus with another {', '.join(other)}, so it may know the recordings that "
                "this corpus keeps for validation and test: make the corpus with the same, or begin without it"
            )


def note_settings(out: Path, step: int, student: Crnn, classes: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Write to `out/fit.json` that the run has these settings from `step` on: it may go on with others.

    Raises:
        EarwitnessError: they go on with a corpus that was split in another way, as `check_split` has it.

    """
    path = out / "fit.json"
    phases = json.loads(path.read_text())["phases"] if path.exists() else []
    phases = [one for one in phases if one["from_step"] < step]
    check_split(str(out), phases, settings["corpus"])
    phases.append({"from_step": step, **settings})
    _write_settings(out, {"classes": list(classes), "modalities": list(student.modalities), "phases": phases})


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    part = path.with_name(path.name + ".part")
    torch.save(dict(state), part)
    os.replace(part, path)


def _write_settings(out: Path, settings: Mapping[str, Any]) -> None:
    (out / "fit.json").write_text(json.dumps(settings, indent=1) + "\n")
