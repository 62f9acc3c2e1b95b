"""The two forms of the network: `window`, which computes a window at once, and `stream`, which carries its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from torch import Tensor

from streamer.networks.crnn import Crnn, gru_size_of
from streamer.networks.stream_crnn import StreamCrnn, StreamForm, sizes_of

Form: TypeAlias = Literal["window", "stream"]
FusionNetwork: TypeAlias = Crnn | StreamCrnn


def gru_tensors(form: Form, layer: int) -> tuple[str, str]:
    """What a GRU layer's tensors are called, forwards and backwards, with a place for their kind (`weight_ih`)."""
    if form == "window":
        return f"gru.{{}}_l{layer}", f"gru.{{}}_l{layer}_reverse"
    return f"gru.forwards.{layer}.{{}}_l0", f"gru.backwards.{layer}.{{}}_l0"


def network_of(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    classes: int,
    widths: Mapping[str, int],
    stream: StreamForm | None,
) -> FusionNetwork:
    """The network that `tensors` are the state of, with that state. `stream`: None for the window form.

    Raises:
        ValueError, RuntimeError: they are not the state of such a network.

    """
    network: FusionNetwork
    if stream is None:
        network = Crnn(shapes, classes, widths, gru_size=gru_size_of(tensors))
    else:
        filters, gru_size = sizes_of(tensors)
        network = StreamCrnn(shapes, classes, widths, form=stream, filters=filters, gru_size=gru_size)
    network.load_state_dict(dict(tensors))
    return network
