"""A merged model computes the weighted mean of its members' logits, and knows where both come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from streamer.bundle import Bundle
from streamer.decoding import ClassDecoding, Decoding
from streamer.errors import EarwitnessError
from streamer.networks.context_gru import Context
from streamer.networks.crnn import Crnn
from streamer.networks.forms import FusionNetwork
from streamer.networks.stream_crnn import StreamCrnn, StreamForm
from streamer.provenance import Phase, Provenance, Source
from train import cli
from train.merge import Member, averaged, merged

SHAPES: dict[str, tuple[int, ...]] = {"spectral": (4, 128), "vggish": (7,), "vgg16": (5,), "mn04": (6,)}
CLASSES = ("Cat", "Dog", "Speech")
SMALL = (4, 6, 8, 8, 8, 8, 8)
TOLERANCE = 1e-5


def bundle(
    modalities: tuple[str, ...], seed: int, *, size: int = 12, classes: tuple[str, ...] = CLASSES, window: bool = False
) -> Bundle:
    torch.manual_seed(seed)
    form = StreamForm(5 if "spectral" in modalities else 0)
    widths = {name: 3 + place for place, name in enumerate(modalities) if name != "spectral"}
    shapes = {name: SHAPES[name] for name in modalities}
    network: FusionNetwork
    if window:
        network = Crnn(shapes, len(classes), widths, gru_size=size)
    else:
        network = StreamCrnn(shapes, len(classes), widths, form=form, filters=SMALL, gru_size=size)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", ".mean")):
            tensor.uniform_(-1, 1)
        if name.endswith(("running_var", ".std")):
            tensor.uniform_(0.5, 2)
    network.classify.weight.data *= 8
    made = Provenance(
        steps=100 * seed,
        phases=(Phase(from_step=0, corpus={"seed": seed}),),
        trained_on=(Source("field", "CC0", "ship", seed), Source(f"only {seed}", "MIT", "ship", 1)),
        split={"train": ["a", f"only {seed}"], "validation": ["b"], "test": ["c"]},
    )
    one = ClassDecoding(0.1 * seed, 0.05, 7, 0.5)
    decoding = Decoding(classes, tuple(one for _ in classes))
    specs: dict[str, dict[str, Any]] = {name: {} for name in modalities}
    return Bundle(
        f"member-{seed}", specs, decoding, network.state_dict(), provenance=made, stream=None if window else form
    )


@pytest.mark.parametrize(
    "sets",
    [
        (("spectral",), ("mn04",)),
        (("spectral", "vgg16"), ("vggish", "mn04")),
        (("mn04",), ("vggish",), ("vgg16",)),
        (("spectral", "mn04"), ("vggish",), ("vgg16",)),
    ],
)
@pytest.mark.parametrize("window", [False, True])
def test_logits_are_the_weighted_mean(sets: tuple[tuple[str, ...], ...], window: bool, tmp_path: Path) -> None:
    shares = [0.5, 0.3, 0.2] if len(sets) == 3 else [0.7, 0.3]
    parts = [bundle(one, seed, size=10 + seed, window=window) for seed, one in enumerate(sets, 1)]
    merged([Member(*pair) for pair in zip(parts, shares, strict=True)], "all").save(tmp_path / "all")
    whole = Bundle.load(tmp_path / "all")
    cells = 40
    features = {name: torch.randn(2, cells, *SHAPES[name]).abs() for name in whole.modalities}
    valid = {name: torch.rand(2, cells) > 0.1 for name in whole.modalities}
    expected = torch.zeros(2, cells, len(CLASSES))
    for one, share in zip(parts, shares, strict=True):
        expected += share * one.network()(features, valid).logits
    network = whole.network()
    assert expected.std() > 0.1
    assert (network(features, valid).logits - expected).abs().max() < TOLERANCE
    if not window:
        assert isinstance(network, StreamCrnn)
        network.context = Context(8, 4)  # it is a stream form like any other
        assert network(features, valid).logits.isfinite().all()


def test_weights_are_averaged() -> None:
    one, other = bundle(("spectral", "mn04"), 1), bundle(("spectral", "mn04"), 2)
    whole = averaged([Member(one, 0.75), Member(other, 0.25)], "mean")
    for name, tensor in whole.tensors.items():
        if tensor.is_floating_point():
            expected = 0.75 * one.tensors[name] + 0.25 * other.tensors[name]
            assert (tensor - expected).abs().max() < 1e-6, name
    assert whole.network().state_dict().keys() == one.tensors.keys()
    assert (whole.decoding, whole.provenance.steps, whole.scores) == (one.decoding, 100, {})
    assert [(part["name"], part["share"]) for part in whole.provenance.more["averaged"]] == [
        ("member-1", 0.75),
        ("member-2", 0.25),
    ]
    again = averaged([Member(whole, 0.5), Member(other, 0.5)], "of a mean")
    assert [part["name"] for part in again.provenance.more["averaged"]] == ["mean", "member-2"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (bundle(("spectral",), 2, size=13), "member-2 has another network or other features than member-1"),
        (bundle(("mn04",), 2), "member-2 has another network"),
        (bundle(("spectral",), 2, window=True), "member-2 has the window form"),
        (bundle(("spectral",), 2, classes=("Cat", "Dog", "Owl")), "member-2 has other classes"),
    ],
)
def test_weights_of_different_networks_are_not_averaged(other: Bundle, says: str) -> None:
    with pytest.raises(EarwitnessError, match=says):
        averaged([Member(bundle(("spectral",), 1), 0.5), Member(other, 0.5)], "no")


def test_it_records_what_both_were_trained_on() -> None:
    whole = merged([Member(bundle(("spectral",), 1), 0.7), Member(bundle(("mn04",), 2), 0.3)], "both")
    came = whole.provenance
    assert came.steps == 300
    assert [phase.from_step for phase in came.phases] == [0, 100]
    assert came.split == {"train": ["a", "only 1", "only 2"], "validation": ["b"], "test": ["c"]}
    assert [(one.source, one.recordings) for one in came.trained_on] == [("field", 2), ("only 1", 1), ("only 2", 1)]
    assert [(one["name"], one["share"]) for one in came.more["merged"]] == [("member-1", 0.7), ("member-2", 0.3)]
    assert whole.decoding.per_class[0].onset_threshold == 0.1  # the first member's
    assert whole.modalities == ("spectral", "mn04")
    assert whole.scores == {}


@pytest.mark.parametrize(
    ("others", "shares", "says"),
    [
        ((bundle(("mn04",), 2, window=True),), (0.5, 0.5), "member-2 has the window form, member-1 the stream form"),
        ((bundle(("mn04",), 2, classes=("Cat", "Dog", "Owl")),), (0.5, 0.5), "member-2 has other classes"),
        ((bundle(("mn04",), 2), bundle(("mn04", "vggish"), 3)), (0.5, 0.3, 0.2), "member-3 also has mn04"),
        ((bundle(("mn04",), 2),), (0.5, 0.4), "shares are 0.5, 0.4: they must be positive and sum to 1"),
        ((bundle(("mn04",), 2),), (1.5, -0.5), "shares are 1.5, -0.5"),
    ],
)
def test_what_can_not_be_merged_is_said(others: tuple[Bundle, ...], shares: tuple[float, ...], says: str) -> None:
    first = bundle(("spectral",), 1)
    with pytest.raises(EarwitnessError, match=says):
        merged([Member(*pair) for pair in zip((first, *others), shares, strict=True)], "no")


def test_a_member_that_was_trained_on_what_another_tests_on_is_refused() -> None:
    first, other = bundle(("spectral",), 1), bundle(("mn04",), 2)
    assert other.provenance.split is not None
    moved = {**other.provenance.split, "train": ["a", "c"], "test": []}
    other = replace(other, provenance=msgspec.structs.replace(other.provenance, split=moved))
    with pytest.raises(EarwitnessError, match=r"1 groups of recordings .*'c': test in member-1, train in member-2"):
        merged([Member(first, 0.7), Member(other, 0.3)], "no")


def test_spectral_input_comes_first() -> None:
    with pytest.raises(EarwitnessError, match="member-2 has convolutions: name it first"):
        merged([Member(bundle(("mn04",), 1), 0.5), Member(bundle(("spectral",), 2), 0.5)], "no")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("one", "two", "both")]
    bundle(("spectral",), 1).save(paths[0])
    bundle(("mn04",), 2).save(paths[1])
    command = ["merge", str(paths[2]), str(paths[0]), str(paths[1])]
    assert cli.main([*command, "--shares", "0.7", "0.2", "0.1"]) == 1
    assert "--shares: there are 3 for 2 bundles" in capsys.readouterr().err
    assert cli.main([*command, "--shares", "0.7", "0.3", "--name", "audio"]) == 0
    assert Bundle.load(paths[2]).name == "audio"
    assert cli.main(["merge", str(paths[2]), str(paths[0])]) == 1
    assert "there is only one bundle" in capsys.readouterr().err
