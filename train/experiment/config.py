"""The configuration of an experiment: YAML files such as `configs/train/table3.yaml`. All defaults are here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, model_validator

from train.config import unknown_modality
from train.experiment import paper
from train.experiment.metrics import Metric

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$")]
"""Letters, digits and `+._-`: it is the name of a folder too."""
Mode = Literal["clip", "stream"]
"""Whole clips at once, or as the daemon hears them."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RowConfig(_Strict):
    """A row: a way to train, which is repeated with every seed."""

    inputs: str | None = Field(
        None, description="names of `inputs`, joined by `+`; default: the row's name, if `inputs` are given"
    )
    modalities: tuple[str, ...] | None = Field(None, min_length=1, description="modalities; instead of `inputs`")
    fit: dict[str, Any] = Field({}, description="fields of `fit`'s configuration, instead of the base's")
    features: Path = Field(
        Path(),
        description="folder of this row's features within the experiment's, where specs differ between rows",
    )


class ScoringConfig(_Strict):
    """How a trained network is scored."""

    part: Literal["validation", "test"] = Field("test", description="the part whose scores are compared")
    modes: tuple[Mode, ...] = Field(
        ("clip",), min_length=1, description="clip: whole clips, as in the paper; stream: as the daemon hears them"
    )
    decoding: Literal["untuned", "tuned"] = Field(
        "untuned",
        description="untuned: `threshold` and `median_cells` of `fit` for all classes, as in the paper; tuned: on the "
        "validation clips of each run",
    )

    @property
    def selects_by(self) -> Mode:
        """The mode in which validation clips are scored to select runs: whole clips, unless these are not compared."""
        return "clip" if "clip" in self.modes else self.modes[0]


class ExperimentConfig(_Strict):
    """What `earwitness-train experiment` trains, scores and compares."""

    title: str = Field(description="what is compared, for the table")
    name: Name | None = Field(None, description="of its folder and of its table in docs; default: the file's name")
    corpus: Path = Field(Path("data/corpus"), description="folder of the corpus, or of DCASE's files")
    features: Path = Field(Path("data/features"), description="folder of features; missing ones are computed first")
    out: Path | None = Field(None, description="folder of the runs and tables; default: `runs/` and the name")
    base: Path | None = Field(None, description="YAML of `fit`, relative to this file; default: `fit`'s defaults")
    fit: dict[str, Any] = Field({}, description="fields of `fit`'s configuration for all rows, instead of the base's")
    inputs: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        {}, description="the modalities behind each name that rows use: which networks play the paper's S, A and V"
    )
    rows: dict[Name, RowConfig] = Field(min_length=1, description="in the order of the table")
    baseline: Name | None = Field(None, description="the row that the others are compared with, in pairs")
    seeds: PositiveInt | tuple[int, ...] = Field(
        3, description="initialisations of each row: their number (then seeds are 0, 1, ...) or a list of seeds"
    )
    keep: PositiveInt | None = Field(
        None,
        description="the table has the mean of this many runs, those with the best validation scores (paper section 5: "
        "5 of 20); default: of all",
    )
    select_by: Literal["each", "mean"] = Field(
        "each",
        description="the validation score that selects runs, which the paper does not say; each: for every metric its "
        "own; mean: one selection by the mean of all metrics",
    )
    metrics: tuple[Metric, ...] = Field(paper.METRICS, min_length=1, description="F1 scores, as `clip_micro`")
    scoring: ScoringConfig = ScoringConfig()
    paper: bool = Field(False, description="print the figures of the paper's table 3 beside; rows have its names")

    @model_validator(mode="after")
    def _fits_together(self) -> ExperimentConfig:
        for name, row in self.rows.items():
            self._check_row(name, row)
        if self.baseline is not None and self.baseline not in self.rows:
            raise ValueError(f"baseline: there is no row {self.baseline}; there are {', '.join(self.rows)}")
        if not self.seed_list or len(set(self.seed_list)) < len(self.seed_list):
            raise ValueError("seeds must be one or more different numbers")
        if self.keep is not None and self.keep > len(self.seed_list):
            raise ValueError(f"keep is {self.keep}, but there are {len(self.seed_list)} seeds")
        if self.scoring.part == "validation" and self.kept < len(self.seed_list):
            raise ValueError("keep: runs that validation scores select can't be compared on its clips: score `test`")
        if self.paper and (strange := [name for name in self.rows if name not in paper.TABLE_3]):
            raise ValueError(f"paper: its table 3 has no row {strange[0]}; it has {', '.join(paper.TABLE_3)}")
        return self

    def _check_row(self, name: str, row: RowConfig) -> None:
        if row.modalities is not None and row.inputs is not None:
            raise ValueError(f"rows.{name}: give inputs or modalities, not both")
        if row.modalities is None and row.inputs is None and not self.inputs:
            return  # those of `fit`
        for one in (row.inputs or name).split("+") if row.modalities is None else ():
            if one not in self.inputs:
                raise ValueError(
                    f"rows.{name}: there is no input {one!r}; there are {', '.join(self.inputs) or 'none'}"
                )
        if wrong := unknown_modality(self.modalities_of(name) or ()):
            raise ValueError(f"rows.{name}: {wrong}")

    def modalities_of(self, row: str) -> tuple[str, ...] | None:
        """The modalities of a row; None: those of `fit`."""
        its = self.rows[row]
        if its.modalities is not None or (its.inputs is None and not self.inputs):
            return its.modalities
        return tuple(dict.fromkeys(one for name in (its.inputs or row).split("+") for one in self.inputs[name]))

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def kept(self) -> int:
        """Runs of a row whose mean is in the table."""
        return self.keep or len(self.seed_list)
