"""Stretches a block of audio slightly, so that its sample clock agrees with the timestamps.

The interpolation is bandlimited: a tone keeps its side lobes under -60 dB, where dropping every thousandth sample
leaves them at -40 dB.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamer.types import Floats

_REACH = 16  # samples on each side of a point from which it is interpolated


def stretched(samples: Floats, count: int) -> Floats:
    """`samples` (n,) resampled to (count,).

    Bandlimited interpolation (sinc with a Hann window over 32 samples). The first sample keeps its position and the
    next block continues in step, so that stretched and other blocks join without a click. Meant for changes under 1 %:
    the pitch changes by as much, and there is no anti-aliasing.
    """
    taps, weights = _filters(len(samples), count)
    padded = np.pad(samples, (_REACH, _REACH), mode="edge")
    out: Floats = np.einsum("ct,ct->c", padded[taps], weights)
    return out


@lru_cache(maxsize=16)  # blocks of a stream are equally long, and most are stretched by the same amount
def _filters(length: int, count: int) -> tuple[NDArray[np.int32], Floats]:
    """The samples of the padded block that form each new sample, and their weights: both (count, taps)."""
    at = np.arange(count) * (length / count)
    first = np.floor(at).astype(np.int32)
    offsets = np.arange(1 - _REACH, _REACH + 1, dtype=np.int32)
    distance = (at - first)[:, None] - offsets
    weights = np.sinc(distance) * (0.5 + 0.5 * np.cos(np.pi * distance / (_REACH + 1)))
    weights /= weights.sum(axis=1, keepdims=True)
    return first[:, None] + offsets + _REACH, weights.astype(np.float32)
