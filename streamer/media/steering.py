"""Reliable times for decoded audio: it is timed by its sample count, which timestamps only correct.

A timestamp may be wrong where the samples are not: cameras stamp with a busy processor's clock, containers round to ms,
proxies stamp on arrival. The error of a timestamp is the timestamp minus the time that the samples before it add up to.

- An error of up to `LIMIT_S` changes nothing by itself.
- A larger error is held back. If it persists for `HOLD_S` of audio, then audio is missing (or repeated) there, and the
  times jump by what all timestamps since agree on. If it vanishes, only the timestamp was wrong.
- If timestamps never go back, as those of RTP, which count samples, every persistent step forward is accepted in the
  same way: a packet was lost.
- An error that all timestamps of `LASTING_S` agree on (an inaccurate sample clock, small losses that add up) is
  corrected slowly: audio is stretched or shortened by at most `SPEED`.

FFmpeg's `aresample=async` has this policy too, but its output depends on how the audio is cut into frames, it can't
wait for the next timestamp, and PyAV's resampler does not offer it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from streamer.media.stretch import stretched
from streamer.types import Floats

LIMIT_S = Fraction(130, 1000)
"""Two timestamps that are off by 60 ms in opposite directions disagree by 120 ms. A cell is 66 ms."""
ARRIVAL_LIMIT_S = Fraction(2)
"""The same for timestamps of arrival: networks and busy machines deliver late, and then all at once."""
HOLD_S = Fraction(1, 2)
"""How much audio is held while an error may still vanish."""
LASTING_S = 10
"""An error is lasting if no timestamp of so many seconds contradicts it."""
BURST_LASTING_S = 30
"""The same for timestamps of arrival: longer than an HLS segment."""
SLACK_S = Fraction(10, 1000)
"""A lasting error up to this is not corrected: a sixth of a cell."""
SPEED = Fraction(1, 200)
"""The most by which audio is stretched: five times the error of a bad sample clock, a tenth of a semitone."""
_BLOCK_S = Fraction(1, 10)
_NS = 1_000_000_000  # errors are compared in whole ns: fractions are slow
_STEP_NS = 5_000_000
"""A smaller step forward is no lost packet, as hardly any packet is shorter."""
_BACK_NS = 2_000_000
"""Timestamps rounded to ms go back by less than this."""
_MOST_STEPS = 8
"""Steps within `HOLD_S` that still count as lost packets; with more, the clock is drifting."""
_EXACT_S = 60
"""Timestamps that went back or drifted are considered inexact for so long."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples (n,) whose first is due at `time` (seconds): directly after the previous ones, unless times jumped."""

    time: Fraction
    rate_hz: int
    samples: Floats


@dataclass(frozen=True, slots=True)
class _Stamped:
    time: Fraction | None
    samples: Floats


class Steering:
    """Corrects the times of one source's audio: `push` it with its timestamps, receive it with reliable times.

    The output as a whole does not depend on how the audio was cut. At most `HOLD_S` of it is held.
    """

    def __init__(self, *, stamped_on_arrival: bool = False) -> None:
        """`stamped_on_arrival`: timestamps are arrival times. They then only show where a stream was interrupted."""
        self.shift = Fraction(0)
        """Seconds to add to a timestamp of the source to get its corrected time."""
        self._limit_ns = int((ARRIVAL_LIMIT_S if stamped_on_arrival else LIMIT_S) * _NS)
        self._on_arrival = stamped_on_arrival
        self._unplaced: list[Floats] = []  # from before the first timestamp
        self._unplaced_hz = 0
        self._rate_hz = 0
        self._base = Fraction(0)  # time of the run's first sample
        self._count = 0  # samples of the run that were returned
        self._errors = _Errors(BURST_LASTING_S if stamped_on_arrival else LASTING_S)
        self._error = 0  # ns, at the latest sample that was returned
        self._went_back: Fraction | None = None  # when a timestamp last did
        self._block_size = 0
        self._filled = 0  # samples of the current block that were released
        self._stretching = False
        self._block: list[Floats] = []  # its samples, if the block will be stretched
        self._held: list[_Stamped] = []  # while an error may vanish
        self._agreed = 0  # ns; the error that everything held agrees on
        self._stood = 0  # samples since it last shrank
        self._returns = 0  # ns; an error on this side of it has vanished
        self._furthest = 0  # ns; after a small step: the largest error, which exact timestamps never undo
        self._steps = 0  # how often it grew

    @property
    def settled(self) -> bool:
        """Whether the times of everything pushed so far are final."""
        return not self._held and not self._unplaced

    @property
    def end(self) -> Fraction | None:
        """When the next sample is due, if none is missing; None before the first timestamp."""
        if not self._rate_hz:
            return None
        waiting = sum(map(len, self._block)) + sum(len(one.samples) for one in self._held)
        return self._base + Fraction(self._count + waiting, self._rate_hz)

    def push(self, time: Fraction | None, rate_hz: int, samples: Floats) -> list[Sound]:
        """Add samples (n,) whose first has the timestamp `time` (seconds; None: it has none)."""
        out: list[Sound] = []
        if self._unplaced and rate_hz != self._unplaced_hz:
            out += self._place(None)
        if not self._rate_hz and time is None:
            self._unplaced.append(samples)
            self._unplaced_hz = rate_hz
            return out if sum(map(len, self._unplaced)) < HOLD_S * rate_hz else [*out, *self._place(None)]
        if self._unplaced:
            out += self._place(time)
        elif rate_hz != self._rate_hz:
            out += self.flush()
            # A new rate means a new encoder, whose first timestamp is the best available.
            self._begin(time + self.shift if time is not None else self.end or Fraction(0), rate_hz)
        out += self._take(_Stamped(time, samples))
        return out

    def flush(self) -> list[Sound]:
        """The audio ends here: a persistent error is accepted unless it could be jitter."""
        out: list[Sound] = []
        if self._unplaced:
            out += self._place(None)
        while self._held:
            out += self._believe() if abs(self._agreed) > self._limit_ns else self._trust_samples()
        out += self._unblocked()
        return out

    def _place(self, time: Fraction | None) -> list[Sound]:
        """Place audio without timestamps directly before `time`, or at 0 if that is None."""
        unplaced, self._unplaced = self._unplaced, []
        lasted = Fraction(sum(map(len, unplaced)), self._unplaced_hz)
        self._begin(Fraction(0) if time is None else time + self.shift - lasted, self._unplaced_hz)
        return [sound for samples in unplaced for sound in self._take(_Stamped(None, samples))]

    def _begin(self, time: Fraction, rate_hz: int) -> None:
        """Begin a run at `time`, from which errors are measured."""
        self._rate_hz = rate_hz
        self._block_size = round(_BLOCK_S * rate_hz)
        self._base, self._count = time, 0
        self._error = 0
        self._errors.clear()
        self._filled = 0
        self._stretching = False

    def _take(self, item: _Stamped) -> Iterator[Sound]:
        error = self._error_of(item)
        if self._held:
            yield from self._doubt(item, error)
        elif self._doubtful(error):
            self._held = [item]
            self._agreed, self._stood = error, len(item.samples)
            if abs(error) > self._limit_ns:
                self._returns = self._limit_ns if error > 0 else -self._limit_ns
                self._furthest = 0
            else:
                self._returns = max(self._error, 0) + _STEP_NS // 2
                self._furthest, self._steps = error, 1
            yield from self._believe_what_stands()
        else:
            yield from self._let_go(item, error)

    def _error_of(self, item: _Stamped) -> int:
        if item.time is None:
            return self._agreed if self._held else self._error
        end = self.end
        assert end is not None
        error = item.time - end
        if self.shift:
            error += self.shift
        return round(error * _NS) if error else 0

    def _doubtful(self, error: int) -> bool:
        if self._on_arrival and error < 0:
            return False  # a burst
        if abs(error) > self._limit_ns:
            return True
        # A lost packet, if timestamps are exact.
        return not self._on_arrival and error - max(self._error, 0) >= _STEP_NS and self._exact()

    def _exact(self) -> bool:
        end = self.end
        assert end is not None
        return self._went_back is None or end - self._went_back > _EXACT_S

    def _doubt(self, item: _Stamped, error: int) -> Iterator[Sound]:
        sign = 1 if self._agreed > 0 else -1
        if self._furthest and abs(error - self._furthest) > _BACK_NS:
            self._steps += 1
            if error < self._furthest or self._steps > _MOST_STEPS:
                self._went_back = self.end  # not exact, but drifting
                self._returns = error
            self._furthest = error
        if sign * error <= sign * self._returns:
            yield from self._trust_samples()  # the error has vanished
            yield from self._take(item)
            return
        self._held.append(item)
        if sign * error < sign * self._agreed:
            if sign * error < sign * self._agreed - _BACK_NS:
                # It is shrinking, as when a network delivers nothing and then all at once: keep waiting.
                self._stood = 0
            self._agreed = error
        self._stood += len(item.samples)
        yield from self._believe_what_stands()

    def _believe_what_stands(self) -> Iterator[Sound]:
        while self._held and self._stood >= HOLD_S * self._rate_hz:
            yield from self._believe()

    def _believe(self) -> Iterator[Sound]:
        """Let the times jump before what is held, and check that again from there."""
        agreed = self._agreed
        step = Fraction(agreed, _NS)
        first, *rest = self._unheld()
        error = agreed if first.time is None else self._error_of(first)
        yield from self._unblocked()
        end = self.end
        assert end is not None
        if self._went_back is not None:
            self._went_back += step
        self._begin(end + step, self._rate_hz)
        yield from self._let_go(first, error - agreed)
        for item in rest:
            yield from self._take(item)

    def _trust_samples(self) -> Iterator[Sound]:
        """Place what is held directly after the last samples, whatever its timestamps say."""
        for one in self._unheld():
            yield from self._let_go(one, self._error_of(one))

    def _unheld(self) -> list[_Stamped]:
        held, self._held, self._stood = self._held, [], 0
        return held

    def _let_go(self, item: _Stamped, error: int) -> Iterator[Sound]:
        """Release the samples directly after the last ones, and record their error."""
        if error < self._error - _BACK_NS:
            self._went_back = self.end
        self._error = error
        size = self._block_size
        time = self._base + Fraction(self._count, self._rate_hz)
        out: list[Floats] = []
        taken = 0
        while taken < len(item.samples):
            part = item.samples[taken : taken + size - self._filled]
            taken += len(part)
            self._filled += len(part)
            if item.time is not None:
                self._errors.push(self._error)
            (self._block if self._stretching else out).append(part)
            if self._filled == size:
                out += self._end_block()
        if out:
            samples = np.concatenate(out) if len(out) > 1 else out[0]
            self._count += len(samples)
            yield Sound(time, self._rate_hz, samples)

    def _end_block(self) -> list[Floats]:
        """End a block: returns its held samples and decides whether to stretch the next one."""
        self._errors.end_block()
        self._filled = 0
        lasting = self._errors.lasting
        if self._on_arrival:
            self.shift -= Fraction(lasting, _NS)
            self._take_away(lasting)
            lasting = 0
        if not self._stretching:
            self._stretching = abs(lasting) > SLACK_S * _NS if lasting else False
            return []
        block, self._block = np.concatenate(self._block), []
        most = max(int(len(block) * SPEED), 1)
        more = max(-most, min(most, round(Fraction(lasting * self._rate_hz, _NS))))
        self._take_away(round(Fraction(more * _NS, self._rate_hz)))
        self._stretching = more != 0
        return [stretched(block, len(block) + more)]

    def _take_away(self, error: int) -> None:
        self._error -= error
        self._errors.take_away(error)

    def _unblocked(self) -> Iterator[Sound]:
        """Release the samples of an incomplete block, not stretched."""
        block, self._block = self._block, []
        self._filled = 0
        self._stretching = False
        if block:
            time = self._base + Fraction(self._count, self._rate_hz)
            samples = np.concatenate(block)
            self._count += len(samples)
            yield Sound(time, self._rate_hz, samples)


class _Errors:
    """The errors of the latest seconds in ns, and what they all agree on."""

    def __init__(self, seconds: int) -> None:
        self._blocks: deque[tuple[int, int]] = deque(maxlen=round(seconds / _BLOCK_S))  # least, most
        self._block: tuple[int, int] | None = None
        self._taken_away = 0

    def push(self, error: int) -> None:
        """Add the error of some samples."""
        error += self._taken_away
        least, most = self._block or (error, error)
        self._block = (min(least, error), max(most, error))

    def end_block(self) -> None:
        """End a block; one without timestamps is ignored."""
        if self._block is not None:
            self._blocks.append(self._block)
            self._block = None

    @property
    def lasting(self) -> int:
        """The error closest to zero, if there are enough and all have the same sign; else 0."""
        if len(self._blocks) < (self._blocks.maxlen or 0):
            return 0
        least, most = self._blocks[-1]
        if least <= self._taken_away <= most:
            return 0
        least = min(block[0] for block in self._blocks) - self._taken_away
        most = max(block[1] for block in self._blocks) - self._taken_away
        return max(least, 0) + min(most, 0)

    def take_away(self, error: int) -> None:
        """Reduce all errors by this much."""
        self._taken_away += error

    def clear(self) -> None:
        """Start again: errors are now measured from another position."""
        self._blocks.clear()
        self._block = None
        self._taken_away = 0
