"""An experiment's file as the runs that it asks for: one `fit` for each row and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.errors import ConfigError
from train import config
from train.config import FitConfig
from train.experiment.config import ExperimentConfig
from train.learning.augment import unused

_STEPS, _EPOCHS = "steps", "epochs"


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run: a row and a seed."""

    row: str
    seed: int
    settings: FitConfig
    features: Path  # folder of its features
    folder: Path

    @property
    def name(self) -> str:
        """Row and seed, for people."""
        return f"{self.row}/{self.seed}"


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment, ready to be carried out."""

    name: str
    config: ExperimentConfig
    corpus: Path
    out: Path
    runs: tuple[RunPlan, ...]  # all rows' first seeds, then their second ones, ...: a table is soon complete

    def of_row(self, row: str) -> tuple[RunPlan, ...]:
        """The runs of a row."""
        return tuple(run for run in self.runs if run.row == row)


def read(path: Path, corpus: Path | None = None, features: Path | None = None, out: Path | None = None) -> Plan:
    """The plan of an experiment's file; the folders replace the file's.

    Raises:
        ConfigError: the file or its base can't be read, or has an unknown field or an invalid value.

    """
    experiment = config.load(path, ExperimentConfig)
    name = experiment.name or path.stem
    base = {} if experiment.base is None else _fields(path.parent / experiment.base)
    store = features or experiment.features
    folder = out or experiment.out or Path("runs") / name
    settings = {row: _settings(path, experiment, base, row) for row in experiment.rows}
    runs = tuple(
        RunPlan(
            row,
            seed,
            settings[row].model_copy(update={"seed": seed}),
            store / experiment.rows[row].features,
            folder / "runs" / row / str(seed),
        )
        for seed in experiment.seed_list
        for row in experiment.rows
    )
    return Plan(name, experiment, corpus or experiment.corpus, folder, runs)


def _settings(path: Path, experiment: ExperimentConfig, base: Mapping[str, Any], row: str) -> FitConfig:
    """What `fit` gets for a row: the base's fields, then the experiment's, then the row's."""
    fields = _over(_over({"threads": 1, **base}, experiment.fit), experiment.rows[row].fit)
    modalities = experiment.modalities_of(row)
    if modalities is not None:
        fields["modalities"] = modalities
    if "seed" in experiment.fit or "seed" in experiment.rows[row].fit:
        raise ConfigError(f"{path}: rows.{row}: fit has a seed: set the experiment's `seeds` instead")
    settings = config.validated(fields, FitConfig, [str(path), f"rows.{row}"], see="train/config.py")
    own = [name for name in unused(settings.modalities, settings) if name in experiment.rows[row].fit]
    if own and not settings.distil_from:
        raise ConfigError(f"{path}: rows.{row}: fit: {own[0]} has no effect with these inputs and clips: leave it out")
    return settings


def _over(fields: Mapping[str, Any], instead: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with those of `instead`; a number of steps replaces one of epochs, and the other way round."""
    merged = {**fields, **instead}
    for one, other in ((_STEPS, _EPOCHS), (_EPOCHS, _STEPS)):
        if one in instead and other not in instead:
            merged.pop(other, None)
    return merged


def _fields(path: Path) -> dict[str, Any]:
    raw = config.read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: is not a configuration of `earwitness-train fit`")
    return raw
