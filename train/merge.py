"""`earwitness-train merge`: one network with the weighted mean of several networks' logits, or of their weights.

A branch that learns beside a stronger one learns to be ignored where the stronger one knows the training recordings by
heart. Branches that were trained apart do not: so each is trained alone, on modalities of its own, and then they become
one network. Nothing is approximated: its layers hold both networks' weights side by side, with zeros between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import torch
from torch import Tensor

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.context_gru import LAYERS
from streamer.networks.crnn import Crnn
from streamer.networks.forms import Form, FusionNetwork, gru_tensors
from streamer.provenance import Provenance, Source
from train.data.cache import in_order
from train.provenance import known_of, pin_of_provenance
from train.split import Pin

_GATES = 3
"""Of a GRU: its weights are those of reset, update and new, one below the other."""


@dataclass(frozen=True, slots=True)
class Member:
    """A model that becomes part of another."""

    bundle: Bundle
    share: float  # of the logits


def merged(members: Sequence[Member], name: str) -> Bundle:
    """A bundle of its members' form whose logits are the members' weighted mean, with the first member's thresholds.

    A member with convolutions must come first. In the stream form, its lookahead is that of the whole: the others,
    which may look less far ahead, decide a cell in the context that this leaves them.

    Raises:
        EarwitnessError: the members share a modality, differ in their form, their classes or their split of recordings,
            or were not written by `earwitness-train export`; or their shares are not positive with a sum of 1.
        BundleError: a member's tensors do not match its network.

    """
    first, others = members[0].bundle, [one.bundle for one in members[1:]]
    _check(members)
    _check_apart([one.bundle for one in members])
    specs = {key: spec for one in members for key, spec in one.bundle.feature_specs.items()}
    networks = [one.bundle.network() for one in members]
    tensors = _tensors(networks, [one.share for one in members], specs)
    provenance = first.provenance
    for other in others:
        _check_split(first, other)
        provenance = _joined(provenance, other.provenance)
    whole = replace(
        first,
        name=name,
        feature_specs={key: specs[key] for key in in_order(list(specs))},
        tensors=tensors,
        provenance=provenance,
        scores={},
    )
    return _of_parts(whole, members, "merged")


def averaged(members: Sequence[Member], name: str) -> Bundle:
    """A bundle with the weighted mean of its members' weights, and the first member's thresholds and provenance.

    Models that were trained on from the same one, in different ways, are close enough for that, and their mean does
    better on other recordings than each of them (Wortsman et al., "Model soups", 2022). Of others the mean is noise.

    Raises:
        EarwitnessError: the members differ in their network, their classes, their features or their split of
            recordings, or were not written by `earwitness-train export`; or their shares are not positive with a sum
            of 1.

    """
    first, others = members[0].bundle, [one.bundle for one in members[1:]]
    _check(members)
    for other in others:
        _check_split(first, other)
        shapes = [{key: tensor.shape for key, tensor in one.tensors.items()} for one in (first, other)]
        if shapes[0] != shapes[1] or first.stream != other.stream or first.feature_specs != other.feature_specs:
            raise EarwitnessError(f"{other.name} has another network or other features than {first.name}")
    tensors = {
        key: sum((one.share * one.bundle.tensors[key].double() for one in members), torch.zeros(())).to(value.dtype)
        if value.is_floating_point()
        else value
        for key, value in first.tensors.items()
    }
    return _of_parts(replace(first, name=name, tensors=tensors, scores={}), members, "averaged")


def _of_parts(made: Bundle, members: Sequence[Member], how: str) -> Bundle:
    """The same bundle, which records what it was made of."""
    parts = [{"name": one.bundle.name, "share": one.share, "sha256": one.bundle.fingerprint()} for one in members]
    more = {**made.provenance.more, how: parts}
    return replace(made, provenance=msgspec.structs.replace(made.provenance, more=more))


def _check(members: Sequence[Member]) -> None:
    """Check what all members need, however they are joined."""
    first = members[0].bundle
    shares = [one.share for one in members]
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise EarwitnessError(
            f"shares are {', '.join(f'{one:g}' for one in shares)}: they must be positive and sum to 1"
        )
    for one in members:
        bundle = one.bundle
        known_of(bundle)
        if (bundle.stream is None) != (first.stream is None):
            its, other = ("window", "stream") if bundle.stream is None else ("stream", "window")
            raise EarwitnessError(f"{bundle.name} has the {its} form, {first.name} the {other} form: train both in one")
        if bundle.classes != first.classes:
            raise EarwitnessError(f"{bundle.name} has other classes than {first.name}")


def _check_apart(bundles: Sequence[Bundle]) -> None:
    """Check that the bundles' networks can lie side by side in one."""
    seen: set[str] = set()
    for number, bundle in enumerate(bundles):
        if twice := seen.intersection(bundle.modalities):
            raise EarwitnessError(
                f"{bundle.name} also has {', '.join(sorted(twice))}: members need different modalities, or --average"
            )
        if number and any(key.startswith("convolutions.") for key in bundle.tensors):
            raise EarwitnessError(f"{bundle.name} has convolutions: name it first")
        seen.update(bundle.modalities)


def _check_split(one: Bundle, other: Bundle) -> None:
    """Check that neither was trained on recordings that the other keeps for validation or test, if both record them."""
    ours, theirs = pin_of_provenance(one.provenance), pin_of_provenance(other.provenance)
    if ours is None or theirs is None:
        return  # the merged model says that its split is unchecked
    if moved := ours.moved(theirs):
        first = moved[0]
        raise EarwitnessError(
            f"{one.name} and {other.name} have {len(moved)} groups of recordings in different parts ({first!r}: "
            f"{ours.parts[first]} in {one.name}, {theirs.parts[first]} in {other.name}): train both on corpora of one "
            "split, made with --split"
        )


def _tensors(networks: Sequence[FusionNetwork], shares: Sequence[float], order: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state of the merged network."""
    places = _places(networks, in_order(list(order)))
    sizes = [one.gru.hidden_size for one in networks]
    hidden = _ranges(sizes, 0)
    found: dict[str, Tensor] = {}
    for network in networks:
        found |= {
            key: value
            for key, value in network.state_dict().items()
            if key.startswith(("spectral_input.", "convolutions.", "embeddings."))
        }
    backward = _ranges(sizes, sum(sizes))
    states = [one.state_dict() for one in networks]
    inputs = (places, [[*ahead, *back] for ahead, back in zip(hidden, backward, strict=True)])  # of each layer
    form: Form = "window" if isinstance(networks[0], Crnn) else "stream"
    for layer in range(LAYERS):
        for names in gru_tensors(form, layer):
            for kind, where in (("ih", inputs[layer]), ("hh", hidden)):
                weight, bias = names.format(f"weight_{kind}"), names.format(f"bias_{kind}")
                found[weight] = _beside([one[weight] for one in states], hidden, where)
                found[bias] = _beside([one[bias][:, None] for one in states], hidden, [[0]] * len(states))[:, 0]
    classify = torch.zeros(len(states[0]["classify.bias"]), 2 * sum(sizes))
    for state, share, ahead, back in zip(states, shares, hidden, backward, strict=True):
        classify[:, [*ahead, *back]] = share * state["classify.weight"]
    found["classify.weight"] = classify
    found["classify.bias"] = sum(
        (share * one["classify.bias"] for one, share in zip(states, shares, strict=True)), torch.zeros(len(classify))
    )
    return found


def _beside(weights: Sequence[Tensor], rows: Sequence[Sequence[int]], columns: Sequence[Sequence[int]]) -> Tensor:
    """The GRU weights (or biases, as columns) of several networks in one, gate by gate, with zeros elsewhere."""
    size = sum(len(one) for one in rows)
    width = 1 + max(max(one) for one in columns)
    whole = torch.zeros(_GATES, size, width)
    for weight, row, column in zip(weights, rows, columns, strict=True):
        gates = weight.reshape(_GATES, len(row), -1)
        whole[:, torch.tensor(row)[:, None], torch.tensor(column)] = gates
    return whole.flatten(0, 1)


def _places(networks: Sequence[FusionNetwork], order: Sequence[str]) -> list[list[int]]:
    """Of each network: where what its modalities' encoders make lies in what the merged network's encoders make."""
    widths = {name: _width(one, name) for one in networks for name in one.modalities}
    spectral = [one.spectral for one in networks if one.spectral]
    starts, start = {}, 0
    for name in [*spectral, *(name for name in order if name not in spectral)]:
        starts[name] = start
        start += widths[name]
    return [
        [place for name in one.modalities for place in range(starts[name], starts[name] + widths[name])]
        for one in networks
    ]


def _width(network: FusionNetwork, name: str) -> int:
    """How many values the network's encoder makes of a cell of the modality."""
    widths: dict[str, int] = {
        one: module.project.out_features  # type: ignore[union-attr, misc]
        for one, module in network.embeddings.items()
    }
    return widths.get(name, network.gru.input_size - sum(widths.values()))


def _ranges(sizes: Sequence[int], start: int) -> list[list[int]]:
    found = []
    for size in sizes:
        found.append(list(range(start, start + size)))
        start += size
    return found


def _joined(one: Provenance, other: Provenance) -> Provenance:
    """The provenance of both: the phases of one after the other's, and all recordings."""
    assert one.steps is not None
    assert other.steps is not None
    phases = tuple(msgspec.structs.replace(phase, from_step=phase.from_step + one.steps) for phase in other.phases)
    pins = [pin for pin in (pin_of_provenance(one), pin_of_provenance(other)) if pin is not None]
    split: Pin | None = pins[0].joined(pins[1]) if len(pins) == 2 else None
    sources = {(s.source, s.licence, s.use): s for s in (*other.trained_on, *one.trained_on)}
    most = {
        key: max(s.recordings for s in (*one.trained_on, *other.trained_on) if (s.source, s.licence, s.use) == key)
        for key in sources
    }
    return msgspec.structs.replace(
        one,
        steps=one.steps + other.steps,
        phases=(*one.phases, *phases),
        trained_on=tuple(Source(*key, most[key]) for key in sorted(most)),
        split=None if split is None else split.json(),
        split_unchecked=one.split_unchecked or other.split_unchecked or split is None,
    )
