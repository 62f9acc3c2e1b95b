"""Experiments that are really carried out, on an audiovisual dataset of seconds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from tests.train.experiment.made import ROWS, cheap, make_videos, write_file
from tests.train.test_resume import killed
from tests.weights import mn04_tensors
from train import cli
from train.experiment import campaign, plan
from train.experiment.executor import Processes
from train.experiment.job import Job
from train.experiment.page import markers

pytestmark = pytest.mark.timeout(600)
"""Each run is a process, which waits where the machine is busy."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("dcase") / "root")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap(monkeypatch)


def experiment(path: Path, root: Path, features: Path, *more: str) -> int:
    folders = ["--corpus", str(root), "--features", str(features), "--out", str(path.with_suffix(""))]
    return cli.main(["experiment", str(path), *folders, "--workers", "2", *more])


def finished(out: Path) -> dict[str, float]:
    """Every run that has a result, and when that was written."""
    return {str(one.parent.relative_to(out / "runs")): one.stat().st_mtime for one in out.glob("runs/*/*/result.json")}


def has_finished(out: Path, count: int) -> bool:
    return len(finished(out)) >= count


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_one_command_trains_scores_and_compares_and_a_finished_run_is_never_repeated(
    root: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "tiny.yaml", tmp_path / "tiny"
    write_file(path, seeds=1, rows={"S": {}, "S+A+V": {}}, scoring={"modes": ["clip", "stream"]})
    page = tmp_path / "page.md"
    begin, end = markers("tiny")
    page.write_text(f"# Page\n\n{begin}\nnot run\n{end}\n\nend\n")
    assert experiment(path, root, features, "--markdown", str(page)) == 0
    text = capsys.readouterr().out
    assert "whole clips, untuned decoding; 3 of 3 annotated clips" in text
    assert "clips streamed as the daemon hears them" in text
    assert (out / "table.md").read_text() == text
    assert page.read_text() == f"# Page\n\n{begin}\n{text.strip()}\n{end}\n\nend\n"
    before = finished(out)
    assert set(before) == {"S/0", "S+A+V/0"}
    assert "not run" not in text

    write_file(path, seeds=2, keep=1, rows={"S": {}, "S+A+V": {}}, scoring={"modes": ["clip", "stream"]})
    assert experiment(path, root, features) == 0
    after = finished(out)
    assert set(after) == {"S/0", "S/1", "S+A+V/0", "S+A+V/1"}
    assert {name: after[name] for name in before} == before
    states = [torch.load(out / "runs" / "S" / seed / "best.pt", weights_only=True)["student"] for seed in ("0", "1")]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    capsys.readouterr()
    assert experiment(path, root, features, "--table") == 0
    assert capsys.readouterr().out == (out / "table.md").read_text()
    assert finished(out) == after

    # Scored in another way: again, but not trained again.
    weights = (out / "runs" / "S" / "0" / "best.pt").stat().st_mtime
    write_file(path, seeds=1, rows={"S": {}}, scoring={"modes": ["clip"], "decoding": "tuned"})
    assert experiment(path, root, features) == 0
    assert finished(out)["S/0"] > after["S/0"]
    assert (out / "runs" / "S" / "0" / "best.pt").stat().st_mtime == weights


def test_changed_settings_or_another_corpus_are_refused_in_one_line(
    root: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.yaml"
    write_file(path, seeds=1, rows={"S": {}})
    assert experiment(path, root, features) == 0
    write_file(path, seeds=1, rows={"S": {"fit": {"learning_rate": 0.5}}})
    assert experiment(path, root, features) == 1
    assert "runs/S/0: was trained with other settings (learning_rate is 0.001 there and 0.5 here)" in last_line(capsys)
    result = tmp_path / "tiny" / "runs" / "S" / "0" / "result.json"
    result.unlink()  # as if it had been killed before it was scored
    assert experiment(path, root, features) == 1
    assert "learning_rate is 0.001 there and 0.5 here" in last_line(capsys)
    write_file(path, seeds=1, rows={"S": {"fit": {"threads": 2, "checkpoint_every": 2}}})  # immaterial
    assert experiment(path, root, features) == 0
    other = make_videos(tmp_path / "other")
    weak = other / "metadata" / "train" / "weak.csv"
    weak.write_text(weak.read_text().replace("Cat", "Dog"))
    assert experiment(path, other, features) == 1
    assert "its runs were trained on another corpus" in last_line(capsys)
    result.write_text("{")
    assert experiment(path, root, features, "--table") == 1
    assert "result.json: is damaged" in last_line(capsys)


def test_a_run_that_fails_does_not_stop_the_others_and_is_tried_again(
    root: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "tiny.yaml", tmp_path / "tiny"
    write_file(path, seeds=1, rows={"S": {}, "A": {}})
    checkpoint = out / "runs" / "S" / "0" / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("not a checkpoint")
    assert experiment(path, root, features) == 1
    text = capsys.readouterr().out
    assert f"Run S/0 failed: {checkpoint}: is damaged, or not a checkpoint of this run" in text
    assert set(finished(out)) == {"A/0"}
    checkpoint.unlink()
    assert experiment(path, root, features) == 0
    assert set(finished(out)) == {"S/0", "A/0"}


def test_rows_that_need_different_features_of_one_folder_are_refused(
    root: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.yaml"
    write_file(path, rows={"S": {}, "A": {"fit": {"features": {"vggish": {"alignment": "paper"}}}}, "S+A": {}})
    assert experiment(path, root, features) == 2
    assert "rows A and S+A need different vggish features: give one of them a folder of its own" in last_line(capsys)
    assert not finished(tmp_path / "tiny")


def test_an_estimate_measures_steps_and_leaves_nothing(
    root: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.yaml"
    write_file(path, rows={"A": {}})
    assert experiment(path, root, features, "--estimate") == 2  # the baseline is missing
    capsys.readouterr()
    write_file(path, rows={"A": {}}, baseline="A")
    assert experiment(path, root, features, "--estimate") == 0
    out = capsys.readouterr().out
    assert "2 runs, 6 steps in all: " in out
    assert "The paper's full size (1 rows x 20 initialisations x 50,000 steps of 48 clips, without S, V, S+V" in out
    assert not (tmp_path / "tiny").exists()


def test_a_table_before_any_run_says_so(
    root: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert experiment(write_file(tmp_path / "tiny.yaml"), root, features, "--table") == 0
    assert "untuned decoding: not run yet." in capsys.readouterr().out
    assert not (tmp_path / "tiny").exists()


def test_a_killed_process_is_reported_and_the_others_go_on(root: Path, features: Path, tmp_path: Path) -> None:
    path = write_file(tmp_path / "tiny.yaml", rows={"S": {}, "A": {}}, seeds=1)
    made = plan.read(path, root, features, tmp_path / "out")
    campaign.prepare(made, tmp_path, workers=1)
    gone: list[int] = []

    def watch(running: Sequence[Job]) -> None:
        if not gone and [job.row for job in running] == ["S", "A"]:
            first = psutil.Process().children()[0]
            first.kill()
            gone.append(first.pid)

    jobs = [
        Job(run.row, run.seed, run.settings, made.config.scoring, made.corpus, run.features, run.folder)
        for run in made.runs
    ]
    ended = {one.job.row: one.error for one in Processes(2).run(jobs, watch)}
    assert sorted(ended.values(), key=str) == [
        None,
        "its process was killed by SIGKILL, perhaps because memory ran out",
    ]


@pytest.mark.slow
def test_all_seven_rows_survive_kill_9_and_end_with_the_same_networks(tmp_path: Path) -> None:
    """The real networks: mn04 with made weights, and EfficientNet-Lite0."""
    root, weights = make_videos(tmp_path / "root"), tmp_path / "weights"
    weights.mkdir()
    torch.save(mn04_tensors(3), weights / "mn04.pth")
    inputs = {"S": ["spectral"], "A": ["mn04", "mn04_scores"], "V": ["efficientnet_lite0"]}
    path = write_file(tmp_path / "seven.yaml", inputs=inputs, rows={row: {} for row in ROWS})
    common = ["--corpus", str(root), "--features", str(tmp_path / "features"), "--weights", str(weights)]

    def command(out: str) -> list[str]:
        return ["experiment", str(path), *common, "--workers", "2", "--out", str(tmp_path / out)]

    out = tmp_path / "killed"
    for count in (2, 6, 11):
        killed(command("killed"), partial(has_finished, out, count))
        assert len(finished(out)) < 14
    before = finished(out)
    assert cli.main(command("killed")) == 0
    after = finished(out)
    assert len(after) == 14
    assert {name: after[name] for name in before} == before
    assert cli.main(command("whole")) == 0
    for name in after:
        one, other = (
            torch.load(tmp_path / run / "runs" / name / "best.pt", weights_only=True)["student"]
            for run in ("killed", "whole")
        )
        assert all(torch.equal(one[key], other[key]) for key in one)
    scores = [
        [line for line in (tmp_path / run / "table.md").read_text().splitlines() if line.startswith("|")]
        for run in ("killed", "whole")
    ]
    assert scores[0] == scores[1]
    assert sum(line.split("|")[1].strip() in ROWS for line in scores[0]) == 7 + 6  # scores, and differences to S
