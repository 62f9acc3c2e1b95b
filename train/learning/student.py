"""The student as training begins: its inputs are standardised by the training clips, its weights are random."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer.errors import EarwitnessError
from streamer.networks.forms import FusionNetwork
from streamer.networks.inputs import PEAK_FLOOR, EmbeddingInput, SpectralInput
from streamer.networks.stream_inputs import RunningSpectralInput
from streamer.types import Floats
from train.config import FitConfig
from train.data import cache
from train.learning.network import new_network


def new_student(features: cache.Features, target: Floats, classes: int, config: FitConfig) -> FusionNetwork:
    """A network for `config.modalities`.

    Args:
        features: of the labelled training clips; they may have further modalities.
        target: their labels, (clips, cells, classes) or (clips, classes).
        classes: of the output.
        config: of the run.

    Raises:
        EarwitnessError: none of the clips has a valid cell of a modality.

    """
    shapes = {name: features.shapes[name] for name in cache.in_order(config.modalities)}
    student = new_network(shapes, classes, config)
    _standardise(student, features)
    if config.bias_priors:
        _expect_priors(student, target)
    return student


def _standardise(network: FusionNetwork, features: cache.Features, most_clips: int = 1000) -> None:
    """Set the mean and standard deviation of each input, per bin, from valid cells of the training clips."""
    clips = np.flatnonzero(features.cells)
    rows = clips[np.linspace(0, len(clips) - 1, min(most_clips, len(clips))).astype(int)]
    if isinstance(network.spectral_input, RunningSpectralInput):
        assert network.spectral is not None
        network.spectral_input.first_peak.copy_(_median_peak(features, network.spectral, rows))
    for name in network.modalities:
        module = network.spectral_input if name == network.spectral else network.embeddings[name]
        assert isinstance(module, SpectralInput | EmbeddingInput)
        total, square, count = torch.zeros_like(module.mean).double(), torch.zeros_like(module.mean).double(), 0
        for row in rows:
            clip, flags = features.batch([row], int(features.cells[row]))
            values, valid = clip[name], flags[name]
            cells = module.log(values, valid) if isinstance(module, SpectralInput) else values
            bins = cells[valid].flatten(0, -2).double()
            total, square, count = total + bins.sum(0), square + bins.square().sum(0), count + len(bins)
        if count == 0:
            raise EarwitnessError(f"none of the training clips has a valid cell of {name}: train without it")
        mean = total / count
        module.mean.copy_(mean)
        module.std.copy_((square / count - mean.square()).clamp_min(1e-8).sqrt())


def _median_peak(features: cache.Features, spectral: str, rows: NDArray[np.intp]) -> Tensor:
    """The median of the clips' highest magnitudes."""
    peaks = [features.batch([row], int(features.cells[row]))[0][spectral].max() for row in rows]
    return torch.stack(peaks).median().clamp_min(PEAK_FLOOR)


def _expect_priors(network: FusionNetwork, target: Floats) -> None:
    """Set the output bias to each class's share of the cells, which saves the first hundreds of steps."""
    share = torch.from_numpy(target).flatten(0, -2).mean(dim=0).clamp(1e-3, 0.5)
    with torch.no_grad():
        network.classify.bias.copy_(torch.logit(share))
