"""Turns decoded audio into `Chunk`s: mono mix, resampling, and exact positions on the epoch's clock."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from streamer.types import Chunk, Floats

_ROUNDING_S = Fraction(1, 1000)
"""Smaller errors of times are due to rounding."""

_PYAV_PLANES = 8  # with so many planes, PyAV 18 reads past the end of a frame's list of them and crashes


def mix(channels: Floats) -> Floats:
    """The mean of all channels (channels, n), whatever their layout: (n,).

    The plain mean, not FFmpeg's mix, which has no layout for many channel counts and whose level depends on the sample
    format.
    """
    mixed: Floats = channels[0] if len(channels) == 1 else channels.mean(axis=0, dtype=np.float32)
    return mixed


def channels_of(frame: av.AudioFrame) -> Floats:
    """The samples of a decoded frame: (channels, n), -1 to 1."""
    if frame.format.is_planar and frame.layout.nb_channels >= _PYAV_PLANES:
        packed = av.AudioResampler(format="flt", layout=frame.layout.name, rate=frame.sample_rate)
        (frame,) = packed.resample(frame)
    raw: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(frame.samples, -1).T
    values: Floats = raw.astype(np.float32)
    if raw.dtype.kind != "f":
        full = 1 << (8 * raw.dtype.itemsize - 1)
        values = (values - (full if raw.dtype.kind == "u" else 0)) / np.float32(full)
    elif not np.isfinite(values).all():
        # A damaged float stream can hold NaN, and a single one would spoil a whole window.
        values = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=-1.0)
    return values


class AudioTrack:
    """The audio of one epoch: mono samples at media times in, `Chunk`s at each wanted rate out.

    Times come from `Steering` and are trusted: a later one leaves a hole, an earlier one is an overlap, whose second
    copy is dropped (`overlap_samples`, counted at the source's rate).
    """

    def __init__(self, rates_hz: frozenset[int], zero: Fraction) -> None:
        self.overlap_samples = 0
        self._zero = zero
        self._next = dict.fromkeys(sorted(rates_hz), 0)
        self._runs: dict[int, av.AudioResampler] = {}
        self._rate_hz = 0
        self._run_start = zero  # media time of the run's first sample
        self._run_samples = 0

    @property
    def end(self) -> Fraction | None:
        """Media time in seconds at which the next sample is due; None before the first."""
        return self._run_start + Fraction(self._run_samples, self._rate_hz) if self._rate_hz else None

    def push(self, time: Fraction | None, rate_hz: int, samples: Floats) -> Iterator[Chunk]:
        """Add samples (n,) whose first is due at `time` (media seconds; None: directly after the last)."""
        end = self.end
        due = self._zero if end is None else end
        late = Fraction(0) if time is None else time - due
        skip = 0
        if late < -_ROUNDING_S or (end is None and late < 0):
            skip = min(round(-late * rate_hz), len(samples))
            self.overlap_samples += skip
        if end is None or late > _ROUNDING_S or rate_hz != self._rate_hz:
            yield from self.flush()
            self._begin(due + late if end is None or late > _ROUNDING_S else due, rate_hz, skip)
        if skip == len(samples):
            return
        samples = samples[skip:]
        self._run_samples += len(samples)
        yield from self._resample(samples)

    def flush(self) -> Iterator[Chunk]:
        """End the run: yields what the resamplers still hold."""
        for out_hz, resampler in self._runs.items():
            for frame in resampler.resample(None):
                yield from self._chunk(out_hz, frame.to_ndarray()[0])
        self._runs = {}

    def _begin(self, time: Fraction, rate_hz: int, skip: int) -> None:
        self._rate_hz = rate_hz
        self._run_start = max(time + Fraction(skip, rate_hz), self._zero)
        self._run_samples = 0
        for out_hz, position in self._next.items():
            self._next[out_hz] = max(position, round((self._run_start - self._zero) * out_hz))
            if out_hz != rate_hz:
                self._runs[out_hz] = av.AudioResampler(format="flt", layout="mono", rate=out_hz)

    def _resample(self, samples: Floats) -> Iterator[Chunk]:
        for out_hz in self._next:
            if out_hz == self._rate_hz:
                yield from self._chunk(out_hz, samples)
                continue
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
            frame.sample_rate = self._rate_hz
            for out in self._runs[out_hz].resample(frame):
                yield from self._chunk(out_hz, out.to_ndarray()[0])

    def _chunk(self, rate_hz: int, samples: Floats) -> Iterator[Chunk]:
        if len(samples):
            yield Chunk(rate_hz, self._next[rate_hz], samples)
            self._next[rate_hz] += len(samples)
