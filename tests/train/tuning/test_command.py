"""`earwitness-train tune` on a model and a corpus of seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamer.bundle import Bundle
from tests.train.test_corpus import make_recordings, settings
from tests.train.test_extra import BLOCKED
from tests.train.test_resume import fit
from train import cli
from train.data import corpus
from train.tuning import bundle as tuned_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its features and a model that was not tuned."""
    made = tmp_path_factory.mktemp("tune")
    small = settings(clips={"train": 3, "weak": 1, "unlabeled": 1, "validation": 4, "test": 1}, clip_s=3.0)
    corpus.make(make_recordings(made / "recordings", groups=3), made / "corpus", small, workers=1)
    data = [str(made / "corpus"), str(made / "features")]
    assert cli.main(["features", *data, "--workers", "1"]) == 0
    assert fit(data, made / "run", steps=2) == 0
    assert cli.main(["export", *data, str(made / "run"), str(made / "model"), "--no-tune"]) == 0
    return made


def command(folder: Path, *more: str) -> list[str]:
    data = [str(folder / "corpus"), str(folder / "features"), "--model", str(folder / "model")]
    return ["tune", *data, "--workers", "1", *more]


def test_the_tuned_bundle_has_validation_scores_of_its_decoding_and_no_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.load(folder / "model")
    assert set(before.scores) == {"test_clip"}
    work = ["--work", str(tmp_path / "work")]
    for method in ("grid", "optuna"):
        out = tmp_path / method
        assert cli.main(command(folder, "--out", str(out), "--method", method, "--trials", "6", *work)) == 0
        after = Bundle.load(out)
        assert set(after.scores) == {"validation_clip", "validation_stream"}
        assert after.scores["validation_clip"]["command"] == f"earwitness-train tune --method {method} --mode both"
        assert after.scores["validation_clip"]["clips"] == 4
        assert after.provenance.decoding == "tuned"
        assert after.tensors.keys() == before.tensors.keys()
    text = capsys.readouterr().out
    assert "validation_stream, macro F1: clip" in text
    assert "0.5 > " in text
    assert (tmp_path / "work" / f"clip-stream-{tuned_bundle.LEDGER}").exists()


def test_an_optuna_search_that_is_repeated_ends_with_the_same_decoding(folder: Path, tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        more = [
            "--longest-filter",
            "3",
            "--out",
            str(tmp_path / name),
            "--method",
            "optuna",
            "--trials",
            "8",
            "--mode",
            "clip",
        ]
        assert cli.main(command(folder, *more, "--work", str(tmp_path / f"work {name}"))) == 0
        made.append(Bundle.load(tmp_path / name).decoding)
    assert made[0] == made[1]
    assert max(one.median_cells for one in made[0].per_class) <= 3
    for wrong in ("4", "15"):
        with pytest.raises(SystemExit):
            cli.main(command(folder, "--out", str(tmp_path / "no"), "--longest-filter", wrong))


def test_what_can_not_be_tuned_or_compared_is_said_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = ["--work", str(tmp_path / "work")]
    assert cli.main(command(folder, "--compare", "1", "--mode", "clip", *work)) == 1
    assert "too few to compare on" in capsys.readouterr().err.splitlines()[-1]
    last = tmp_path / "last"
    small = settings(
        clips={"train": 3, "weak": 1, "unlabeled": 1, "validation": 4, "test": 1}, clip_s=3.0, train_on_validation=True
    )
    corpus.make(folder / "recordings", last, small, workers=1)
    arguments = command(folder, "--out", str(tmp_path / "out"), *work)
    arguments[1] = str(last)
    assert cli.main(arguments) == 1
    assert "was trained on the validation recordings, so it can't be tuned on them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_optuna_the_grid_still_works(folder: Path, tmp_path: Path) -> None:
    work = ["--work", str(tmp_path / "work"), "--mode", "clip"]

    def run(method: str) -> subprocess.CompletedProcess[str]:
        arguments = command(folder, "--out", str(tmp_path / method), "--method", method, *work)
        code = BLOCKED.format(missing=("optuna",))
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=170
        )

    assert run("grid").returncode == 0
    done = run("optuna")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "earwitness-train: error: optuna is not installed: pip install 'earwitness[train]'"
    )
