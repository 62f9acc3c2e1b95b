"""The steps of the stream form with inputs by position, as a backend runs them."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from streamer.networks.stream_convolutions import StreamConvolution
from streamer.networks.stream_crnn import StreamCrnn, StreamState


class PositionalStreamCrnn(nn.Module):
    """`StreamCrnn.step` with inputs by position, for a backend: cells, masks, then the state's tensors.

    Batch norm is folded into the convolutions.
    """

    def __init__(self, network: StreamCrnn, *, last: bool) -> None:
        super().__init__()
        self.network = deepcopy(network).eval()
        self.last = last
        for layer in self.network.convolutions.layers if self.network.convolutions is not None else ():
            assert isinstance(layer, StreamConvolution)
            layer.fold()
            # In another layout than its inputs' a small convolution takes up to four times as long.
            if layer.convolution.in_channels > 1:
                layer.to(memory_format=torch.channels_last)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """`tensors` are in the order of `modalities` and `StreamState.tensors`; returns what `step` does."""
        names = self.network.modalities
        features, valid = tensors[: len(names)], tensors[len(names) : 2 * len(names)]
        posteriors, behind, state = self.network.step(
            dict(zip(names, features, strict=True)),
            dict(zip(names, valid, strict=True)),
            StreamState.of(tensors[2 * len(names) :]),
            last=self.last,
        )
        return posteriors, behind, *state.tensors()


class PositionalAgain(nn.Module):
    """`StreamCrnn.again`, for a backend."""

    def __init__(self, network: StreamCrnn) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> tuple[Tensor]:
        """`tensors`: context, covered, behind."""
        context, covered, behind = tensors
        return (self.network.again(context, covered, behind),)
