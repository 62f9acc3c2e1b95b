"""An experiment's file becomes runs, or one line says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamer.errors import ConfigError
from tests.train.experiment.made import CONFIGS, ROWS, write_file
from train import config
from train.config import FitConfig
from train.experiment import paper, plan


def test_the_paper_at_its_full_size_is_140_runs_to_the_letter() -> None:
    made = plan.read(CONFIGS / "table3-paper.yaml")
    assert len(made.runs) == 7 * 20
    assert {run.row: run.settings.modalities for run in made.runs} == {
        "S": ("spectral",),
        "V": ("vgg16",),
        "A": ("vggish",),
        "S+V": ("spectral", "vgg16"),
        "S+A": ("spectral", "vggish"),
        "A+V": ("vggish", "vgg16"),
        "S+A+V": ("spectral", "vggish", "vgg16"),
    }
    assert made.config.kept == paper.KEPT
    assert len(made.config.seed_list) == paper.INITIALISATIONS
    profile = config.load(CONFIGS / "paper.yaml", FitConfig)
    for run in made.runs:
        differs = {name for name in FitConfig.model_fields if getattr(run.settings, name) != getattr(profile, name)}
        assert differs <= {"modalities", "seed", "threads", "validate_every", "checkpoint_every"}
        assert (run.settings.steps, sum(run.settings.batch.values())) == (paper.STEPS, paper.BATCH)


def test_table_3_here_has_the_papers_rows_and_our_encoders() -> None:
    made = plan.read(CONFIGS / "table3.yaml")
    assert tuple(made.config.rows) == ROWS
    assert made.config.modalities_of("S+A+V") == ("spectral", "mn04", "mn04_scores", "efficientnet_lite0")
    assert len(made.config.seed_list) >= 3
    assert "strong" not in made.runs[0].settings.batch  # the real data has no strongly labelled training clips


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("a*.yaml")) + sorted(CONFIGS.glob("table3*.yaml")), ids=str)
def test_every_file_can_be_read_and_each_row_has_its_seeds(path: Path) -> None:
    made = plan.read(path)
    assert made.name == path.stem
    assert made.out == Path("runs") / path.stem
    for row in made.config.rows:
        assert [run.seed for run in made.of_row(row)] == list(made.config.seed_list)
        assert [run.settings.seed for run in made.of_row(row)] == list(made.config.seed_list)
    assert [run.row for run in made.runs[: len(made.config.rows)]] == list(made.config.rows)  # a seed of each row first
    assert len({run.folder for run in made.runs}) == len(made.runs)


def test_the_alignments_differ_in_nothing_else_and_have_folders_of_their_own() -> None:
    made = plan.read(CONFIGS / "alignment.yaml", features=Path("stored"))
    paper_row, centred = made.of_row("S+A-paper")[0], made.of_row("S+A-centred")[0]
    assert (paper_row.features, centred.features) == (Path("stored/paper"), Path("stored/centred"))
    assert paper_row.settings.features["vggish"] == {"alignment": "paper", "last_relu": False}
    assert centred.settings.features["vggish"] == {"alignment": "centered", "last_relu": False}
    assert paper_row.settings.model_copy(update={"features": {}}) == centred.settings.model_copy(
        update={"features": {}}
    )


def test_the_alignments_of_mn04_are_row_a_of_table_3_and_differ_in_nothing_else() -> None:
    made, table = plan.read(CONFIGS / "alignment-mn04.yaml"), plan.read(CONFIGS / "table3.yaml")
    settings = {row: made.of_row(row)[0].settings for row in made.config.rows}
    every = {"every_cells": 4}
    for row, more in (
        ("A-centred", {}),
        ("A-paper", {"alignment": "paper"}),
        ("A-trailing", {"alignment": "trailing"}),
    ):
        assert settings[row].features["mn04"] == settings[row].features["mn04_scores"] == {**every, **more}
        same: dict[str, Any] = {"features": {}}
        assert settings[row].model_copy(update=same) == table.of_row("A")[0].settings.model_copy(update=same)


def test_a_rows_fields_replace_the_experiments_and_these_the_bases(tmp_path: Path) -> None:
    rows: dict[str, Any] = {"plain": {}, "more": {"fit": {"epochs": 2, "dropout": 0.1}}}
    path = write_file(
        tmp_path / "one.yaml",
        inputs={},
        rows=rows,
        baseline="plain",
        paper=False,
        fit={"steps": 5, "mixup": 0.5, "modalities": ["vggish"]},
    )
    made = plan.read(path)
    plain, more = (made.of_row(row)[0].settings for row in rows)
    assert (plain.steps, plain.epochs, plain.mixup) == (5, 0, 0.5)  # the base has 200 epochs
    assert (more.steps, more.epochs, more.mixup, more.dropout) == (500, 2, 0.5, 0.1)
    assert plain.dropout == pytest.approx(1 / 3)
    assert plain.threads == 1
    assert plain.modalities == ("vggish",)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rows": {"S+Q": {}}, "baseline": None, "paper": False}, "rows.S+Q: there is no input 'Q'; there are S, A, V"),
        ({"inputs": {"S": ["specktral"]}, "rows": {"S": {}}}, "rows.S: there is no modality 'specktral'"),
        ({"baseline": "V"}, "baseline: there is no row V; there are S, A, S+A"),
        ({"rows": {"S": {}, "mine": {"inputs": "S+A"}}}, "its table 3 has no row mine"),
        ({"keep": 3}, "keep is 3, but there are 2 seeds"),
        ({"seeds": [1, 1]}, "seeds must be one or more different numbers"),
        ({"scoring": {"part": "validation"}}, "can't be compared on its clips: score `test`"),
        ({"metrics": ["event_f1"]}, "metrics.0: Input should be 'clip_micro'"),
        ({"rows": {"../S": {}}}, "rows.../S.[key]: String should match pattern"),
        ({"rows": {"S": {"inputs": "S", "modalities": ["spectral"]}}}, "give inputs or modalities, not both"),
        ({"rows": {"S": {"fit": {"lerning_rate": 1}}}}, "rows.S: lerning_rate: Extra inputs are not permitted"),
        ({"rows": {"S": {"fit": {"seed": 1}}}}, "set the experiment's `seeds` instead"),
        ({"fit": {"steps": 0}}, "rows.S: steps: Input should be greater than or equal to 1"),
        ({"rows": {"S": {"fit": {"widths": {"vggish": 64}}}}}, "widths: vggish is not among the modalities, spectral"),
        ({"fit": {"features": {"vgish": {}}}}, "features: there is no modality 'vgish'; there are"),
        ({"rows": {"A": {"fit": {"mixup": 0.3}}}, "baseline": "A"}, "rows.A: fit: mixup has no effect"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: can't be read: No such file or directory"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan.read(write_file(tmp_path / "one.yaml", **fields))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_base_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"base\.yaml: is not a configuration"):
        plan.read(write_file(tmp_path / "one.yaml", base="base.yaml"))
    (tmp_path / "base.yaml").write_text("a: [\n")
    with pytest.raises(ConfigError, match=r"base\.yaml: is not YAML"):
        plan.read(write_file(tmp_path / "one.yaml", base="base.yaml"))
