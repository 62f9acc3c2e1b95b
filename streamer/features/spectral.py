"""Spectral cells: linear mel magnitudes, four frames of 128 bins per cell.

Centred frames of a Hamming window every 366 samples at 22 100 Hz, zeros beyond the epoch's ends,
Slaney mel bins without normalisation from 0 Hz to Nyquist (paper section 4.2; the details that it
leaves open are those of the DCASE baselines). The log, the peak gain and the standardisation need a
whole window and are in `streamer.networks.inputs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torchaudio

from streamer.networks.weights import WeightsStore
from streamer.types import CELL, FRAMES_PER_CELL, HOP, SAMPLE_RATE_HZ, Cells, Chunk, Floats, Picture, Want, cells_in


@dataclass(frozen=True, slots=True)
class SpectralSpec:
    """The parameters of spectral cells, as a bundle stores them."""

    window: int = 2048  # samples of the Hamming window and the FFT
    mels: int = 128


class Spectral:
    """Makes spectral extractors; holds the window and the mel filters that they share."""

    name = "spectral"
    want = Want(rates_hz=frozenset({SAMPLE_RATE_HZ}))

    def __init__(self, spec: SpectralSpec = SpectralSpec()) -> None:
        self._spec = spec
        self.shape: tuple[int, ...] = (FRAMES_PER_CELL, spec.mels)
        self._taper = torch.hamming_window(spec.window, periodic=True)
        self._filters = torchaudio.functional.melscale_fbanks(
            n_freqs=spec.window // 2 + 1,
            f_min=0.0,
            f_max=SAMPLE_RATE_HZ / 2,
            n_mels=spec.mels,
            sample_rate=SAMPLE_RATE_HZ,
            norm=None,
            mel_scale="slaney",
        )  # (bins, mels)

    def spec(self) -> Mapping[str, Any]:
        """See `ExtractorFactory`."""
        return asdict(self._spec)

    def new(self) -> SpectralExtractor:
        """An extractor at the start of an epoch."""
        return SpectralExtractor(self)

    @property
    def reach(self) -> int:
        """Samples of a frame on each side of its centre."""
        return self._spec.window // 2

    def cell(self, samples: torch.Tensor) -> torch.Tensor:
        """Magnitudes of one cell.

        One cell per call, not a batch: the rounding of a matrix product depends on its number of rows, and a cell must
        be the same bit for bit however its samples arrive.

        Args:
            samples: (3 * HOP + window,), starting `reach` before the first frame's centre.

        Returns:
            (4, mels).

        """
        frames = samples.unfold(0, self._spec.window, HOP) * self._taper  # (4, window)
        magnitudes: torch.Tensor = torch.fft.rfft(frames).abs() @ self._filters
        return magnitudes


class SpectralExtractor:
    """Spectral cells of one epoch. A cell whose frames touch a hole in the audio is not valid."""

    def __init__(self, factory: Spectral) -> None:
        self._factory = factory
        self._audio = np.zeros(factory.reach, np.float32)  # audio that the next cells need
        self._audio_start = -factory.reach  # position of _audio[0]
        self._holes: list[tuple[int, int]] = []  # (start, stop), oldest first
        self._next = 0  # the next cell to be returned

    @property
    def _end(self) -> int:
        return self._audio_start + len(self._audio)

    def push(self, item: Chunk | Picture) -> Cells:
        """Process audio at 22 100 Hz and return the cells that it completes.

        Raises:
            ValueError: the item is a picture or has another rate.

        """
        if not isinstance(item, Chunk) or item.rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"spectral cells are made from audio at {SAMPLE_RATE_HZ} Hz")
        if item.start > self._end:
            self._holes.append((self._end, item.start))
        self._append(item.samples, hole=item.start - self._end)
        done = (self._end - self._factory.reach - (FRAMES_PER_CELL - 1) * HOP) // CELL + 1
        return self._give(max(done, self._next))

    def flush(self, cells: int) -> Cells:
        """Pad the end with zeros and return all remaining cells below `cells`; those after the audio are not valid."""
        audible = cells_in(self._end) if self._end > 0 else 0
        missing = cells * CELL + self._factory.reach - self._end
        self._append(np.zeros(max(missing, 0), np.float32), hole=0)
        return self._give(max(cells, self._next), valid_below=audible)

    def _append(self, samples: Floats, hole: int) -> None:
        self._audio = np.concatenate([self._audio, np.zeros(hole, np.float32), samples])

    def _give(self, stop: int, valid_below: int | None = None) -> Cells:
        start, self._next = self._next, stop
        values = np.zeros((stop - start, *self._factory.shape), np.float32)
        valid = np.zeros(stop - start, np.bool_)
        reach = self._factory.reach
        audio = torch.from_numpy(self._audio)
        for index, cell in enumerate(range(start, stop)):
            first, last = cell * CELL - reach, cell * CELL + (FRAMES_PER_CELL - 1) * HOP + reach
            valid[index] = (valid_below is None or cell < valid_below) and not any(
                hole_start < last and first < hole_stop for hole_start, hole_stop in self._holes
            )
            if valid[index]:
                offset = first - self._audio_start
                values[index] = self._factory.cell(audio[offset : offset + last - first]).numpy()
        self._forget(stop * CELL - reach)
        return Cells(start, values, valid)

    def _forget(self, position: int) -> None:
        used = min(max(position - self._audio_start, 0), len(self._audio))
        self._audio = self._audio[used:]
        self._audio_start += used
        self._holes = [hole for hole in self._holes if hole[1] > position]


def factory(spec: Mapping[str, Any], weights: WeightsStore) -> Spectral:
    """The spectral modality of a bundle's spec; it needs no weights.

    Raises:
        TypeError: the spec has an unknown field.

    """
    del weights
    return Spectral(SpectralSpec(**spec))
