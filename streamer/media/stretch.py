"""Makes a piece of sound a little longer or shorter, so that its sample clock agrees with the timestamps.

The interpolation is bandlimited: a tone keeps its side lobes under -60 dB, where dropping each thousandth sample leaves
them at -40 dB.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamer.types import Floats

_REACH = 16  # samples on each side of a point that its value is made of


def stretched(samples: Floats, count: int) -> Floats:
    """`samples` (n,) resampled to `count` of them: (count,).

    Bandlimited interpolation (sinc with a Hann window over 32 samples). The first sample stays where it is and the next
    piece's first follows in step, so pieces that are stretched and others join without a click. Made for changes under
    1 %: the pitch changes by as much, and nothing guards against aliasing.
    """
    taps, weights = _filters(len(samples), count)
    padded = np.pad(samples, (_REACH, _REACH), mode="edge")
    out: Floats = np.einsum("ct,ct->c", padded[taps], weights)
    return out


@lru_cache(maxsize=16)  # a stream has blocks of one length, and stretches most of them by the same amount
def _filters(length: int, count: int) -> tuple[NDArray[np.int32], Floats]:
    """Which samples of the padded piece make each new one, and their weights: both (count, taps)."""
    at = np.arange(count) * (length / count)
    first = np.floor(at).astype(np.int32)
    offsets = np.arange(1 - _REACH, _REACH + 1, dtype=np.int32)
    distance = (at - first)[:, None] - offsets
    weights = np.sinc(distance) * (0.5 + 0.5 * np.cos(np.pi * distance / (_REACH + 1)))
    weights /= weights.sum(axis=1, keepdims=True)
    return first[:, None] + offsets + _REACH, weights.astype(np.float32)
