"""The best and the last networks of a run are kept, drawn, scored both ways, and can each be exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.weights import default_weights_folder
from tests.train.test_resume import FIT, log
from train import cli, curves, loop
from train.config import FitConfig
from train.data.dataset import Corpus
from train.evaluation.stored import posteriors, streamed_posteriors, untuned
from train.evaluation.streaming import stream_posteriors
from train.kept import Kept, find, path_of

CONFIG = FitConfig.model_validate({**FIT, "steps": 8, "validate_every": 2, "keep_best": 2, "product_every": 4})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    from tests.train.test_corpus import make_recordings, settings
    from train.data import corpus

    folder = tmp_path_factory.mktemp("corpus")
    small = settings(clips={"train": 4, "weak": 2, "unlabeled": 2, "validation": 2, "test": 2}, clip_s=6.0)
    corpus.make(make_recordings(folder / "recordings", groups=3), folder / "corpus", small, workers=1)
    assert cli.main(["features", str(folder / "corpus"), str(folder / "features"), "--workers", "1"]) == 0
    return [str(folder / "corpus"), str(folder / "features")]


@pytest.fixture(scope="module")
def run(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    loop.fit(Corpus.read(Path(data[0])), Path(data[1]), out, CONFIG)
    return out


def merit(row: dict[str, Any]) -> float:
    return float(np.mean([row[f"{kind}_f1_macro"] for kind in ("clip", "segment", "event")]))


def test_the_best_and_the_last_are_kept(run: Path) -> None:
    rows = sorted(log(run), key=lambda row: (-merit(row), row["step"]))
    steps = {row["step"] for row in rows[:2]}
    assert {int(path.stem[5:]) for path in (run / "checkpoints").iterdir()} == steps
    for step in steps:
        assert torch.load(path_of(run, step), weights_only=True)["step"] == step
    assert torch.load(run / "last.pt", weights_only=True)["step"] == 8
    final = torch.load(run / "checkpoint.pt", weights_only=True)
    last = torch.load(run / "last.pt", weights_only=True)
    for network in ("student", "teacher"):
        assert all(torch.equal(value, final[network][name]) for name, value in last[network].items())


def test_each_can_be_exported(data: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ["export", *data, str(run), str(tmp_path / "bundle"), "--no-tune", "--checkpoint"]
    kept = sorted((run / "checkpoints").iterdir())[0]
    for which, file in (("last", run / "last.pt"), (kept.stem[5:].lstrip("0"), kept), (str(kept), kept)):
        assert cli.main([*export, which]) == 0
        state = torch.load(file, weights_only=True)
        bundle = Bundle.load(tmp_path / "bundle")
        assert bundle.provenance.steps == state["step"]
        assert all(torch.equal(bundle.tensors[name], value) for name, value in state["teacher"].items())
    capsys.readouterr()
    assert cli.main([*export, "77"]) == 1
    assert "there is no such checkpoint: run `earwitness-train fit`, or name best, last, a file, or one of" in (
        capsys.readouterr().err
    )
    with pytest.raises(EarwitnessError, match="no such checkpoint"):
        find(tmp_path, "best")


def test_the_picture_shows_the_log(run: Path, tmp_path: Path) -> None:
    picture = np.asarray(Image.open(run / curves.FILE).convert("RGB")).astype(int)
    assert picture.shape[0] > 600
    assert picture.shape[1] > 900
    highest = []
    for value in (0.2, 0.9):
        rows = [{name: value if "_f1_" in name else one for name, one in row.items()} for row in log(run)]
        for row in rows:
            row.pop("product", None)
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        curves.draw(tmp_path)
        picture = np.asarray(Image.open(tmp_path / curves.FILE).convert("RGB")).astype(int)
        green = (picture == (0, 0x9E, 0x73)).all(axis=2)  # of events, in no other line
        highest.append(int(np.argwhere(green[: len(green) // 2, : green.shape[1] // 2 - 120])[:, 0].min()))
    assert highest[1] < highest[0] - 100
    curves.draw(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_the_log_has_the_products_scores_beside_the_papers(run: Path) -> None:
    rows = log(run)
    assert [row["step"] for row in rows if "product" in row] == [4, 8]
    assert rows[0]["scored"] == "whole clips, threshold 0.5, median filter of 7 cells"
    assert rows[1]["product"]["scored"].startswith("streamed with 1.0 s of lookahead, thresholds tuned")
    assert set(rows[1]["product"]) - {"scored"} == {name for name in rows[1] if "_f1_" in name}
    for row in rows:
        weighted = {name: value for name, value in row["mean_costs"].items() if name != "total"}
        assert sum(weighted.values()) == pytest.approx(row["mean_costs"]["total"])


def test_streams_of_stored_cells_are_those_of_the_media(data: list[str], run: Path, tmp_path: Path) -> None:
    assert cli.main(["export", *data, str(run), str(tmp_path / "bundle"), "--no-tune"]) == 0
    bundle = Bundle.load(tmp_path / "bundle")
    part = Corpus.read(Path(data[0])).part("validation", Path(data[1]), bundle.modalities)
    read = streamed_posteriors(tmp_path / "bundle", default_weights_folder({}), part, workers=1)
    for one, other in zip(stream_posteriors(bundle, part), read, strict=True):
        assert one.name == other.name
        assert one.cells.shape == other.cells.shape
        assert np.abs(one.cells - other.cells).max() < 1e-6
        assert np.abs(one.clip - other.clip).max() < 1e-6
        assert [(run.start, len(run.scores)) for run in one.runs] == [
            (run.start, len(run.scores)) for run in other.runs
        ]
    whole = posteriors(bundle.network(), part)
    assert max(np.abs(one.cells - other.cells).max() for one, other in zip(whole, read, strict=True)) > 1e-5
    assert untuned(bundle.classes, CONFIG) == bundle.decoding


def test_a_run_that_returns_to_an_earlier_checkpoint_keeps_what_that_kept(data: list[str], tmp_path: Path) -> None:
    corpus, out = Corpus.read(Path(data[0])), tmp_path / "run"
    settings = CONFIG.model_copy(update={"product_every": 0, "keep_best": 1})
    loop.fit(corpus, Path(data[1]), out, settings.model_copy(update={"steps": 4}))
    early = (out / "checkpoint.pt").read_bytes()
    (kept,) = (out / "checkpoints").iterdir()
    before = kept.read_bytes()
    loop.fit(corpus, Path(data[1]), out, settings)
    whole = {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir()}
    # Killed after the validation of a better network and before the next checkpoint: neither file is gone.
    (out / "checkpoint.pt").write_bytes(early)
    kept.write_bytes(before)
    path_of(out, 6).write_bytes(before)
    loop.fit(corpus, Path(data[1]), out, settings)
    assert {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir()} == whole


def test_equal_validations_keep_the_earlier() -> None:
    kept = Kept()
    for merit_of, step in ((0.1, 1), (0.3, 2), (0.3, 3), (0.2, 4), (0.5, 5)):
        kept = kept.plus(merit_of, step, 3)
    assert kept.rows == ((0.5, 5), (0.3, 2), (0.3, 3))
    assert kept.plus(0.9, 6, 0).rows == ()
