"""How a network of the stream form begins with what one of the window form has learnt.

The convolutions and the first forward GRU layer have the same shapes, and compute nearly the same values: what costs
most to learn is there from the start. Layers without a counterpart begin at random, as in any other run.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from streamer.networks.stream_convolutions import POOLING

_MODULES_PER_LAYER = 5
"""Of a convolution layer of the window form: convolution, batch norm, ReLU, dropout, pooling."""


def stream_of_window(window: Mapping[str, Tensor], random: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a stream form with the weights of a window form where they have a counterpart.

    Args:
        window: the state of a `Crnn`.
        random: the state of a new `StreamCrnn` for the same modalities, which knows the peak that its gain starts at.

    Raises:
        ValueError: the shapes of the two do not match, as with other filters, GRU sizes or classes.

    """
    found = dict(random)
    for layer in range(len(POOLING)):
        for part, number in (("convolution", 0), ("norm", 1)):
            old, new = f"convolutions.{_MODULES_PER_LAYER * layer + number}.", f"convolutions.layers.{layer}.{part}."
            found |= {new + name.removeprefix(old): value for name, value in window.items() if name.startswith(old)}
    found |= {
        name: value
        for name, value in window.items()
        if name.startswith(("spectral_input.", "embeddings.", "classify."))
    }
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        found[f"gru.{name}"] = window[f"gru.{name}"]
        found[f"backward_gru.{name}"] = window[f"gru.{name}_reverse"]
    for name in ("weight_hh_l1", "bias_ih_l1", "bias_hh_l1"):
        found[f"gru.{name}"] = window[f"gru.{name}"]
    size = window["gru.weight_hh_l1"].shape[1]
    # The window form's second layer also hears the first one backwards, which the stream form has not got.
    found["gru.weight_ih_l1"] = window["gru.weight_ih_l1"][:, :size]
    # The backward GRU also gets the forward GRU's outputs: at first it hardly listens to them.
    fused = window["gru.weight_ih_l0_reverse"]
    mixed = random["backward_gru.weight_ih_l0"].clone()
    if len(mixed) == len(fused) and mixed.shape[1] > fused.shape[1]:
        mixed[:, : fused.shape[1]] = fused
        found["backward_gru.weight_ih_l0"] = mixed
    wrong = [name for name, value in found.items() if name not in random or value.shape != random[name].shape]
    if wrong:
        raise ValueError(f"{wrong[0]} has no counterpart of its shape")
    return found
