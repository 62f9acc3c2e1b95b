"""The network: the paper's sizes, masks, any length, pooling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamer.networks.crnn import Crnn, inputs_of, linear_pooling
from streamer.networks.dropout import ByteDropout
from tests.models import SHAPES

PARAMETERS = {
    ("spectral",): 1_038_314,
    ("spectral", "vgg16"): 1_057_774,
    ("spectral", "vggish"): 1_052_666,
    ("spectral", "vggish", "vgg16"): 1_072_126,
    ("vgg16",): 476_698,
    ("vggish",): 456_266,
    ("vggish", "vgg16"): 534_106,
}


def inputs(modalities: tuple[str, ...], clips: int, cells: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(cells)
    features = {name: torch.rand(clips, cells, *SHAPES[name], generator=generator) * 50 for name in modalities}
    return features, {name: torch.ones(clips, cells, dtype=torch.bool) for name in modalities}


def network(modalities: tuple[str, ...]) -> Crnn:
    torch.manual_seed(1)
    return Crnn({name: SHAPES[name] for name in modalities}, 10).eval()


@pytest.mark.parametrize("modalities", PARAMETERS)
def test_every_set_of_modalities_has_the_papers_size_and_takes_any_length(modalities: tuple[str, ...]) -> None:
    crnn = network(modalities)
    assert sum(parameter.numel() for parameter in crnn.parameters()) == PARAMETERS[modalities]
    for cells in (1, 2, 23, 151):
        with torch.inference_mode():
            said = crnn(*inputs(modalities, 2, cells))
        assert said.cells.shape == (2, cells, 10)
        assert said.clip.shape == (2, 10)
        assert ((said.cells >= 0) & (said.cells <= 1)).all()


@pytest.mark.parametrize("shapes", [{}, {"spectral": (4, 64)}, {"one": (4, 128), "two": (4, 128)}, {"flat": ()}])
def test_cells_that_the_network_cant_take_are_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="cells must be vectors"):
        Crnn(shapes, 10)


def test_the_widths_are_the_bundles() -> None:
    made = Crnn({"spectral": (4, 128), "smell": (7,)}, 3, {"smell": 5})
    assert inputs_of(made.state_dict(), ["spectral", "smell"]) == (
        {"spectral": (4, 128), "smell": (7,)},
        {"smell": 5},
    )


def test_what_lies_under_a_mask_does_not_matter() -> None:
    modalities = ("spectral", "vggish", "vgg16")
    crnn = network(modalities)
    features, valid = inputs(modalities, 1, 60)
    for name, first in zip(modalities, (10, 20, 30), strict=True):
        valid[name][:, first : first + 15] = False
    other = {name: values.clone() for name, values in features.items()}
    for name in modalities:
        other[name][~valid[name]] = 1e4
    with torch.inference_mode():
        assert torch.equal(crnn(features, valid).cells, crnn(other, valid).cells)


def test_cells_without_any_modality_have_no_posterior_and_no_weight_in_the_clip() -> None:
    crnn = network(("spectral", "vggish"))
    features, valid = inputs(("spectral", "vggish"), 1, 40)
    for mask in valid.values():
        mask[:, 30:] = False
    with torch.inference_mode():
        said = crnn(features, valid)
    assert (said.cells[:, 30:] == 0).all()
    assert torch.allclose(said.clip, linear_pooling(said.cells[:, :30]))


def test_a_window_is_heard_the_same_at_any_gain_that_is_not_silence() -> None:
    crnn = network(("spectral",))
    features, valid = inputs(("spectral",), 1, 50)
    with torch.inference_mode():
        quiet = crnn({"spectral": features["spectral"] * 0.1}, valid).cells
        assert torch.allclose(crnn(features, valid).cells, quiet, atol=1e-4)


def test_a_batch_gives_what_each_window_gives_alone() -> None:
    crnn = network(("spectral",))
    features, valid = inputs(("spectral",), 3, 80)
    with torch.inference_mode():
        together = crnn(features, valid).cells
        alone = crnn({"spectral": features["spectral"][1:2]}, {"spectral": valid["spectral"][1:2]}).cells
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_linear_pooling_of_silence_is_zero_and_of_a_constant_is_that_constant() -> None:
    assert (linear_pooling(torch.zeros(1, 9, 2)) == 0).all()
    assert torch.allclose(linear_pooling(torch.full((1, 9, 2), 0.3)), torch.tensor(0.3))
    frames = torch.tensor([[[0.2], [0.8]]])
    assert torch.allclose(linear_pooling(frames), torch.tensor((0.04 + 0.64) / 1.0))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_byte_dropout_drops_its_share_and_keeps_the_mean(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    dropout = ByteDropout(0.3).train()
    values = torch.ones(8, 16, 50, 50).contiguous(memory_format=memory_format).requires_grad_()
    out = dropout(values)
    assert abs(float((out == 0).float().mean()) - 77 / 256) < 0.01
    assert abs(out.mean().item() - 1) < 0.01
    out.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad == 0, out == 0)
    assert dropout.eval()(values) is values
