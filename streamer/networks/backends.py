"""Backends run networks. A backend turns a network's own description into a `Network`: arrays in, arrays out."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import torch
from numpy.typing import NDArray
from torch import nn

from streamer.types import Floats

Array: TypeAlias = NDArray[Any]


class Network(Protocol):
    """A network that is ready to run, on any backend. Not thread-safe."""

    def __call__(self, *arrays: Array) -> tuple[Floats, ...]:
        """Run a batch: `arrays` in the network's order, with the batch as first dimension."""


class TorchNetwork:
    """The torch backend: runs a module on the CPU, in the threads of `use_threads`."""

    def __init__(self, module: nn.Module) -> None:
        """`module` takes tensors by position, and returns a tensor or a tuple of tensors."""
        self._module = module.eval().requires_grad_(False)

    def __call__(self, *arrays: Array) -> tuple[Floats, ...]:
        """See `Network`."""
        with torch.inference_mode():
            out = self._module(*map(torch.from_numpy, arrays))
        return tuple(one.numpy() for one in ((out,) if isinstance(out, torch.Tensor) else out))


def use_threads(count: int) -> None:
    """Run networks in `count` threads; must be called in each thread that runs one.

    OpenMP's setting is per thread: a network in a thread that did not call this would use as many threads as there are
    cores.

    One thread is best beside other work: with torch's choice of two on two busy cores, `replay` took 4.5 times the
    processor time.
    """
    torch.set_num_threads(count)
