"""Makes a piece of sound a little longer or shorter, so that its sample clock agrees with the timestamps."""

from __future__ import annotations

import numpy as np

from streamer.types import Floats

_REACH = 16  # samples on each side of a point that its value is made of


def stretched(samples: Floats, count: int) -> Floats:
    """`samples` (n,) resampled to `count` of them: (count,).

    Bandlimited interpolation (sinc with a Hann window over 32 samples). The first sample stays where it is and the next
    piece's first follows in step, so pieces that are stretched and others join without a click. Made for changes under
    1 %: the pitch changes by as much, and nothing guards against aliasing.
    """
    at = np.arange(count) * (len(samples) / count)
    first = np.floor(at).astype(np.int64)
    offsets = np.arange(1 - _REACH, _REACH + 1)
    distance = (at - first)[:, None] - offsets  # (count, taps)
    weights = np.sinc(distance) * (0.5 + 0.5 * np.cos(np.pi * distance / (_REACH + 1)))
    weights /= weights.sum(axis=1, keepdims=True)
    padded = np.pad(samples, (_REACH, _REACH), mode="edge")
    taps = padded[first[:, None] + offsets + _REACH]
    out: Floats = (taps * weights).sum(axis=1).astype(np.float32)
    return out
