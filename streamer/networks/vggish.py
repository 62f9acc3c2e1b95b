"""VGGish's network: 96 x 64 log-mel frames to 128 values.

Hershey et al., "CNN architectures for large-scale audio classification" (ICASSP 2017), as released in
tensorflow/models, research/audioset/vggish.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from streamer.errors import WeightsError
from streamer.networks.vgg import convolutions
from streamer.networks.weights import fitted

FRAMES = 96
"""Mel frames of one input."""
MELS = 64
SIZE = 128
"""Values of an embedding."""
_TORCHAUDIO = {"features_network.": "features.", "embedding_network.": "embeddings."}


class VggishNetwork(nn.Module):
    """The network. Its tensors have torchvggish's names."""

    def __init__(self) -> None:
        super().__init__()
        self.features = convolutions(1, ((64,), (128,), (256, 256), (512, 512)))
        self.embeddings = nn.Sequential(
            nn.Linear(512 * (FRAMES // 16) * (MELS // 16), 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, SIZE),
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """(B, 96, 64) log-mel frames to (B, 128) embeddings, before the last ReLU."""
        maps = self.features(log_mel[:, None])
        # TensorFlow, where the weights come from, flattens with the channels last.
        embeddings: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return embeddings


def network_of(tensors: Mapping[str, Tensor], where: Path) -> VggishNetwork:
    """The network with the tensors of a checkpoint that has the names of torchvggish or torchaudio's prototype.

    Raises:
        WeightsError: they are not VGGish's; says what was expected and what was found in `where`.

    """
    renamed = {_as_torchvggish(name): tensor for name, tensor in tensors.items()}
    with torch.device("meta"):  # needs no memory, and draws no random weights
        network = VggishNetwork()
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    dense = "embeddings.0.weight"
    per_mel = expected[dense][1] // (MELS // 16)
    if dense in renamed and renamed[dense].ndim == 2:
        rows, columns = renamed[dense].shape
        if rows == expected[dense][0] and columns != expected[dense][1] and columns % per_mel == 0:
            raise WeightsError(
                f"weights {where}: VGGish with {16 * columns // per_mel} mel bins: first dense layer is "
                f"{[rows, columns]}, expected {list(expected[dense])}: {MELS} mel bins"
            )
    # A whole torchvggish model also contains the PCA of its post-processing.
    own = fitted(renamed, expected, "VGGish", where, lambda name: name.startswith("pproc."))
    network.load_state_dict(own, assign=True)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _as_torchvggish(name: str) -> str:
    for theirs, ours in _TORCHAUDIO.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
