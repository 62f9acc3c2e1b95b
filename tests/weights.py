"""Full-size weights of the pretrained networks, the same for the same seed. Activations keep their size through them.

>>> torch.save(vggish_tensors(1), tmp / "vggish.pth")      # 289 MB, half a second
>>> torch.save(vgg16_tensors(2), tmp / "vgg16.pth")        # 553 MB, one second
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.mn04_reference import ROWS, forward, log_mel, width

_VGGISH = {0: (64, 1), 3: (128, 64), 6: (256, 128), 8: (256, 256), 11: (512, 256), 13: (512, 512)}
_VGG16 = dict(
    zip(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        ((64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (256, 256), (512, 256), *[(512, 512)] * 5),
        strict=True,
    )
)


def vggish_tensors(seed: int, mels: int = 64) -> dict[str, Tensor]:
    """A state dict with torchvggish's names, 72,141,184 parameters."""
    shapes: dict[str, tuple[int, ...]] = {f"features.{number}": (*sizes, 3, 3) for number, sizes in _VGGISH.items()}
    shapes |= {"embeddings.0": (4096, 512 * 6 * mels // 16), "embeddings.2": (4096, 4096), "embeddings.4": (128, 4096)}
    return _filled(shapes, seed)


def vgg16_tensors(seed: int) -> dict[str, Tensor]:
    """A state dict with torchvision's names, 138,357,544 parameters."""
    shapes: dict[str, tuple[int, ...]] = {f"features.{number}": (*sizes, 3, 3) for number, sizes in _VGG16.items()}
    shapes |= {"classifier.0": (4096, 25_088), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096)}
    return _filled(shapes, seed)


def mn04_tensors(seed: int) -> dict[str, Tensor]:
    """A checkpoint with EfficientAT's names, and batch norms of their own for every channel."""
    shapes: dict[str, tuple[int, ...]] = {"features.0.0": (8, 1, 3, 3)}
    channels = 8
    for number, (kernel, expansion, out, excite, _, _) in enumerate(ROWS, 1):
        expanded, size, name = width(0.4 * int(expansion)), int(kernel), f"features.{number}.block"
        parts: list[tuple[int, ...]] = [] if expanded == channels else [(expanded, channels, 1, 1)]
        parts.append((expanded, 1, size, size))
        if excite == "SE":
            squeezed, excitation = width(expanded // 4), f"{name}.{len(parts)}.conc_se_layers.0"
            shapes |= {f"{excitation}.fc1": (squeezed, expanded), f"{excitation}.fc2": (expanded, squeezed)}
        channels = width(0.4 * int(out))
        places = [*range(len(parts)), len(parts) + (excite == "SE")]
        parts.append((channels, expanded, 1, 1))
        shapes |= {f"{name}.{place}.0": shape for place, shape in zip(places, parts, strict=True)}
    shapes |= {"features.16.0": (384, channels, 1, 1), "classifier.2": (512, 384), "classifier.5": (527, 512)}
    made = _filled(shapes, seed)
    generator = torch.Generator().manual_seed(seed)
    for name in [name for name, shape in shapes.items() if len(shape) == 4]:
        size = len(made.pop(f"{name}.bias"))
        norm = f"{name.removesuffix('0')}1"
        for part, low, high in (("weight", 0.8, 1.2), ("bias", -0.2, 0.2)):
            made[f"{norm}.{part}"] = torch.empty(size).uniform_(low, high, generator=generator)
        made[f"{norm}.num_batches_tracked"] = torch.tensor(1)
    sounds = np.random.default_rng(seed).normal(0, 1, (6, 30_720)) * [[0.0], [0.1], [0.8], [0.1], [0.1], [0.0]]
    sounds[3, :15_360] = sounds[4, 15_360:] = 0
    sounds[5] = 0.3 * np.sin(0.6 * np.arange(30_720)) * (np.arange(30_720) % 8_000 < 4_000)
    forward(made, np.stack([log_mel(sound.astype(np.float32)) for sound in sounds]), measure=True)
    return made


def _filled(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        limit = (6 / torch.Size(shape[1:]).numel()) ** 0.5  # He: the variance that ReLUs keep
        made[f"{name}.weight"] = torch.empty(shape).uniform_(-limit, limit, generator=generator)
        made[f"{name}.bias"] = torch.empty(shape[0]).uniform_(-0.1, 0.1, generator=generator)
    return made
