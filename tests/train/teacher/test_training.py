"""A teacher learns, goes on after a kill to the same bits, and says in one line what is wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from streamer.errors import EarwitnessError
from streamer.features.mn04 import SILENCE
from streamer.networks.crnn import linear_pooling
from streamer.networks.mn04 import MELS, network_of
from streamer.networks.weights import WeightsStore
from tests.train.teacher.made import make_corpus, small
from train import cli, config
from train.data.dataset import Corpus
from train.provenance import environment
from train.teacher.augment import augmented
from train.teacher.config import TeachConfig
from train.teacher.frames import frames_in, stored_frames
from train.teacher.learner import Learner
from train.teacher.network import DEPTHS, TeacherNetwork
from train.teacher.record import JSON, TENSORS, Teacher, write
from train.teacher.training import costs, teach

ROOT = Path(__file__).parents[3]
PLAIN = {"mixup": 0.0, "filter_db": 0.0, "gain_db": 0.0, "mask_mels": 0, "mask_frames": 0}


class KilledError(Exception):
    pass


def test_a_run_that_is_interrupted_goes_on_to_the_same_bits(
    source: Corpus, folder: Path, weights: WeightsStore, tmp_path: Path
) -> None:
    def stop(step: int) -> None:
        if step == 5:
            raise KilledError

    torch.rand(3)  # what was drawn before does not matter
    teach(source, tmp_path / "whole", small(steps=6), weights, folder / "frames")
    with pytest.raises(KilledError):
        teach(source, tmp_path / "killed", small(steps=6), weights, folder / "frames", progress=stop)
    assert not (tmp_path / "killed" / JSON).exists()
    torch.rand(5)
    steps: list[int] = []
    teach(source, tmp_path / "killed", small(steps=6), weights, folder / "frames", progress=steps.append)
    assert steps == [5, 6]  # the last checkpoint was that of step 4
    one, other = (Teacher.load(tmp_path / name) for name in ("whole", "killed"))
    assert one.record.tensors_sha256 == other.record.tensors_sha256
    assert one.record.settings == small(steps=6).model_dump(mode="json")
    before = (tmp_path / "killed" / TENSORS).read_bytes()
    (tmp_path / "killed" / TENSORS).unlink()
    teach(source, tmp_path / "killed", small(steps=6), weights, folder / "frames")  # writes it again
    assert (tmp_path / "killed" / TENSORS).read_bytes() == before
    changed = Teacher.load(tmp_path / "whole").network.state_dict()
    trunk = network_of(weights.find("mn04").tensors(), Path("mn04.pth")).features.state_dict()
    assert not torch.equal(changed["trunk.6.block.0.0.weight"], trunk["6.block.0.0.weight"])


def test_costs_fall(source: Corpus, folder: Path, weights: WeightsStore) -> None:
    torch.manual_seed(0)
    data = source.annotated("train", folder)
    frames = stored_frames(folder / "frames", data.media)
    cells = frames.cells
    clips, labels = frames.batch(range(4), frames_in(cells)), torch.zeros(4, cells, 2)
    labels[:2, 3:9, 0] = 1
    labels[2:, 10:, 1] = 1
    settings = small(steps=10, dropout=0.0, anneal_share=0.1)
    learner = Learner.new(
        TeacherNetwork(network_of(weights.find("mn04").tensors(), Path("mn04.pth")).features, 2), settings
    )
    seen = []
    for _ in range(10):
        learner.set_rates(settings)
        of_cells, of_clips = costs(learner.network(clips, cells), labels)
        learner.optimiser.zero_grad()
        (of_cells + 0.3 * of_clips).backward()  # type: ignore[no-untyped-call]
        learner.optimiser.step()
        learner.step += 1
        learner.update_mean(0.5)
        seen.append((of_cells.item(), of_clips.item()))
    assert seen[-1][0] < 0.8 * seen[0][0]
    assert seen[-1][1] < 0.8 * seen[0][1]
    with torch.no_grad():
        of_cells, _ = costs(learner.mean(clips, cells), labels)
    assert of_cells < seen[0][0]


def test_costs_are_means_over_cells_and_over_clips() -> None:
    log_odds = torch.randn(3, 7, 2)
    labels = torch.zeros(3, 7, 2)
    labels[1, 2:4, 1] = 1
    of_cells, of_clips = costs(log_odds, labels)
    p = torch.sigmoid(log_odds)
    assert torch.allclose(of_cells, -(labels * p.log() + (1 - labels) * (1 - p).log()).mean())
    q, tags = linear_pooling(p), labels.amax(dim=1)
    assert torch.allclose(of_clips, -(tags * q.log() + (1 - tags) * (1 - q).log()).mean())


def test_learning_rates_rise_fall_and_differ_by_layers() -> None:
    settings = TeachConfig()
    learner = Learner.new(TeacherNetwork(torch.nn.Sequential(torch.nn.Linear(2, 2)), 2), settings)
    rates = {}
    for learner.step in (0, 50, 100, 1400, 1700, 1999):
        learner.set_rates(settings)
        rates[learner.step] = [group["lr"] for group in learner.optimiser.param_groups]
    assert rates[100] == rates[1400] == [1e-3, 4e-4]
    assert rates[50] == rates[1700] == pytest.approx([5e-4, 2e-4])
    assert rates[0] == pytest.approx([1e-6, 4e-7])
    assert rates[1999] == pytest.approx([1e-3 / 600, 4e-4 / 600])
    assert [len(group["params"]) for group in learner.optimiser.param_groups] == [4 * len(DEPTHS) + 16 + 2, 2]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Silence but for one loud frame and mel, and a label in the cell of that frame."""
    log_mel, targets = torch.full((4, MELS, 1000), SILENCE), torch.zeros(4, 151, 1)
    log_mel[:, 60, 331] = 1.0
    targets[:, 50] = 1
    return log_mel, targets


def test_sound_and_labels_move_together() -> None:
    log_mel, targets = augmented(*batch(), small(**PLAIN), np.random.default_rng(0))
    frames, cells = log_mel[:, 60].argmax(dim=1), targets[:, :, 0].argmax(dim=1)
    assert len(set(cells.tolist())) > 1
    off = (frames - (cells + 0.5) * 6.6244 + 500) % 1000 - 500  # the clip is a ring
    assert off.abs().max() < 4  # within the cell


def test_a_mixed_clip_has_both_sounds_and_both_labels() -> None:
    log_mel, targets = augmented(*batch(), small(**{**PLAIN, "mixup": 1.0}), np.random.default_rng(1))
    assert (targets.sum(dim=1)[:, 0] >= 1).all()
    assert targets.sum() > 4
    loud = log_mel > 0.9
    assert torch.equal(loud.sum(dim=(1, 2)).float(), targets.sum(dim=(1, 2)))


def test_filters_are_within_their_limits_and_masks_within_their_widths() -> None:
    quiet, targets = torch.zeros(64, MELS, 300), torch.zeros(64, 45, 1)
    filtered, _ = augmented(quiet.clone(), targets, small(**{**PLAIN, "filter_db": 9.0}), np.random.default_rng(0))
    peak_db = filtered.abs().max() * 5 * 10 / np.log(10)
    assert 7 < peak_db < 9.01
    masked, _ = augmented(
        quiet.clone(), targets, small(**{**PLAIN, "mask_mels": 23, "mask_frames": 69}), np.random.default_rng(0)
    )
    rows = (masked == SILENCE).all(dim=2).sum(dim=1)
    columns = (masked == SILENCE).all(dim=1).sum(dim=1)
    assert 15 < rows.max() <= 23
    assert 50 < columns.max() <= 69


def test_without_weights_one_line_says_how_to_get_them(
    source: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    command = ["teach", str(source.folder), str(tmp_path / "run"), "--weights", str(tmp_path / "none"), "--steps", "2"]
    assert cli.main(command) == 1
    said = capsys.readouterr().err.strip()
    assert said == (
        f"earwitness-train: error: mn04 weights are not in {tmp_path / 'none'}; "
        "get them with: earwitness weights fetch mn04"
    )
    assert not (tmp_path / "run").exists()


def test_the_command_trains(source: Corpus, folder: Path, weights: WeightsStore, tmp_path: Path) -> None:
    (tmp_path / "teacher.yaml").write_text("batch: 2\nsteps: 9\n")
    command = ["teach", str(source.folder), str(tmp_path / "run"), "--config", str(tmp_path / "teacher.yaml")]
    more = ["--steps", "1", "--seed", "5", "--weights", str(weights.folder), "--frames", str(folder / "frames")]
    assert cli.main([*command, *more]) == 0
    record = Teacher.load(tmp_path / "run").record
    assert (record.settings["steps"], record.settings["seed"], record.settings["batch"]) == (1, 5, 2)
    assert record.classes == ["Cat", "Dog"]
    assert record.corpus == source.summary.config
    assert set(record.split) == {"train", "validation", "test"}
    assert record.environment is not None
    raw = json.loads((tmp_path / "run" / JSON).read_text())
    assert raw["mn04_sha256"] == weights.find("mn04").sha256


def test_other_settings_corpora_and_weights_are_refused(
    source: Corpus, folder: Path, weights: WeightsStore, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(EarwitnessError, match="was begun with seed 0, now it is 1: name another folder"):
        teach(source, run, small(seed=1), weights, folder / "frames")
    other = make_corpus(folder, "other", seed=1)
    with pytest.raises(EarwitnessError, match="was begun with another corpus: name another folder"):
        teach(other, run, small(), weights, folder / "frames")
    tensors = weights.find("mn04").tensors()
    torch.save({**tensors, "classifier.2.bias": torch.zeros(512)}, tmp_path / "mn04.pth")
    with pytest.raises(EarwitnessError, match="was begun with mn04 weights"):
        teach(source, run, small(), WeightsStore(tmp_path), folder / "frames")


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        (JSON, b"{", "teacher.json is damaged: "),
        (JSON, b'{"classes": []}', "teacher.json is damaged: "),
        (JSON, None, "has no teacher.json: name a folder of `earwitness-train teach`"),
        (TENSORS, b"nothing", "teacher.safetensors is damaged: it is not the one that teacher.json describes"),
        (TENSORS, None, "has no teacher.safetensors"),
    ],
)
def test_a_damaged_teacher_is_said_in_one_line(
    run: Path, tmp_path: Path, name: str, damage: bytes | None, says: str
) -> None:
    for one in (JSON, TENSORS):
        os.link(run / one, tmp_path / one)
    (tmp_path / name).unlink()
    if damage is not None:
        (tmp_path / name).write_bytes(damage)
    with pytest.raises(EarwitnessError, match=says) as caught:
        Teacher.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_tensors_of_another_network_are_said_in_one_line(run: Path, tmp_path: Path) -> None:
    teacher = Teacher.load(run)
    write(tmp_path, TeacherNetwork.empty(3), teacher.record)
    with pytest.raises(EarwitnessError, match=r"teacher\.safetensors is damaged: .*classify"):
        Teacher.load(tmp_path)


def test_a_damaged_checkpoint_is_said_in_one_line(
    source: Corpus, folder: Path, weights: WeightsStore, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(EarwitnessError, match=r"checkpoint\.pt: is damaged, or not a checkpoint of this run"):
        teach(source, tmp_path, small(), weights, folder / "frames")


def test_the_configuration_that_was_used_has_the_defaults() -> None:
    assert config.load(ROOT / "configs" / "train" / "teacher.yaml", TeachConfig) == TeachConfig(seed=1)


def test_outputs_that_are_not_finite_end_the_run_in_one_line(
    source: Corpus, folder: Path, weights: WeightsStore, tmp_path: Path
) -> None:
    with pytest.raises(EarwitnessError, match=r"not finite after step \d: lower learning_rate"):
        teach(source, tmp_path / "run", small(learning_rate=1e30, steps=9), weights, folder / "frames")


def test_clips_without_sound_are_nothing_to_learn_from(source: Corpus, weights: WeightsStore, tmp_path: Path) -> None:
    shutil.copytree(source.folder, tmp_path / "corpus")
    for number, clip in enumerate(sorted((tmp_path / "corpus" / "audio" / "train").iterdir())):
        soundfile.write(clip, np.zeros(100 + number), 22_050)
    with pytest.raises(EarwitnessError, match="no clip of the part train has sound"):
        teach(Corpus.read(tmp_path / "corpus"), tmp_path / "run", small(), weights)


def test_what_a_run_began_with_is_recorded(source: Corpus, folder: Path, weights: WeightsStore, tmp_path: Path) -> None:
    teach(source, tmp_path / "run", small(steps=1), weights, folder / "frames")
    before = (tmp_path / "run" / JSON).read_bytes()
    teach(source, tmp_path / "run", small(steps=1), weights, folder / "frames")  # done already
    assert (tmp_path / "run" / JSON).read_bytes() == before
    found = Teacher.load(tmp_path / "run").record.environment
    assert found is not None
    assert found.like(environment(0))
