"""The mean teacher's parts: the ramp, the average of weights and of batch norm's statistics, the costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from streamer.networks.crnn import Crnn
from train.config import FitConfig
from train.learning.augment import Batch, augment, blanked, unused
from train.learning.mean_teacher import costs, follow, learning_rate, new_teacher

CONFIG = FitConfig(ramp_steps=100, learning_rate=0.01, decay=0.99, ema=0.9)


def test_the_learning_rate_is_the_papers() -> None:
    assert learning_rate(0, CONFIG) == pytest.approx(0.01 * math.exp(-5))
    assert learning_rate(50, CONFIG) == pytest.approx(0.01 * math.exp(-5 * 0.25))
    assert learning_rate(100, CONFIG) == pytest.approx(0.01)
    assert learning_rate(110, CONFIG) == pytest.approx(0.01 * 0.99**10)


def test_the_learning_rate_can_be_annealed_to_nothing() -> None:
    annealed = CONFIG.model_copy(update={"steps": 300, "decay": 1.0, "anneal_steps": 100})
    assert [learning_rate(step, annealed) for step in (150, 200, 250, 300)] == pytest.approx([0.01, 0.01, 0.005, 0])


def test_the_teacher_starts_as_a_copy_and_follows_weights_and_running_statistics() -> None:
    torch.manual_seed(0)
    student = Crnn({"spectral": (4, 128)}, 3)
    teacher = new_teacher(student)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student.train()
    student({"spectral": torch.rand(2, 20, 4, 128)}, {"spectral": torch.ones(2, 20, dtype=torch.bool)})
    with torch.no_grad():
        student.classify.bias.add_(1.0)
    follow(teacher, student, 0, CONFIG)
    after, theirs = teacher.state_dict(), student.state_dict()
    for name in ("classify.bias", "convolutions.1.running_mean", "convolutions.1.running_var"):
        assert not torch.equal(before[name], theirs[name])
        assert torch.allclose(after[name], 0.9 * before[name] + 0.1 * theirs[name])
    assert after["convolutions.1.num_batches_tracked"] == theirs["convolutions.1.num_batches_tracked"] == 1
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_warm_up_averages_plainly_at_first() -> None:
    student = Crnn({"vggish": (128,)}, 3)
    teacher = new_teacher(student)
    start = teacher.classify.bias.clone()
    with torch.no_grad():
        student.classify.bias.add_(1.0)
    follow(teacher, student, 0, CONFIG.model_copy(update={"ema_warmup": True}))
    assert torch.allclose(teacher.classify.bias, start + 0.5)


def batch(strong: int = 4, weak: int = 2, unlabeled: int = 2, cells: int = 40) -> Batch:
    generator = torch.Generator().manual_seed(0)
    clips = strong + weak + unlabeled
    return Batch(
        {"spectral": torch.rand(clips, cells, 4, 128, generator=generator)},
        {"spectral": torch.ones(clips, cells, dtype=torch.bool)},
        (torch.rand(strong, cells, 3, generator=generator) > 0.7).float(),
        (torch.rand(weak, 3, generator=generator) > 0.5).float(),
    )


def test_costs_leave_out_masked_cells_and_labels_that_are_not_there() -> None:
    torch.manual_seed(0)
    network = Crnn({"spectral": (4, 128)}, 3).eval()
    clips = batch()
    student_out = network(clips.features, clips.valid)
    valid = clips.valid["spectral"].clone()
    parts = costs(student_out, student_out, clips, valid, CONFIG)
    assert parts["consistency_frames"].item() == parts["consistency_clips"].item() == 0
    expected = torch.nn.functional.binary_cross_entropy_with_logits(student_out.logits[:4], clips.strong)
    assert torch.allclose(parts["frames"], expected)
    valid[:, 20:] = False
    half = torch.nn.functional.binary_cross_entropy_with_logits(student_out.logits[:4, :20], clips.strong[:, :20])
    assert torch.allclose(costs(student_out, student_out, clips, valid, CONFIG)["frames"], half)


def test_augmentation_moves_labels_with_the_sound_and_crops_all_alike() -> None:
    plain = batch()
    plain.features["spectral"][:4] = plain.strong.amax(dim=2)[:, :, None, None].expand(4, 40, 4, 128) * 5 + 0.01
    moved = augment(plain, FitConfig(shift=True, crop=1.0), np.random.default_rng(3))
    sounding = moved.features["spectral"][:4, :, 0, 0] > 1
    assert torch.equal(sounding, moved.strong.amax(dim=2) > 0)
    assert moved.features["spectral"].shape[1] == moved.strong.shape[1] < 40
    assert len(moved.weak) == 0


def test_mixup_joins_labels_and_power_and_leaves_unlabeled_clips_alone() -> None:
    clips = batch()
    before, labels = clips.features["spectral"].clone(), clips.strong.clone()
    mixed = augment(clips, FitConfig(mixup=1.0), np.random.default_rng(0))
    assert torch.equal(mixed.features["spectral"][4:], before[4:])
    assert (mixed.features["spectral"][:4] >= before[:4] - 1e-6).all()
    assert (mixed.strong >= labels).all()
    assert mixed.strong.sum() > labels.sum()


def test_augmentations_that_do_nothing_are_named() -> None:
    config = FitConfig(mixup=0.5, filter_db=3, mask_cells=2)
    assert unused({"spectral"}, config) == []
    assert unused({"spectral", "vggish"}, config) == ["mixup"]
    assert unused({"vggish"}, config) == ["filter_db", "mask_cells", "mixup"]
    weak = config.model_copy(update={"batch": {"weak": 2}})
    assert unused({"spectral"}, weak) == ["mixup"]


def test_blanking_is_for_the_student_alone() -> None:
    clips = batch()
    before = clips.features["spectral"].clone()
    view = blanked(clips, FitConfig(mask_mels=20, mask_cells=10), np.random.default_rng(0))
    assert torch.equal(clips.features["spectral"], before)
    assert (view["spectral"] == 0).any()
