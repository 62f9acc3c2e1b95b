"""mn04 cells: what EfficientAT's mn04_as makes of 0.96 s of audio around the cell, as two modalities.

`mn04` is its 384 pooled values; `mn04_scores` is its calibrated scores of the AudioSet classes that stand for ours.
They are two because they fail differently: a branch of 384 values overfits few recordings, one score a class does not.
Each has its own projection in the fusion, and can be left out. Both come from one run of the network.

Schmid, Koutini and Widmer, "Efficient large-scale audio tagging via Transformer-to-CNN knowledge distillation" (ICASSP
2023), as released in fschmid56/EfficientAT: 32 kHz, pre-emphasis, 96 frames of 128 Kaldi mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchaudio.compliance import kaldi

from streamer.features.base import stored_fields
from streamer.features.patches import BATCH, PatchExtractor, at_rate, paper_hop, paper_start
from streamer.networks.backends import Network, TorchNetwork
from streamer.networks.mn04 import CLASSES, MELS, SIZE, network_of
from streamer.networks.weights import WeightsFile, WeightsStore
from streamer.types import CELL, Floats, Want

RATE_HZ = 32_000
WINDOW, HOP, FFT = 800, 320, 1024
"""In samples: a frame, the distance between frames, and the FFT (the frame is in its middle)."""
FRAMES = 96
PATCH = FRAMES * HOP
"""Samples of one patch: 0.96 s."""

_PREEMPHASIS = 0.97
_HIGHEST_HZ = 15_000.0
_LOG_OFFSET = 1e-5
_MEAN, _STD = -4.5, 5.0  # of the log-mel frames, as EfficientAT rounds them
_LATER = ("every_cells", "alignment")
"""Fields that the specs of older versions do not have."""
SILENCE = (math.log(_LOG_OFFSET) - _MEAN) / _STD
"""The value of a mel bin without any power in log-mel frames."""
PER_DB = math.log(10) / 10 / _STD
"""How much a log-mel value rises with one more dB."""
_KEPT = 4
"""Batches whose results are kept for the other modality: more than one push of a chunk of audio makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Which audio a cell's values are made of: what the specs of both modalities begin with."""

    every_cells: int = 1
    """1, 2, 4 or 8: so many cells share a patch, and the cost falls by as much."""
    alignment: Literal["centered", "trailing", "paper"] = "centered"
    """centered: the patch is around the middle of its cells, so they are known 0.45 s after they ended; trailing: it
    ends with them, so they are known at once; paper: the paper's index alignment (`paper_start`), for comparison."""

    def __post_init__(self) -> None:
        if self.every_cells not in (1, 2, 4, BATCH):
            raise ValueError(f"every_cells is {self.every_cells}, must be 1, 2, 4 or {BATCH}")
        if self.alignment not in ("centered", "trailing", "paper"):
            raise ValueError(f"alignment is {self.alignment}, must be centered, trailing or paper")

    def start(self, cell: int) -> int:
        """Position at 32 kHz of the first sample of the patch of the cells from `cell`."""
        if self.alignment == "trailing":
            return at_rate((cell + self.every_cells) * CELL, RATE_HZ) - PATCH
        if self.alignment == "paper":  # the mean of the chunks of its cells
            return paper_start(cell, RATE_HZ) + (self.every_cells - 1) * paper_hop(RATE_HZ) // 2
        return at_rate(cell * CELL + self.every_cells * CELL // 2, RATE_HZ) - PATCH // 2


@dataclass(frozen=True, slots=True)
class Mn04Spec(Patches):
    """The parameters of mn04 cells, as a bundle stores them."""

    weights_sha256: str | None = None  # None: any weights


@dataclass(frozen=True, slots=True)
class Mapped:
    """AudioSet classes that stand for one of ours, and how their highest log-odds become a probability."""

    audioset: list[int]  # rows of AudioSet's class_labels_indices.csv
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not self.audioset or any(not 0 <= index < CLASSES for index in self.audioset):
            raise ValueError(f"audioset is {self.audioset}, must be classes from 0 to {CLASSES - 1}")
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.offset)):
            raise ValueError(f"scale and offset are {self.scale} and {self.offset}; the scale must be positive")


def default_classes() -> dict[str, Mapped]:
    """DCASE 2018 task 4's ten classes.

    Scales and offsets: logistic regression on the 22,650 cells of 150 mixed clips of training recordings. On 90 clips
    of other recordings the mean log loss fell from .331 to .174; the classes' frequencies alone have .264.
    """
    return {
        # Alarm, telephone bell, ringtone, alarm clock, siren, buzzer, smoke detector, fire alarm, doorbell, church bell
        "Alarm_bell_ringing": Mapped([388, 390, 391, 395, 396, 398, 399, 400, 355, 201], 0.605, 0.53),
        "Blender": Mapped([369], 0.624, 3.08),
        "Cat": Mapped([81, 82, 83, 85], 0.699, 1.07),  # cat, purr, meow, caterwaul
        "Dishes": Mapped([364, 365, 442], 0.649, 2.48),  # dishes, cutlery, chink
        "Dog": Mapped([74, 75, 76, 77, 78, 79, 80], 0.839, 1.03),  # dog, bark, yip, howl, bow-wow, growling, whimper
        "Electric_shaver_toothbrush": Mapped([376, 382], 0.929, 2.85),  # electric toothbrush, electric shaver
        "Frying": Mapped([367, 490], 0.703, 2.37),  # frying, sizzle
        "Running_water": Mapped([370, 371, 372, 288], 0.62, 0.62),  # tap, sink, bathtub, water
        "Speech": Mapped([0, 1, 2, 3, 4, 5], 1.06, 0.39),  # speech, man, woman, child, conversation, narration
        "Vacuum_cleaner": Mapped([377], 0.341, 0.24),
    }


@dataclass(frozen=True, slots=True)
class Mn04ScoresSpec(Patches):
    """The parameters of mn04_scores cells, as a bundle stores them."""

    classes: Mapping[str, Mapped] = field(default_factory=default_classes)
    weights_sha256: str | None = None  # None: any weights

    def __post_init__(self) -> None:
        Patches.__post_init__(self)  # `super()` does not know a class with slots
        if not self.classes:
            raise ValueError("classes is empty")


class LogMel:
    """The front end: audio at 32 kHz to standardised log-mel frames, one in 10 ms."""

    def __init__(self) -> None:
        self._taper = torch.hann_window(WINDOW, periodic=False)
        filters, _ = kaldi.get_mel_banks(MELS, FFT, float(RATE_HZ), 0.0, _HIGHEST_HZ, 100.0, -500.0, 1.0)
        self._filters = torch.nn.functional.pad(filters, (0, 1))  # (128, 513): Kaldi leaves out the bin at Nyquist

    def __call__(self, samples: Tensor) -> Tensor:
        """(B, n) samples, n > 513, to (B, 128, frames): a frame for each 320 samples begun after the first one."""
        emphasised = samples[:, 1:] - _PREEMPHASIS * samples[:, :-1]
        spectrum = torch.stft(emphasised, FFT, HOP, WINDOW, self._taper, center=True, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()  # (B, 513, frames)
        return log_of(self._filters @ power)


def log_of(power: Tensor) -> Tensor:
    """The log-mel values of powers of mel bins, of any shape."""
    return (torch.log(power + _LOG_OFFSET) - _MEAN) / _STD


def power_of(log_mel: Tensor) -> Tensor:
    """The inverse of `log_of`; not below zero, where log-mel values were rounded."""
    return (torch.exp(_STD * log_mel + _MEAN) - _LOG_OFFSET).clamp_min(0)


class Mn04:
    """The front end and the network, with the newest results, so that two modalities cost one run of it.

    Times of stages count the run for the modality that comes first.
    """

    def __init__(self, network: Network) -> None:
        """`network`: (B, 128, 96) log-mel frames to (B, 384) values and (B, 527) log-odds."""
        self._network = network
        self.log_mel = LogMel()
        """(B, 30720) samples to (B, 128, 96) log-mel frames."""
        self._kept: list[tuple[Floats, tuple[Floats, Floats]]] = []  # (patches, their results), the newest last

    def __call__(self, patches: Floats) -> tuple[Floats, Floats]:
        """(B, 30720) samples to (B, 384) values and (B, 527) log-odds. The caller leaves `patches` as they are."""
        for known, results in self._kept:
            # Most other patches already differ at their beginnings.
            if np.array_equal(known[:, :64], patches[:, :64]) and np.array_equal(known, patches):
                return results
        pooled, log_odds = self._network(self.log_mel(torch.from_numpy(patches)).numpy())
        self._kept = [*self._kept[1 - _KEPT :], (patches, (pooled, log_odds))]
        return pooled, log_odds


class Mn04Values:
    """Makes the extractors of `mn04`."""

    name = "mn04"
    shape: tuple[int, ...] = (SIZE,)
    want = Want(rates_hz=frozenset({RATE_HZ}))
    rate_hz = RATE_HZ
    patch = PATCH

    def __init__(self, spec: Mn04Spec, network: Mn04) -> None:
        self._spec = spec
        self._network = network
        self.every_cells = spec.every_cells

    def spec(self) -> Mapping[str, Any]:
        """See `ExtractorFactory`."""
        return stored_fields(self._spec, later=_LATER)

    def new(self) -> PatchExtractor:
        """An extractor at the start of an epoch."""
        return PatchExtractor(self)

    def patch_start(self, cell: int) -> int:
        """See `PatchFactory`."""
        return self._spec.start(cell)

    def embed(self, patches: Floats) -> Floats:
        """(B, 30720) samples to (B, 384) pooled values."""
        return self._network(patches)[0]


class Mn04Scores:
    """Makes the extractors of `mn04_scores`."""

    name = "mn04_scores"
    want = Want(rates_hz=frozenset({RATE_HZ}))
    rate_hz = RATE_HZ
    patch = PATCH

    def __init__(self, spec: Mn04ScoresSpec, network: Mn04) -> None:
        self._spec = spec
        self._network = network
        self.every_cells = spec.every_cells
        self.shape: tuple[int, ...] = (len(spec.classes),)

    def spec(self) -> Mapping[str, Any]:
        """See `ExtractorFactory`."""
        return stored_fields(self._spec, later=_LATER)

    def new(self) -> PatchExtractor:
        """An extractor at the start of an epoch."""
        return PatchExtractor(self)

    def patch_start(self, cell: int) -> int:
        """See `PatchFactory`."""
        return self._spec.start(cell)

    def embed(self, patches: Floats) -> Floats:
        """(B, 30720) samples to (B, classes) probabilities, in the spec's order."""
        _, log_odds = self._network(patches)
        columns = [
            one.scale * log_odds[:, one.audioset].max(axis=1) + one.offset for one in self._spec.classes.values()
        ]
        calibrated: Floats = 1 / (1 + np.exp(-np.clip(np.stack(columns, axis=1), -30, 30)))
        return calibrated.astype(np.float32)


def factory(spec: Mapping[str, Any], weights: WeightsStore) -> Mn04Values:
    """The mn04 modality of a bundle's spec, with its network.

    Raises:
        TypeError: the spec has an unknown field.
        WeightsError: the weights are missing, not those of the spec, or not mn04_as's.

    """
    wanted = Mn04Spec(**spec)
    found = weights.find("mn04", wanted.weights_sha256)
    return Mn04Values(replace(wanted, weights_sha256=found.sha256), _network(found, weights))


def scores_factory(spec: Mapping[str, Any], weights: WeightsStore) -> Mn04Scores:
    """The mn04_scores modality of a bundle's spec, with the network that it shares with mn04.

    Raises:
        TypeError, ValueError: the spec has an unknown field or an invalid value.
        WeightsError: the weights are missing, not those of the spec, or not mn04_as's.

    """
    given = dict(spec)
    if "classes" in given:
        if not isinstance(given["classes"], Mapping):
            raise ValueError("classes must be an object: class -> audioset, scale and offset")
        given["classes"] = {name: Mapped(**one) for name, one in given["classes"].items()}
    wanted = Mn04ScoresSpec(**given)
    found = weights.find("mn04", wanted.weights_sha256)
    return Mn04Scores(replace(wanted, weights_sha256=found.sha256), _network(found, weights))


def _network(found: WeightsFile, weights: WeightsStore) -> Mn04:
    return weights.built(found, lambda tensors, where: Mn04(TorchNetwork(network_of(tensors, where))))
