"""The level of a source's audio, and whether it holds any sound at all.

The model receives one channel: the mix of all, or a chosen one. A dead microphone, an unplugged cable or two channels
that cancel each other look like a quiet room to it. So the level is measured before mixing too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from streamer.types import Floats

_AT_ONCE = 4096  # samples per summation: for fewer, numpy's overhead dominates

InputState: TypeAlias = Literal["unknown", "ok", "silent", "cancelling", "too_quiet", "out_of_range"]
INPUT_STATES: tuple[InputState, ...] = ("unknown", "ok", "silent", "cancelling", "too_quiet", "out_of_range")
"""In order: no audio yet; there is sound; all samples have one value; channels cancel each other in the mix;
quieter than any room; samples are far beyond full scale."""

FLOOR_DBFS = -150.0
"""Stands for digital silence: 24 bits reach to -144."""
QUIET_DBFS = -90.0
"""Quieter than any room through any live microphone; rounding to 16 bits alone makes noise of -101 dBFS."""
CANCELLING_DB = 30.0
"""Channels cancel if their mix is quieter than the loudest by so much. Uncorrelated channels lose 3 dB."""
OUT_OF_RANGE_DBFS = 40.0
"""Float samples may exceed full scale by some dB; those that exceed it by so much were decoded wrongly."""
SILENT_S = 10
CANCELLING_S = 5
TOO_QUIET_S = 120
"""How long each state must last before it is reported: some cameras gate noise, but no room is silent for minutes."""


@dataclass(frozen=True, slots=True)
class Level:
    """The level of one second, or of a shorter rest. In dB of full scale, without a constant offset (DC)."""

    seconds: float
    rms_dbfs: float  # of the channel or mix in use
    peak_dbfs: float
    loudest_dbfs: float  # RMS of the loudest channel of the source
    channels: int
    mixed: bool  # whether the mean of all channels is in use


class LevelMeter:
    """`push` decoded audio; returns a `Level` for each second. Independent of the chunking but for rounding."""

    def __init__(self) -> None:
        self._rate_hz = 0
        self._channels = 0
        self._mixed = False
        self._count = 0  # samples of the current second
        self._parts: list[tuple[Floats, Floats]] = []  # channels and the mix in use, not summed yet
        self._waiting = 0  # samples in them
        self._sums, self._heard = _Sums(1), _Sums(1)

    def push(self, rate_hz: int, channels: Floats, heard: Floats, *, mixed: bool) -> list[Level]:
        """Add `channels` (channels, n) and `heard` (n,), the channel or mix in use; `mixed`: it is the mean of all."""
        levels = []
        if (rate_hz, len(channels), mixed) != (self._rate_hz, self._channels, self._mixed):
            levels += self.flush()
            self._rate_hz, self._channels, self._mixed = rate_hz, len(channels), mixed
        while len(heard):
            count = min(self._rate_hz - self._count, len(heard))
            self._parts.append((channels[:, :count], heard[:count]))
            self._count += count
            self._waiting += count
            channels, heard = channels[:, count:], heard[count:]
            if self._count == self._rate_hz:
                levels += self.flush()
            elif self._waiting >= _AT_ONCE:
                self._sum()
        return levels

    def flush(self) -> list[Level]:
        """The level of the incomplete second, if any."""
        if not self._count:
            return []
        self._sum()
        rms, peak = self._heard.levels()
        loudest = rms if self._channels == 1 else self._sums.levels()[0]
        level = Level(self._count / self._rate_hz, rms, peak, loudest, self._channels, self._mixed)
        self._count = 0
        self._sums, self._heard = _Sums(self._channels), _Sums(1)
        return [level]

    def _sum(self) -> None:
        if not self._parts:
            return
        if len(self._sums) != self._channels:
            self._sums = _Sums(self._channels)
        channels = np.concatenate([part[0] for part in self._parts], axis=1)
        heard = np.concatenate([part[1] for part in self._parts])[None]
        self._parts, self._waiting = [], 0
        self._heard.push(heard)
        if self._channels > 1:  # else they are the same
            self._sums.push(channels)


class _Sums:
    """Sums over the samples of some channels, from which their levels are computed."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = np.zeros(channels)
        self._squares = np.zeros(channels)
        self._low = np.full(channels, np.inf)
        self._high = np.full(channels, -np.inf)

    def __len__(self) -> int:
        return len(self._sum)

    def push(self, samples: Floats) -> None:
        """Add samples (channels, n)."""
        self._count += samples.shape[1]
        self._sum += samples.sum(axis=1, dtype=np.float64)
        self._squares += np.einsum("cn,cn->c", samples, samples, dtype=np.float64)
        self._low = np.minimum(self._low, samples.min(axis=1))
        self._high = np.maximum(self._high, samples.max(axis=1))

    def levels(self) -> tuple[float, float]:
        """RMS without a constant offset, and peak, of the loudest channel; silence if each channel is constant."""
        moves = self._high > self._low
        variance = np.maximum(self._squares / self._count - (self._sum / self._count) ** 2, 0.0)
        rms = np.where(moves, np.sqrt(variance), 0.0)
        peak = np.where(moves, np.maximum(self._high, -self._low), 0.0)
        return dbfs(float(rms.max())), dbfs(float(peak.max()))


def dbfs(value: float) -> float:
    """An amplitude (peak or RMS, 1: full scale) in dB of full scale; `FLOOR_DBFS` for digital silence."""
    return max(20 * float(np.log10(value)), FLOOR_DBFS) if value > 0 else FLOOR_DBFS


class InputWatch:
    """Judges a stream's input by its latest seconds: `push` each `Level`, then read `state` and `detail`."""

    def __init__(self) -> None:
        self._levels: deque[Level] = deque(maxlen=TOO_QUIET_S)

    def push(self, level: Level) -> None:
        """Add the next second."""
        self._levels.append(level)

    @property
    def level(self) -> Level | None:
        """The latest second."""
        return self._levels[-1] if self._levels else None

    @property
    def state(self) -> InputState:
        """The state that has lasted long enough to be reported; `unknown` before any audio."""
        levels = list(self._levels)
        for state, least in _PATIENCE_S.items():
            if len(levels) >= least and input_state(levels[-least:]) == state:
                return state
        return "ok" if levels else "unknown"

    @property
    def detail(self) -> str:
        """One readable line with what to do; empty if all is well."""
        state = self.state
        return input_detail(state, list(self._levels)[-_PATIENCE_S.get(state, 1) :])


_PATIENCE_S: dict[InputState, int] = {
    "out_of_range": 1,
    "cancelling": CANCELLING_S,
    "silent": SILENT_S,
    "too_quiet": TOO_QUIET_S,
}


def input_state(levels: Sequence[Level]) -> InputState:
    """The state of the input over all of `levels`."""
    if not levels:
        return "unknown"
    if max(one.peak_dbfs for one in levels) > OUT_OF_RANGE_DBFS:
        return "out_of_range"
    heard, loudest = _mean([one.rms_dbfs for one in levels]), _mean([one.loudest_dbfs for one in levels])
    if levels[-1].mixed and loudest > QUIET_DBFS and heard < loudest - CANCELLING_DB:
        return "cancelling"
    if heard == FLOOR_DBFS:
        return "silent"
    return "too_quiet" if heard < QUIET_DBFS else "ok"


def input_detail(state: InputState, levels: Sequence[Level]) -> str:
    """One readable line about `state` over `levels`, with what to do; empty if all is well."""
    if not levels or state in ("ok", "unknown"):
        return ""
    heard, loudest = _mean([one.rms_dbfs for one in levels]), _mean([one.loudest_dbfs for one in levels])
    if state == "out_of_range":
        peak = max(one.peak_dbfs for one in levels)
        return (
            f"its samples reach {peak:.0f} dBFS, so their format is misread: convert it to 16-bit PCM or another codec"
        )
    if state == "cancelling":
        return (
            f"its {levels[-1].channels} channels cancel each other: they have {loudest:.0f} dBFS, their mix has "
            f"{_shown(heard)}; listen to one of them (channel: 1) or repair the cable"
        )
    if state == "silent" and loudest > QUIET_DBFS:
        return f"the channel in use is silent, but another has {loudest:.0f} dBFS: choose that one"
    if state == "silent":
        return "digital silence, not even noise: check the microphone, its mute switch, and the audio track"
    return f"quieter than any room ({_shown(heard)}): check the microphone, its gain, and the sample format"


def _mean(levels_dbfs: Sequence[float]) -> float:
    """The level of the mean power."""
    powers = [10 ** (level / 10) if level > FLOOR_DBFS else 0.0 for level in levels_dbfs]
    return dbfs(float(np.sqrt(np.mean(powers))))


def _shown(level_dbfs: float) -> str:
    return "nothing" if level_dbfs <= FLOOR_DBFS else f"{level_dbfs:.0f} dBFS"
