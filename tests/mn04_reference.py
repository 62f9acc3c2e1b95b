"""mn04_as in double precision, written from the papers with numpy and torch.nn.functional: what the product should do.

>>> forward(checkpoint, np.stack([log_mel(patch)]))     # (1, 384), (1, 527)
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

# "Searching for MobileNetV3", table 1: kernel, expansion size, output channels, squeeze and excite, HS or RE, stride.
TABLE = """
3 16 16 - RE 1
3 64 24 - RE 2
3 72 24 - RE 1
5 72 40 SE RE 2
5 120 40 SE RE 1
5 120 40 SE RE 1
3 240 80 - HS 2
3 200 80 - HS 1
3 184 80 - HS 1
3 184 80 - HS 1
3 480 112 SE HS 1
3 672 112 SE HS 1
5 672 160 SE HS 2
5 960 160 SE HS 1
5 960 160 SE HS 1
"""
ROWS = [line.split() for line in TABLE.split("\n") if line]


def width(channels: float) -> int:
    """The nearest multiple of 8 that is no more than a tenth lower."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def log_mel(patch: NDArray[np.float32]) -> NDArray[np.float64]:
    """(30720,) samples to (128, 96)."""
    samples = patch.astype(np.float64)
    emphasised = samples[1:] - 0.97 * samples[:-1]
    padded = np.pad(emphasised, 512, mode="reflect")
    taper = np.zeros(1024)
    taper[112:912] = np.hanning(800)
    frames = np.stack([padded[start : start + 1024] * taper for start in range(0, 96 * 320, 320)])
    power = np.abs(np.fft.rfft(frames)) ** 2  # (96, 513)

    def mel(hz: float) -> float:
        return float(1127 * np.log(1 + hz / 700))

    edges = np.linspace(0, mel(15_000), 130)
    bins = np.array([mel(number * 32_000 / 1024) for number in range(512)])
    filters = np.stack([np.interp(bins, edges[k : k + 3], [0, 1, 0]) for k in range(128)])
    return np.asarray((np.log(filters @ power[:, :512].T + 1e-5) + 4.5) / 5)


def forward(checkpoint: dict[str, Tensor], frames: NDArray[np.float64], measure: bool = False) -> tuple[Tensor, Tensor]:
    """(B, 128, 96) to (B, 384) pooled values and (B, 527) log-odds; `checkpoint` has EfficientAT's names.

    With `measure` the statistics of the batch norms are first set by those of `frames`, much as training would.
    """
    own = {name: tensor.double() for name, tensor in checkpoint.items()}

    def layer(maps: Tensor, name: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = own[f"{name}.0.weight"]
        groups = len(weight) if depthwise else 1
        out = functional.conv2d(maps, weight, None, stride, (weight.shape[-1] - 1) // 2, 1, groups)
        if measure:
            checkpoint[f"{name}.1.running_mean"] = out.mean(dim=(0, 2, 3)).float()
            variance = out.var(dim=(0, 2, 3))  # and more, so that no channel that hardly moves is made loud
            checkpoint[f"{name}.1.running_var"] = (3 * variance + variance.mean()).float()
            own.update({key: checkpoint[key].double() for key in checkpoint if key.startswith(f"{name}.1.running")})
        mean, variance, scale, offset = (
            own[f"{name}.1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (out - mean) / torch.sqrt(variance + 1e-3) * scale + offset

    maps = functional.hardswish(layer(torch.from_numpy(frames)[:, None], "features.0", 2))
    for number, (_, expansion, channels, excite, kind, stride) in enumerate(ROWS, 1):
        active = functional.hardswish if kind == "HS" else functional.relu
        inside, name, part = maps, f"features.{number}.block", 0
        if width(0.4 * int(expansion)) != maps.shape[1]:
            inside, part = active(layer(inside, f"{name}.0")), 1
        inside = active(layer(inside, f"{name}.{part}", int(stride), depthwise=True))
        if excite == "SE":
            part += 1
            first, second = (f"{name}.{part}.conc_se_layers.0.fc{number}" for number in (1, 2))
            means = inside.flatten(2).mean(2)
            squeezed = functional.linear(means, own[f"{first}.weight"], own[f"{first}.bias"]).clamp(min=0)
            gates = 1 / (1 + torch.exp(-functional.linear(squeezed, own[f"{second}.weight"], own[f"{second}.bias"])))
            inside = inside * gates.unsqueeze(2).unsqueeze(3)
        out = layer(inside, f"{name}.{part + 1}")
        maps = out + maps if stride == "1" and out.shape == maps.shape else out
        assert maps.shape[1] == width(0.4 * int(channels))
    pooled = functional.hardswish(layer(maps, "features.16")).flatten(2).mean(2)
    hidden = functional.hardswish(functional.linear(pooled, own["classifier.2.weight"], own["classifier.2.bias"]))
    return pooled, functional.linear(hidden, own["classifier.5.weight"], own["classifier.5.bias"])
