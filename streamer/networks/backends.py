"""What runs a network. A backend takes a network's own description and gives a `Network`: arrays in, arrays out."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import torch
from numpy.typing import NDArray
from torch import nn

from streamer.types import Floats

Array: TypeAlias = NDArray[Any]


class Network(Protocol):
    """A network that is ready to run, on whatever backend. Not for two threads at once."""

    def __call__(self, *arrays: Array) -> tuple[Floats, ...]:
        """Run on a batch: `arrays` in the network's order, their first dimension the batch's."""


class TorchNetwork:
    """The backend torch: runs a module on the CPU, in as many threads as `use_threads` says."""

    def __init__(self, module: nn.Module) -> None:
        """`module`: tensors in by position; a tensor or a tuple of tensors out."""
        self._module = module.eval().requires_grad_(False)

    def __call__(self, *arrays: Array) -> tuple[Floats, ...]:
        """See `Network`."""
        with torch.inference_mode():
            out = self._module(*map(torch.from_numpy, arrays))
        return tuple(one.numpy() for one in ((out,) if isinstance(out, torch.Tensor) else out))


def use_threads(count: int) -> None:
    """Run networks in `count` threads; to be called in each thread that runs one.

    It is the calling thread's setting too: OpenMP has one for each thread, so that a network in another thread than the
    one that called this would still be run by as many threads as there are cores.

    One is best beside other work: with torch's own choice of two on two busy cores, `replay` took 4.5 times the
    processor time.
    """
    torch.set_num_threads(count)
