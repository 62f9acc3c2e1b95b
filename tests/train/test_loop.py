"""From recordings to a bundle that the daemon's own code evaluates, on a corpus of seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from streamer import cli as earwitness
from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.stream_crnn import StreamForm
from streamer.provenance import Phase
from tests.train.test_corpus import CLASSES, make_recordings, settings
from train import cli, loop
from train.config import FitConfig
from train.data import corpus
from train.data.dataset import Corpus
from train.run import Run

FIT = FitConfig(
    steps=4,
    batch={"strong": 3, "weak": 1, "unlabeled": 1},
    ramp_steps=4,
    validate_every=2,
    threads=1,
    checkpoint_every=2,
    mixup=0.5,
    crop=0.3,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("corpus")
    corpus.make(make_recordings(folder / "recordings"), folder / "corpus", settings(), workers=1)
    assert cli.main(["features", str(folder / "corpus"), str(folder / "features")]) == 0
    return folder / "corpus", folder / "features"


def fit(data: tuple[Path, Path], out: Path, **fields: object) -> dict[str, torch.Tensor]:
    loop.fit(Corpus.read(data[0]), data[1], out, FIT.model_copy(update=fields))
    return torch.load(out / "checkpoint.pt", weights_only=True)["teacher"]  # type: ignore[no-any-return]


def test_a_run_that_was_stopped_goes_on_to_the_same_network(data: tuple[Path, Path], tmp_path: Path) -> None:
    whole = fit(data, tmp_path / "whole")
    fit(data, tmp_path / "parts", steps=2)
    parts = fit(data, tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    rows = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    phases = json.loads((tmp_path / "parts" / "fit.json").read_text())["phases"]
    assert [(one["from_step"], one["steps"]) for one in phases] == [(0, 2), (2, 4)]
    assert list((tmp_path / "whole").glob("events.out.tfevents.*"))


def test_a_checkpoint_of_other_modalities_is_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    fit(data, tmp_path / "a", steps=2)
    state = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)
    torch.save({**state, "modalities": ["vggish"]}, tmp_path / "a" / "checkpoint.pt")
    with pytest.raises(EarwitnessError, match="was trained on vggish"):
        fit(data, tmp_path / "a")


def test_a_run_begins_with_a_bundle_and_keeps_its_history(data: tuple[Path, Path], tmp_path: Path) -> None:
    fit(data, tmp_path / "one")
    paths = [str(path) for path in data]
    assert cli.main(["export", *paths, str(tmp_path / "one"), str(tmp_path / "bundle")]) == 0
    bundle = Bundle.load(tmp_path / "bundle")
    loop.fit(
        Corpus.read(data[0]),
        data[1],
        tmp_path / "two",
        FIT.model_copy(update={"steps": 6, "learning_rate": 1e-12}),
        bundle,
    )
    state = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 6
    assert torch.allclose(state["teacher"]["classify.weight"], bundle.tensors["classify.weight"], atol=1e-6)
    phases = json.loads((tmp_path / "two" / "fit.json").read_text())["phases"]
    assert [one["from_step"] for one in phases] == [0, bundle.provenance.steps]
    assert all(one["corpus"]["clips"]["test"] == 3 for one in phases)


def test_a_bundle_that_may_know_the_test_recordings_is_no_beginning(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(data, tmp_path / "one")
    paths = [str(path) for path in data]
    assert cli.main(["export", *paths, str(tmp_path / "one"), str(tmp_path / "bundle")]) == 0
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.provenance.split is not None
    parts = {part: list(groups) for part, groups in bundle.provenance.split.items()}
    parts["train"].append(parts["test"].pop())
    replace(bundle, provenance=msgspec.structs.replace(bundle.provenance, split=parts)).save(tmp_path / "other")
    capsys.readouterr()
    assert cli.main(["fit", *paths, str(tmp_path / "two"), "--from", str(tmp_path / "other")]) == 1
    assert "1 groups of recordings in different parts" in capsys.readouterr().err


def test_a_last_phase_on_the_validation_recordings_keeps_the_thresholds_tuned_before(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / "corpus"
    corpus.make(data[0].parent / "recordings", last, settings(train_on_validation=True), workers=1)
    features = str(tmp_path / "features")
    assert cli.main(["features", str(last), features]) == 0
    fit(data, tmp_path / "run")
    before = ["export", *map(str, data), str(tmp_path / "run"), str(tmp_path / "before")]
    assert cli.main(before) == 0
    fit((last, tmp_path / "features"), tmp_path / "run", steps=6, keep="last")
    assert torch.load(tmp_path / "run" / "best.pt", weights_only=True)["step"] == 6
    capsys.readouterr()
    export = ["export", str(last), features, str(tmp_path / "run"), str(tmp_path / "after")]
    assert cli.main(export) == 1
    assert "--decoding BUNDLE" in capsys.readouterr().err
    assert cli.main([*export, "--decoding", str(tmp_path / "before")]) == 0
    tuned, made = Bundle.load(tmp_path / "before"), Bundle.load(tmp_path / "after")
    assert made.decoding == tuned.decoding
    assert set(made.scores) == {"test_clip"}
    assert [one.corpus["train_on_validation"] for one in made.provenance.phases] == [False, True]
    with pytest.raises(EarwitnessError, match="another train_on_validation"):
        loop.fit(Corpus.read(data[0]), data[1], tmp_path / "third", FIT, made)
    with pytest.raises(EarwitnessError, match="another train_on_validation"):
        fit(data, tmp_path / "run", steps=8)  # gone on with, on the corpus whose validation it has learned
    capsys.readouterr()
    assert cli.main(before) == 1  # nor may that corpus tune its thresholds
    assert "another train_on_validation" in capsys.readouterr().err


def test_fit_export_and_evaluate_make_a_bundle(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(data, tmp_path / "run")
    paths = [str(path) for path in data]
    assert cli.main(["export", *paths, str(tmp_path / "run"), str(tmp_path / "bundle"), "--name", "tiny"]) == 0
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.classes == CLASSES
    assert bundle.provenance.trained_on[0].licence == "CC0"
    assert bundle.scores["test_clip"]["clips"] == 3
    capsys.readouterr()
    assert cli.main(["evaluate", *paths, "--model", str(tmp_path / "bundle")]) == 0
    assert "event F1" in capsys.readouterr().out
    truth = str(data[0] / "metadata" / "test.tsv")
    replay = ["replay", str(data[0] / "audio" / "test"), "--truth", truth, "--model", str(tmp_path / "bundle")]
    assert earwitness.main([*replay, "--report", str(tmp_path / "report")]) == 0
    assert cli.main(["card", str(tmp_path / "bundle"), str(tmp_path / "report")]) == 0
    assert Bundle.load(tmp_path / "bundle").scores["test_stream"]["clips"] == 3
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "| here | CC0 |" in card
    assert "--mode stream" in card
    assert cli.main(["card", str(tmp_path / "bundle"), str(tmp_path)]) == 1


def test_what_is_missing_is_said_in_one_line(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fit", str(tmp_path / "nowhere"), str(data[1]), str(tmp_path / "run")]) == 1
    assert "is not a complete corpus" in capsys.readouterr().err
    assert cli.main(["fit", str(data[0]), str(tmp_path / "nowhere"), str(tmp_path / "run")]) == 1
    assert "run `earwitness-train features` first" in capsys.readouterr().err
    export = ["export", *map(str, data), str(tmp_path / "cut"), str(tmp_path / "bundle")]
    assert cli.main(export) == 1
    assert "cut/fit.json: there is no such file: run `earwitness-train fit` first" in capsys.readouterr().err
    fit(data, tmp_path / "cut", steps=2)
    (tmp_path / "cut" / "best.pt").write_text("not a checkpoint")
    assert cli.main(export) == 1
    error = capsys.readouterr().err
    assert "best.pt: is damaged, or not a checkpoint of this run (Weights only load failed): restore it" in error
    assert not (tmp_path / "bundle").exists()


STREAM = {"form": "stream", "filters": (4, 6, 8, 8, 8, 8, 8), "gru_size": 16, "right_contexts": (4, 151), "hops": (4,)}


def test_the_stream_form_is_trained_resumed_exported_and_replayed(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(data, tmp_path / "whole", **STREAM)
    fit(data, tmp_path / "parts", steps=2, **STREAM)
    parts = fit(data, tmp_path / "parts", **STREAM)
    assert all(torch.equal(whole[name], parts[name]) for name in whole), "contexts are drawn as in one run"
    manifest = (tmp_path / "whole" / "manifest.tsv").read_text()
    assert "GRU\t2 layers, 16 per direction, bidirectional" in manifest
    assert "backwards\tover what was heard when a cell is decided" in manifest
    paths = [str(path) for path in data]
    assert cli.main(["export", *paths, str(tmp_path / "whole"), str(tmp_path / "bundle")]) == 0
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.stream == StreamForm()
    capsys.readouterr()
    assert cli.main(["evaluate", *paths, "--model", str(tmp_path / "bundle"), "--part", "test"]) == 0
    offline = capsys.readouterr().out
    clips, truth = str(data[0] / "audio" / "test"), str(data[0] / "metadata" / "test.tsv")
    command = ["replay", clips, "--truth", truth, "--model", str(tmp_path / "bundle")]
    assert earwitness.main([*command, "--mode", "clip"]) == 0
    assert offline.strip() in capsys.readouterr().out, "offline evaluation and replay are one computation"
    assert earwitness.main([*command, "--mode", "stream"]) == 0


def test_the_stream_form_begins_with_a_window_form_and_its_convolutions_wait_for_the_layers_behind_them(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    fit(data, tmp_path / "window", steps=2)
    assert cli.main(["export", *map(str, data), str(tmp_path / "window"), str(tmp_path / "bundle")]) == 0
    bundle = Bundle.load(tmp_path / "bundle")
    student = {}
    for steps in (4, 5):
        stream = {"form": "stream", "ahead_cells": 5, "right_contexts": (8,), "hops": (4,)}
        config = FIT.model_copy(update={**stream, "steps": steps, "frozen_until": 4, "validate_every": 1})
        loop.fit(Corpus.read(data[0]), data[1], tmp_path / "run", config, bundle if steps == 4 else None)
        student[steps] = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["student"]
    of_layers = [name for name in student[4] if name.startswith("convolutions.") and "num_batches" not in name]
    window = [
        f"convolutions.{5 * int(layer) + (part == 'norm')}.{kind}"
        for _, _, layer, part, kind in (name.split(".") for name in of_layers)
    ]
    assert len(window) == 42
    assert all(torch.equal(student[4][new], bundle.tensors[old]) for new, old in zip(of_layers, window, strict=True))
    assert not torch.equal(student[4]["classify.weight"], bundle.tensors["classify.weight"])
    assert not any(torch.equal(student[5][name], student[4][name]) for name in of_layers)


def test_settings_of_an_older_run_are_read_though_the_defaults_of_the_other_form_have_changed() -> None:
    recorded = {**FitConfig(steps=7).model_dump(mode="json"), "release_db_s": 3.0}
    run = Run("mine", ("Cat",), ("spectral",), {}, (Phase(from_step=0, settings=recorded),), None)
    assert run.settings() == FitConfig(steps=7)


def test_settings_that_do_not_fit_the_form_are_refused() -> None:
    with pytest.raises(ValueError, match="none can be shorter than ahead_cells"):
        FitConfig(form="stream", ahead_cells=5, right_contexts=(4, 8))
    with pytest.raises(ValueError, match="judged_context can't be shorter"):
        FitConfig(form="stream", ahead_cells=3, judged_context=2)
    with pytest.raises(ValueError, match="hops: only the stream form has it"):
        FitConfig(form="window", hops=(4,))
    assert FitConfig.model_validate(FitConfig(gru_size=96).model_dump(mode="json")).gru_size == 96
