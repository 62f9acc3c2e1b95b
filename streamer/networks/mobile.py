"""What the mobile networks have in common: convolutions with batch norm, which is folded into their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from streamer.networks.weights import fitted

_EPSILON = 1e-3
"""Of the batch norms, as in TensorFlow's mobile networks; torch's own is 1e-5."""
_NORM = ("weight", "bias", "running_mean", "running_var")


def convolution(
    channels: int, width: int, kernel: int = 1, *, stride: int = 1, depthwise: bool = False, after: nn.Module | None
) -> nn.Sequential:
    """A convolution, "0", and the activation `after` it. A checkpoint has its batch norm as "1"."""
    groups = channels if depthwise else 1
    layers: list[nn.Module] = [nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, groups=groups)]
    if after is not None:
        layers.append(after)
    return nn.Sequential(*layers)


def load_folded(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    what: str,
    where: Path,
    ignored: Callable[[str], bool] = lambda name: False,
) -> None:
    """Load a checkpoint with batch norms into a network without them: they are part of the convolutions.

    Args:
        network: each convolution `X.0` has the batch norm `X.1` in the checkpoint; other tensors have the same names.
        tensors: the contents of a checkpoint, under the network's names.
        what: the network's name, for the error.
        where: the checkpoint's path, for the error.
        ignored: whether a checkpoint may have a tensor of this name that the network does not need.

    Raises:
        WeightsError: a tensor is missing, unexpected, of another shape, or not floating point.

    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    norms: dict[str, str] = {}  # convolution -> its batch norm
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            norms[name] = f"{name.removesuffix('0')}1"
            (size,) = expected.pop(f"{name}.bias")
            expected |= {f"{norms[name]}.{part}": (size,) for part in _NORM}
    counters = "num_batches_tracked"
    own = fitted(tensors, expected, what, where, lambda name: name.endswith(counters) or ignored(name))
    for name, norm in norms.items():
        weight, bias, mean, variance = (own.pop(f"{norm}.{part}").double() for part in _NORM)
        scale = weight / torch.sqrt(variance + _EPSILON)
        own[f"{name}.weight"] = (own[f"{name}.weight"].double() * scale[:, None, None, None]).float()
        own[f"{name}.bias"] = (bias - mean * scale).float()
    network.load_state_dict(own, assign=True)
