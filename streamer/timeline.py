"""The clock of one epoch: maps master-clock samples to seconds and to UTC."""

from __future__ import annotations

from collections import deque

from streamer.types import SAMPLE_RATE_HZ, Anchor, ClockSource

_ARRIVAL_SAMPLES = 60 * SAMPLE_RATE_HZ
_MOST_ARRIVALS = 256
"""A reader gives about one a second; more than this in a minute tell nothing new."""
_RANK: dict[ClockSource, int] = {"file": 0, "arrival": 1, "rtcp": 2}


def seconds(samples: int) -> float:
    """Master-clock samples as seconds."""
    return samples / SAMPLE_RATE_HZ


def samples(time_s: float) -> int:
    """Seconds as master-clock samples, to the nearest."""
    return round(time_s * SAMPLE_RATE_HZ)


class Timeline:
    """UTC of the samples of one epoch, by the best anchor seen so far.

    An `rtcp` anchor outranks `arrival`, which outranks `file`. Of the arrival anchors of the newest
    minute, the one that says the earliest UTC for the same sample wins: delay on the way only ever
    makes arrival late, and a camera's clock that runs slower than ours is followed within a minute.
    The arrival clock is kept beside the best one, because latency is measured on this machine.
    """

    def __init__(self) -> None:
        self._best: Anchor | None = None
        self._arrivals: deque[Anchor] = deque(maxlen=_MOST_ARRIVALS)

    def push(self, anchor: Anchor) -> None:
        """Take in what another anchor says."""
        if anchor.source == "arrival":
            self._arrivals.append(anchor)
            while anchor.at - self._arrivals[0].at > _ARRIVAL_SAMPLES:
                self._arrivals.popleft()
            anchor = min(self._arrivals, key=_zero_s)
        if self._best is None or _RANK[anchor.source] >= _RANK[self._best.source]:
            self._best = anchor

    @property
    def source(self) -> ClockSource | None:
        """Which clock `utc_s` speaks for; None before the first anchor."""
        return self._best.source if self._best else None

    def utc_s(self, sample: int) -> float | None:
        """Unix seconds of `sample`; None before the first anchor."""
        return _zero_s(self._best) + seconds(sample) if self._best else None

    def arrival_utc_s(self, sample: int) -> float | None:
        """Unix seconds of `sample` by this machine's clock; None for a source that is not live."""
        return min(map(_zero_s, self._arrivals)) + seconds(sample) if self._arrivals else None


def _zero_s(anchor: Anchor) -> float:
    return anchor.utc_s - seconds(anchor.at)
