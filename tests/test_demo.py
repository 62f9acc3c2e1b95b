"""The demo's table says what was heard, and how soon."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streamer import cli
from streamer.bundle import Bundle
from streamer.commands.demo import Heard, chosen, settings, table
from streamer.config.schema import DaemonConfig
from streamer.features import EXTRACTORS
from streamer.models import DEFAULT, FUSED, bundle_path
from streamer.networks.weights import WeightsStore
from streamer.replay.truth import LabelledEvent
from tests.models import CLASSES, initial_tensors, seeded_bundle
from tests.weights import mn04_tensors


def test_the_table_says_how_long_after_its_true_onset_each_event_was_said() -> None:
    truth = [
        LabelledEvent(2.0, 4.0, "Dog"),
        LabelledEvent(6.0, 9.0, "Cat"),
        LabelledEvent(12.0, 13.0, "Cat"),
        LabelledEvent(4.1, 4.9, "Dog"),
    ]
    heard = [
        Heard(LabelledEvent(2.3, 2.9, "Dog"), 3.14),
        Heard(LabelledEvent(3.1, 4.7, "Dog"), 4.0),  # the same event in two parts: the first one counts
        Heard(LabelledEvent(5.9, 9.0, "Cat"), 6.7),
        Heard(LabelledEvent(10.0, 10.4, "Speech"), 11.0),
    ]
    rows = [line.split() for line in table(truth, heard).splitlines()]
    assert rows[2] == ["Dog", "2.0", "4.0", "2.3", "4.7", "1.1", "s"]
    assert rows[3] == ["Cat", "6.0", "9.0", "5.9", "9.0", "0.7", "s"]
    assert rows[4] == ["Cat", "12.0", "13.0", "not", "heard"]
    assert rows[5] == ["Dog", "4.1", "4.9", "3.1", "4.7", "went", "on"]
    assert rows[6] == ["(false", "alarm)", "Speech", "10.0", "10.4"]
    assert rows[-1] == ["heard", "3", "of", "4", "events,", "1", "false", "alarms"]


@pytest.mark.parametrize(("model", "preset"), [(None, None), ("spectral", "fast"), ("models/mine", None)])
def test_the_daemon_runs_with_the_model_and_the_preset_that_were_asked_for(model: str, preset: str) -> None:
    made = DaemonConfig.model_validate(settings(Path("demo.mp4"), "tcp://127.0.0.1:5556", model, preset))
    assert made.model == bundle_path(model).absolute()
    assert made.windows.preset == (preset or "balanced")


def test_the_model_with_pretrained_features_is_shown_if_its_weights_are_there(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path)
    model, line = chosen(FUSED, store)
    assert model == DEFAULT
    assert line.endswith(f"are not in {tmp_path}; get them with: earwitness weights fetch mn04.")

    torch.save(mn04_tensors(4), tmp_path / "mn04.pth")
    made = {name: EXTRACTORS[name]({}, store) for name in Bundle.load(bundle_path(FUSED)).modalities}
    tensors = initial_tensors({name: one.shape for name, one in made.items()}, len(CLASSES), 1)
    specs = {name: dict(one.spec()) for name, one in made.items()}
    Bundle("fused", specs, seeded_bundle().decoding, tensors, 151).save(tmp_path / "model")
    named = str(tmp_path / "model")
    assert chosen(named, store) == (named, f"The model is `{named}`, which fuses spectral, mn04, mn04_scores.")


def test_a_model_that_is_not_there_is_one_line_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--model", "nope"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("earwitness: error: bundle nope: there is no such folder")
    assert said.err.count("\n") == 1
