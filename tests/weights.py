"""Full-size weights of the pretrained networks, the same for the same seed. Activations keep their size through them.

>>> torch.save(vggish_tensors(1), tmp / "vggish.pth")      # 289 MB, half a second
>>> torch.save(vgg16_tensors(2), tmp / "vgg16.pth")        # 553 MB, one second
"""

from __future__ import annotations

import torch
from torch import Tensor

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


def _filled(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        limit = (6 / torch.Size(shape[1:]).numel()) ** 0.5  # He: the variance that ReLUs keep
        made[f"{name}.weight"] = torch.empty(shape).uniform_(-limit, limit, generator=generator)
        made[f"{name}.bias"] = torch.empty(shape[0]).uniform_(-0.1, 0.1, generator=generator)
    return made
