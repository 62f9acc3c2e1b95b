"""What the student lacks is what the daemon makes of a missing modality; edges weigh more, by the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from streamer.networks.crnn import Crnn
from streamer.types import Cells
from streamer.windows import Windower
from train.config import FitConfig
from train.learning.edges import edge_weights
from train.learning.masking import masked

SHAPES: dict[str, tuple[int, ...]] = {"spectral": (4, 128), "vgg16": (4096,), "mn04_scores": (10,)}
NAMES = tuple(SHAPES)


def clips(count: int, cells: int = 40) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.rand(count, cells, *shape, generator=generator) + 0.1 for name, shape in SHAPES.items()}
    return features, {name: torch.ones(count, cells, dtype=torch.bool) for name in SHAPES}


def test_a_lacking_modality_is_bit_for_bit_what_the_daemon_feeds() -> None:
    features, valid = clips(6)
    seen, there = masked(features, valid, NAMES, FitConfig(modality_dropout=0.5), np.random.default_rng(1))
    lacking = [{name for name in NAMES if not there[name][row].any()} for row in range(6)]
    assert len({frozenset(one) for one in lacking}) > 2
    for row, missing in enumerate(lacking):
        windower = Windower(
            "s", 0, SHAPES, set(NAMES) - missing, window_cells=40, hop_cells=40, lookahead_cells=0, skew_cells=40
        )
        windows = []
        for name in set(NAMES) - missing:
            values = features[name][row].numpy()
            windows += windower.push(name, Cells(0, values, np.ones(len(values), np.bool_)))
        (window,) = windows
        for name in NAMES:
            assert np.array_equal(window.features[name], seen[name][row].numpy()), (row, name)
            assert np.array_equal(window.valid[name], there[name][row].numpy()), (row, name)


def test_a_lacking_modality_leaves_no_trace_in_the_output() -> None:
    torch.manual_seed(0)
    network = Crnn(SHAPES, 3).eval()
    features, valid = clips(2)
    seen, there = masked(features, valid, NAMES, FitConfig(modality_dropout=0.9), np.random.default_rng(0))
    assert not all(there[name].all() for name in NAMES)
    other = {name: torch.where(there[name].view(2, 40, *(1,) * (one.ndim - 2)), one, 7.0) for name, one in seen.items()}
    assert torch.equal(network(seen, there).cells, network(other, there).cells)


def test_one_modality_always_stays_and_it_is_one_that_the_clip_has() -> None:
    features, valid = clips(200, 5)
    valid["spectral"][:] = False
    valid["vgg16"][:100] = False
    _, there = masked(features, valid, NAMES, FitConfig(modality_dropout=0.95), np.random.default_rng(0))
    assert torch.stack([there[name].any(dim=1) for name in NAMES]).any(dim=0).all()
    assert not there["spectral"].any()
    assert 0 < there["vgg16"][100:].any(dim=1).sum() < 100


def test_modalities_are_dropped_as_often_as_configured_and_holes_have_their_lengths() -> None:
    features, valid = clips(400, 20)
    _, there = masked(features, valid, NAMES, FitConfig(modality_dropout=0.3), np.random.default_rng(0))
    shares = [1 - there[name].any(dim=1).float().mean().item() for name in NAMES]
    assert shares == pytest.approx([0.3] * 3, abs=0.06)
    config = FitConfig(holes=0.5, hole_cells=6)
    seen, there = masked(features, valid, NAMES, config, np.random.default_rng(0))
    for name in NAMES:
        missing = (~there[name]).sum(dim=1)
        assert missing.max() == 6
        assert (missing > 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
        steps = there[name].int().diff(dim=1)
        assert ((steps < 0).sum(dim=1) <= 1).all()  # one run
        assert (seen[name][~there[name]] == 0).all()
        assert torch.equal(seen[name][there[name]], features[name][there[name]])
    assert not torch.equal(there["spectral"], there["vgg16"])


def test_without_the_options_nothing_is_drawn() -> None:
    features, valid = clips(2)
    rng = np.random.default_rng(0)
    seen, there = masked(features, valid, NAMES, FitConfig(), rng)
    assert all(seen[name] is features[name] and there[name] is valid[name] for name in NAMES)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_labels_at_onsets_and_offsets_weigh_more_by_a_half_sine() -> None:
    strong = torch.zeros(1, 20, 2)
    strong[0, 8:16, 0] = 1
    strong[0, :4, 1] = 1  # begins before the clip
    weights = edge_weights(strong, FitConfig(onset_weight=2.0, offset_weight=1.0, edge_cells=3))
    window = [math.cos(math.pi / 2 * (away + 0.5) / 3) for away in range(3)]
    expected = torch.ones(20)
    for away, height in enumerate(window):
        expected[[7 - away, 8 + away]] += 2 * height
        expected[[15 - away, 16 + away]] += height
    assert torch.allclose(weights[0, :, 0], expected)
    assert weights[0, :7, 1].tolist() == pytest.approx([1, *(1 + one for one in (*window[::-1], *window))])
    assert torch.equal(edge_weights(strong, FitConfig()), torch.ones(1, 20, 2))
