"""The bench measures the real step: every variant computes the same costs, and the table says what each saves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from train import bench, cli
from train.config import FitConfig
from train.learning.distributed import Group

SMALL = "batch: {strong: 1, weak: 1, unlabeled: 1}\nthreads: 1\nmask_mels: 5\n"


def test_all_variants_have_the_same_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fit.yaml"
    path.write_text(SMALL)
    assert cli.main(["bench", "--config", str(path), "--steps", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "1 strong + 1 weak + 1 unlabeled clips, spectral; 1 threads" in rows[0]
    figures = [re.split(r" {2,}", row) for row in rows[2:7]]
    differences = [float(row[-1].rstrip(" %")) for row in figures[1:]]
    assert max(differences[:2]) < 0.05  # fp32, another dropout or memory layout: rounding
    assert max(differences[2:]) < 2.0  # bfloat16 has 8 bits, and these are three clips
    assert figures[0][3] == "1.00"
    assert "an epoch of 250 steps" in rows[7]
    assert "s for data" in rows[8]


def test_the_layouts_and_precisions_are_really_used() -> None:
    for name, config in bench.variants_of(FitConfig(dropout=0.1), compiled=False).items():
        with bench.made_up(FitConfig(batch={"weak": 1, "unlabeled": 1})) as data:
            learner, _ = bench._ready(name, data, 10, config, Group(torch.device("cpu")))
        reduced = "bfloat16" in name or "both" in name
        assert learner.student.reduced_precision == learner.teacher.reduced_precision == reduced
        assert learner.student.channels_last == ("channels-last" in name or "both" in name)
        assert learner.student.convolutions is not None
        names = {type(layer).__name__ for layer in learner.student.convolutions.modules()}
        assert ("Dropout" in names) == name.startswith("plain")


def test_what_can_not_be_made_up_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "fit.yaml"
    path.write_text("modalities: [spectral, vggish]\n")
    assert cli.main(["bench", "--config", str(path)]) == 1
    assert "spectral, vggish can't be made up: name a corpus and its features" in capsys.readouterr().err
    assert cli.main(["bench", "corpus"]) == 2
    assert "name the folder of the corpus's features too" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_networks_compute_the_same() -> None:
    config = FitConfig(batch={"weak": 1, "unlabeled": 1}, dropout=0.0, classifier_dropout=0.0, threads=1)
    with bench.made_up(config) as data:
        found = bench.measure(data, config, Group(torch.device("cpu")), 1, compiled=True)
    assert found.variants[-1].name == "and both, compiled"
    assert found.variants[-1].difference < 0.02
