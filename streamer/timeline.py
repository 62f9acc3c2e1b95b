"""The clock of one epoch: maps master-clock samples to seconds and to UTC."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta

from streamer.types import SAMPLE_RATE_HZ, Anchor, ClockSource

_ARRIVAL_SAMPLES = 60 * SAMPLE_RATE_HZ
_MOST_ARRIVALS = 256
"""A reader produces about one per second; more than this in a minute add no information."""
PLAUSIBLE_S = 60.0
"""How far a live source's own clock may be from this machine's. What comes has been on its way for seconds, never for
minutes; a clock that is further off was never set, or has another time zone, and nobody could see it in a message."""
_FUTURE_S = 86_400.0
"""Some cameras write their local time as UTC."""
_FIRST_RECORDING_S = 315_532_800.0  # 1980: devices without a clock begin at 1904, 1970 or 1980
_RANK: dict[ClockSource, int] = {"file": 0, "arrival": 1, "rtcp": 2}


def seconds(samples: int) -> float:
    """Master-clock samples as seconds."""
    return samples / SAMPLE_RATE_HZ


def samples(time_s: float) -> int:
    """Seconds as master-clock samples, to the nearest."""
    return round(time_s * SAMPLE_RATE_HZ)


def how_far_off(utc_s: float, now_s: float) -> str:
    """Words for what a clock says that is implausible: `says 1900-01-01 00:00:16 UTC, 126 years behind`."""
    off_s = abs(utc_s - now_s)
    amount = f"{off_s / 60:.0f} minutes"
    for name, seconds_each in (("years", 365.25 * 86_400), ("days", 86_400), ("hours", 3_600)):
        if off_s >= 2 * seconds_each:
            amount = f"{off_s / seconds_each:.0f} {name}"
            break
    side = "ahead" if utc_s > now_s else "behind"
    try:
        said = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=utc_s)
    except OverflowError:
        return f"is {amount} {side}"
    return f"says {said:%Y-%m-%d %H:%M:%S} UTC, {amount} {side}"


def recorded_plausibly(utc_s: float, now_s: float) -> bool:
    """Whether a recording may have been made at `utc_s`: not before there were any, and not in the future."""
    return _FIRST_RECORDING_S + _FUTURE_S < utc_s <= now_s + _FUTURE_S


class Timeline:
    """UTC of the samples of one epoch, from the best anchor so far.

    An `rtcp` anchor outranks `arrival`, which outranks `file`. Of the arrival anchors of the last
    minute, the one with the earliest UTC for the same sample wins: network delay can only make an
    arrival late, and the limit to a minute follows a camera's clock that runs slower than ours. The
    arrival anchors are kept beside the best one, because latency is measured with this machine's clock.
    """

    def __init__(self) -> None:
        self._best: Anchor | None = None
        self._arrivals: deque[Anchor] = deque(maxlen=_MOST_ARRIVALS)

    def push(self, anchor: Anchor) -> None:
        """Add an anchor."""
        if anchor.source == "arrival":
            self._arrivals.append(anchor)
            while anchor.at - self._arrivals[0].at > _ARRIVAL_SAMPLES:
                self._arrivals.popleft()
            anchor = min(self._arrivals, key=_zero_s)
        if self._best is None or _RANK[anchor.source] >= _RANK[self._best.source]:
            self._best = anchor

    @property
    def source(self) -> ClockSource | None:
        """The source of `utc_s`; None before the first anchor."""
        return self._best.source if self._best else None

    def utc_s(self, sample: int) -> float | None:
        """Unix seconds of `sample`; None before the first anchor."""
        return _zero_s(self._best) + seconds(sample) if self._best else None

    def arrival_utc_s(self, sample: int) -> float | None:
        """Unix seconds at which `sample` arrived, by this machine's clock; None for a source that is not live."""
        return min(map(_zero_s, self._arrivals)) + seconds(sample) if self._arrivals else None


def _zero_s(anchor: Anchor) -> float:
    return anchor.utc_s - seconds(anchor.at)
