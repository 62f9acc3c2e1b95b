"""A network of the stream form begins with what one of the window form has learnt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamer.networks.crnn import Crnn
from streamer.networks.stream_crnn import StreamCrnn, StreamForm
from train.learning.warm_start import stream_of_window

SHAPES: dict[str, tuple[int, ...]] = {"spectral": (4, 128), "mn04": (384,)}


def window() -> Crnn:
    torch.manual_seed(1)
    made = Crnn(SHAPES, 3)
    for name, tensor in made.state_dict().items():
        if name.endswith("running_mean"):
            tensor.uniform_(-0.2, 0.2)
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
    return made.eval().requires_grad_(False)


def stream(gru_size: int = 128) -> StreamCrnn:
    torch.manual_seed(2)
    return StreamCrnn(SHAPES, 3, form=StreamForm(5), gru_size=gru_size).eval().requires_grad_(False)


def steady(cells: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Sound that does not change: what the causal layers hear later, they hear the same."""
    torch.manual_seed(3)
    spectrum = torch.rand(1, 1, 1, 128).expand(1, cells, 4, 128).contiguous()
    vectors = torch.randn(1, 1, 384).expand(1, cells, 384).contiguous()
    return {"spectral": spectrum, "mn04": vectors}, {name: torch.ones(1, cells, dtype=torch.bool) for name in SHAPES}


def test_a_steady_sound_has_the_same_scores() -> None:
    """What the causal layers and the gain hear later, they hear the same."""
    taught, begun = window(), stream()
    begun.load_state_dict(stream_of_window(taught.state_dict(), begun.state_dict()))
    features, valid = steady(90)
    expected = torch.cat([taught._encode(name, features[name], valid[name]) for name in taught.modalities], dim=2)
    found, _, _ = begun._encode(features, valid, begun.begin(features), last=True)
    assert expected[:, 45].std() > 0.01
    assert (found - expected)[:, 25:65].abs().max() < 1e-5  # far from both ends
    scores = taught(features, valid).logits[:, 45]
    assert scores.std() > 0.01
    assert (begun(features, valid).logits[:, 45] - scores).abs().max() < 1e-4


def test_without_convolutions_and_with_all_heard_the_forms_are_one() -> None:
    torch.manual_seed(4)
    shapes: dict[str, tuple[int, ...]] = {"mn04": (384,), "vgg16": (40,)}
    taught, begun = Crnn(shapes, 3).eval().requires_grad_(False), StreamCrnn(shapes, 3).eval().requires_grad_(False)
    begun.load_state_dict(stream_of_window(taught.state_dict(), begun.state_dict()))
    features = {name: torch.randn(3, 50, *shape) for name, shape in shapes.items()}
    valid = {name: torch.rand(3, 50) > 0.1 for name in shapes}
    assert (taught(features, valid).logits - begun(features, valid).logits).abs().max() < 1e-5


def test_the_peak_that_the_gain_starts_at_is_kept() -> None:
    taught, begun = window(), stream()
    assert begun.spectral_input is not None
    assert taught.spectral_input is not None
    begun.spectral_input.first_peak.fill_(52.0)
    taught.spectral_input.mean.fill_(-4.0)
    begun.load_state_dict(stream_of_window(taught.state_dict(), begun.state_dict()))
    assert begun.spectral_input.first_peak == 52.0
    assert (begun.spectral_input.mean == -4.0).all()


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="has no counterpart of its shape"):
        stream_of_window(window().state_dict(), stream(gru_size=64).state_dict())
