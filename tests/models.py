"""Small real models for tests: the network with seeded weights, made to say both yes and no, and cheap extractors.

The spectral extractor is the product's. `Energy` and `Grey` stand where VGGish and VGG16 do, with cells
of the same shapes, so that all three modalities of the network can be run in milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamer.bundle import Bundle
from streamer.decoding import ClassDecoding, Decoding
from streamer.features.base import ExtractorFactory
from streamer.features.spectral import Spectral
from streamer.networks.crnn import Crnn
from streamer.networks.stream_crnn import StreamCrnn, StreamForm
from streamer.types import CELL, SAMPLE_RATE_HZ, Cells, Chunk, Picture, Want, cells_in

CLASSES = ("Cat", "Dog", "Speech")
SHAPES = {"spectral": (4, 128), "vggish": (128,), "vgg16": (4096,)}


def seeded_bundle(
    modalities: Sequence[str] = ("spectral",),
    *,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
    window_cells: int = 151,
    stream: StreamForm | None = None,
) -> Bundle:
    """A network that was not trained, but whose posteriors cross its thresholds on anything that changes."""
    specs: dict[str, dict[str, Any]] = {name: {} for name in modalities}
    tensors = initial_tensors({name: SHAPES[name] for name in modalities}, len(classes), seed, stream)
    decoding = Decoding(tuple(classes), tuple(ClassDecoding(0.5, 0.45, median) for median in _medians(len(classes))))
    first = Bundle("seeded", specs, decoding, tensors, window_cells, stream=stream)
    # Untrained outputs hardly move: stretch them around their mean over noise that comes and goes.
    features, valid = _noise(modalities)
    with torch.inference_mode():
        logits = first.network()(features, valid).logits.double()
    mean, std = logits.mean(dim=(0, 1)), logits.std(dim=(0, 1))
    stretched = dict(tensors)
    stretched["classify.weight"] = (tensors["classify.weight"].double() * (2 / std)[:, None]).float()
    stretched["classify.bias"] = ((tensors["classify.bias"].double() - mean) * (2 / std)).float()
    return Bundle("seeded", specs, decoding, stretched, window_cells, stream=stream)


def initial_tensors(
    shapes: Mapping[str, tuple[int, ...]], classes: int, seed: int, stream: StreamForm | None = None
) -> dict[str, Tensor]:
    """The state of a network that has not been trained, the same for the same seed; a small one of the stream form."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if stream is None:
            return dict(Crnn(shapes, classes).state_dict())
        return dict(StreamCrnn(shapes, classes, form=stream, filters=(4, 6, 8, 8, 8, 8, 8), gru_size=24).state_dict())


def factories(modalities: Sequence[str] = ("spectral",)) -> dict[str, ExtractorFactory]:
    """The extractors that go with `seeded_bundle`."""
    known: dict[str, ExtractorFactory] = {"spectral": Spectral(), "vggish": Energy(), "vgg16": Grey()}
    return {name: known[name] for name in modalities}


def bursts(seconds: float, seed: int = 0, rate_hz: int = SAMPLE_RATE_HZ) -> NDArray[np.float32]:
    """Noise of a new colour and level every half second, with silences, (n,)."""
    random = np.random.default_rng(seed)
    pieces = []
    for _ in range(int(np.ceil(2 * seconds))):
        noise = random.normal(0, 1, rate_hz // 2)
        smooth = np.convolve(noise, np.ones(width := int(random.integers(1, 40))) / width, mode="same")
        pieces.append(random.choice([0.0, 0.01, 0.1, 0.5]) * smooth)
    return np.concatenate(pieces)[: round(seconds * rate_hz)].astype(np.float32)


def pictures(seconds: float, fps: float = 25.0, seed: int = 0) -> list[Picture]:
    """Pictures of a random grey that changes twice a second."""
    random = np.random.default_rng(seed)
    shades = random.integers(0, 256, int(2 * seconds) + 1)
    frames = []
    for index in range(int(seconds * fps)):
        at = round(index / fps * SAMPLE_RATE_HZ)
        frames.append(Picture(at, np.full((224, 224, 3), shades[int(2 * index / fps)], np.uint8)))
    return frames


class Energy:
    """An audio modality of another rate: 128 energies a cell at 16 kHz."""

    name = "vggish"
    shape: tuple[int, ...] = (128,)
    want = Want(rates_hz=frozenset({16_000}))

    def spec(self) -> Mapping[str, Any]:
        return {}

    def new(self) -> EnergyExtractor:
        return EnergyExtractor()


class EnergyExtractor:
    def __init__(self) -> None:
        self._audio = np.zeros(0, np.float32)
        self._next = 0

    def push(self, item: Chunk | Picture) -> Cells:
        assert isinstance(item, Chunk)
        assert item.rate_hz == 16_000
        gap = np.zeros(item.start - len(self._audio), np.float32)
        self._audio = np.concatenate([self._audio, gap, item.samples])
        return self._give(len(self._audio) * SAMPLE_RATE_HZ // 16_000 // CELL)

    def flush(self, cells: int) -> Cells:
        return self._give(cells)

    def _give(self, stop: int) -> Cells:
        start, self._next = self._next, max(stop, self._next)
        values = np.zeros((self._next - start, 128), np.float32)
        for index, cell in enumerate(range(start, self._next)):
            first = cell * CELL * 16_000 // SAMPLE_RATE_HZ
            piece = self._audio[first : first + 1024]
            padded = np.concatenate([piece, np.zeros(1024 - len(piece), np.float32)])
            values[index] = np.square(padded).reshape(128, 8).sum(axis=1)
        return Cells(start, values, np.ones(len(values), np.bool_))


class Grey:
    """A picture modality: 64 x 64 grey points a cell, of the newest picture; it can shed pictures."""

    name = "vgg16"
    shape: tuple[int, ...] = (4096,)
    want = Want(pictures=True)

    def spec(self) -> Mapping[str, Any]:
        return {}

    def new(self) -> GreyExtractor:
        return GreyExtractor()


class GreyExtractor:
    def __init__(self) -> None:
        self.stride = 1
        self.looked_at = 0
        self._cells: list[tuple[NDArray[np.float32], bool]] = []
        self._given = 0

    def push(self, item: Chunk | Picture) -> Cells:
        assert isinstance(item, Picture)
        cell = item.at // CELL
        self._hold(cell)
        if cell == len(self._cells) and self.stride and cell % self.stride == 0:
            self.looked_at += 1
            points = item.pixels[:192:3, :192:3].mean(axis=2).reshape(-1) / 255
            self._cells.append((points.astype(np.float32), True))
        return self._give()

    def flush(self, cells: int) -> Cells:
        self._hold(cells)
        return self._give()

    def _hold(self, cells: int) -> None:
        nothing = (np.zeros(4096, np.float32), False)
        while len(self._cells) < cells:
            self._cells.append(self._cells[-1] if self._cells and self.stride else nothing)

    def _give(self) -> Cells:
        start, self._given = self._given, len(self._cells)
        new = self._cells[start:]
        values = np.array([one for one, _ in new], np.float32).reshape(len(new), 4096)
        return Cells(start, values, np.array([valid for _, valid in new], np.bool_))


class SlowGrey(Grey):
    """As `Grey`, but eight pictures at a time cost `cost_s` each, as VGG16's do."""

    def __init__(self, cost_s: float) -> None:
        self.cost_s = cost_s
        self.looked_at = 0
        """Pictures that were paid for."""

    def new(self) -> SlowGreyExtractor:
        return SlowGreyExtractor(self)


class SlowGreyExtractor(GreyExtractor):
    def __init__(self, factory: SlowGrey) -> None:
        super().__init__()
        self._factory = factory
        self._paid = 0

    def push(self, item: Chunk | Picture) -> Cells:
        cells = super().push(item)
        if self.looked_at - self._paid >= 8:
            time.sleep(8 * self._factory.cost_s)
            self._paid += 8
            self._factory.looked_at += 8
        return cells


def _medians(classes: int) -> list[int]:
    return [(1, 3, 5, 7)[index % 4] for index in range(classes)]


def _noise(modalities: Sequence[str]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    made = factories(modalities)
    audio, audio_16k, frames = bursts(8.0, 99), bursts(8.0, 99, 16_000), pictures(8.0, seed=99)
    features, valid = {}, {}
    for name, factory in made.items():
        extractor = factory.new()
        if factory.want.pictures:
            items: list[Chunk | Picture] = [*frames]
        else:
            (rate_hz,) = factory.want.rates_hz
            items = [Chunk(rate_hz, 0, audio if rate_hz == SAMPLE_RATE_HZ else audio_16k)]
        blocks = [extractor.push(item) for item in items] + [extractor.flush(cells_in(len(audio)))]
        features[name] = torch.from_numpy(np.concatenate([block.values for block in blocks])[None])
        valid[name] = torch.from_numpy(np.concatenate([block.valid for block in blocks])[None])
    return features, valid
