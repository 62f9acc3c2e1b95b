"""How a network of the stream form begins with what one of the window form has learnt: all its weights.

The two forms have the same layers. What differs is the gain, and how far layers look ahead.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from streamer.networks.context_gru import LAYERS
from streamer.networks.forms import gru_tensors
from streamer.networks.stream_convolutions import POOLING

_MODULES_PER_LAYER = 5
"""Of a convolution layer of the window form: convolution, batch norm, ReLU, dropout, pooling."""


def stream_of_window(window: Mapping[str, Tensor], random: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a stream form with the weights of a window form.

    Args:
        window: the state of a `Crnn`.
        random: the state of a new `StreamCrnn` for the same modalities, which knows the peak that its gain starts at.

    Raises:
        ValueError: the shapes of the two do not match, as with other filters, GRU sizes or classes.

    """
    parts = {"spectral_input.": "spectral_input.", "embeddings.": "embeddings.", "classify.": "classify."}
    for layer in range(len(POOLING)):
        for part, number in (("convolution", 0), ("norm", 1)):
            parts[f"convolutions.{_MODULES_PER_LAYER * layer + number}."] = f"convolutions.layers.{layer}.{part}."
    found = dict(random)
    for old, new in parts.items():
        found |= {new + name.removeprefix(old): value for name, value in window.items() if name.startswith(old)}
    for layer in range(LAYERS):
        for old, new in zip(gru_tensors("window", layer), gru_tensors("stream", layer), strict=True):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                found[new.format(kind)] = window[old.format(kind)]
    wrong = [name for name, value in found.items() if name not in random or value.shape != random[name].shape]
    if wrong:
        raise ValueError(f"{wrong[0]} has no counterpart of its shape")
    return found
