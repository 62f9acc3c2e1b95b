"""VGGish cells: 128 values of 0.96 s of audio around the cell.

Hershey et al., "CNN architectures for large-scale audio classification" (ICASSP 2017), as released in
tensorflow/models, research/audioset/vggish: 16 kHz, 96 frames of 64 log-mel bins into a VGG-like network. The
paper takes the 128 embedding values (paper section 4.2); without PCA or quantisation, which it does not mention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from streamer.features.patches import PatchExtractor, centre, paper_start
from streamer.networks.backends import Network, TorchNetwork
from streamer.networks.vggish import FRAMES, MELS, SIZE, network_of
from streamer.networks.weights import WeightsStore
from streamer.types import Floats, Want

RATE_HZ = 16_000
WINDOW, HOP, FFT = 400, 160, 512
"""In samples: a frame, the distance between frames, and the FFT (the frame is zero-padded at its end)."""
PATCH = (FRAMES - 1) * HOP + WINDOW
"""Samples of one embedding: 975 ms."""

_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7500.0
_LOG_OFFSET = 0.01

Alignment: TypeAlias = Literal["centered", "paper"]


@dataclass(frozen=True, slots=True)
class VggishSpec:
    """The parameters of VGGish cells, as a bundle stores them.

    `centered` puts the patch around the cell's centre, `paper` at `paper_start`.
    """

    alignment: Alignment = "centered"
    last_relu: bool = False  # tensorflow/models removed the ReLU after the embedding in 2020; ports keep it
    weights_sha256: str | None = None  # None: any weights

    def __post_init__(self) -> None:
        if self.alignment not in get_args(Alignment):
            raise ValueError(f"alignment is {self.alignment!r}, must be one of {', '.join(get_args(Alignment))}")


def mel_filters() -> Tensor:
    """(257, 64) weights of the FFT's bins in the mel bins, as in TensorFlow's VGGish.

    HTK's mel scale, with triangles that are linear in mel; torchaudio's are linear in Hz and differ by up to 0.0044.
    The bin at 0 Hz lies below all triangles.
    """

    def mel(hz: Any) -> Any:
        return 1127.0 * np.log1p(hz / 700.0)

    bins = mel(np.linspace(0.0, RATE_HZ / 2, FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(_LOWEST_HZ), mel(_HIGHEST_HZ), MELS + 2)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32))


class Vggish:
    """Makes VGGish extractors; holds the network that they share."""

    name = "vggish"
    shape: tuple[int, ...] = (SIZE,)
    want = Want(rates_hz=frozenset({RATE_HZ}))
    rate_hz = RATE_HZ
    patch = PATCH
    every_cells = 1

    def __init__(self, spec: VggishSpec, network: Network) -> None:
        """`network`: (B, 96, 64) log-mel frames to (B, 128), before the last ReLU."""
        self._spec = spec
        self._network = network
        self._taper = torch.hann_window(WINDOW, periodic=True)
        self._filters = mel_filters()

    def spec(self) -> Mapping[str, Any]:
        """See `ExtractorFactory`."""
        return asdict(self._spec)

    def new(self) -> PatchExtractor:
        """An extractor at the start of an epoch."""
        return PatchExtractor(self)

    def patch_start(self, cell: int) -> int:
        """Position of the first of the `PATCH` samples of a cell, at 16 kHz; negative at the start."""
        return centre(cell, RATE_HZ) - PATCH // 2 if self._spec.alignment == "centered" else paper_start(cell, RATE_HZ)

    def log_mel(self, patches: Tensor) -> Tensor:
        """(B, 15600) samples to (B, 96, 64): natural logarithms of mel magnitudes + 0.01."""
        frames = patches.unfold(1, WINDOW, HOP) * self._taper  # (B, 96, 400)
        return torch.log(torch.fft.rfft(frames, FFT).abs() @ self._filters + _LOG_OFFSET)

    def embed(self, patches: Floats) -> Floats:
        """(8, 15600) samples to (8, 128) embeddings."""
        (embeddings,) = self._network(self.log_mel(torch.from_numpy(patches)).numpy())
        return np.maximum(embeddings, 0) if self._spec.last_relu else embeddings


def factory(spec: Mapping[str, Any], weights: WeightsStore) -> Vggish:
    """The VGGish modality of a bundle's spec, with its network.

    Raises:
        TypeError, ValueError: the spec has an unknown field or an invalid value.
        WeightsError: the weights are missing, not those of the spec, or not VGGish's.

    """
    wanted = VggishSpec(**spec)
    found = weights.find("vggish", wanted.weights_sha256)
    return Vggish(replace(wanted, weights_sha256=found.sha256), TorchNetwork(network_of(found.tensors(), found.path)))
