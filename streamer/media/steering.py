"""Times that can be believed for decoded sound: it runs on its sample count, and timestamps only steer it.

A timestamp may be off where its samples are not: cameras stamp by a busy processor's clock, containers round to ms,
proxies stamp on arrival. The error of a timestamp is what it says less what the samples before it add up to.

- An error of up to `LIMIT_S` changes nothing by itself.
- A larger one is waited for. If it still stands after `HOLD_S` of sound, then sound is missing there (or comes twice),
  and the times jump by what all timestamps since agree on. If it goes away, only the timestamp was wrong.
- Where timestamps have never gone back, as those of RTP, which count samples, every step forward that stands is
  believed likewise: a packet was lost.
- An error that all timestamps of `LASTING_S` agree on (a sample clock that is off, small losses that add up) is taken
  away slowly: sound is made longer or shorter by `SPEED`.

FFmpeg's `aresample=async` has this policy too, but what it gives depends on how the sound is cut into frames, it cannot
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
"""The same where timestamps say when packets came: networks and busy machines deliver late, and then all at once."""
HOLD_S = Fraction(1, 2)
"""How much sound waits while an error may still go away."""
LASTING_S = 10
"""An error lasts if no timestamp of so many seconds contradicts it."""
BURST_LASTING_S = 30
"""The same where timestamps are arrival times: longer than a segment of HLS."""
SLACK_S = Fraction(10, 1000)
"""A lasting error up to this is left alone: a sixth of a cell."""
SPEED = Fraction(1, 200)
"""The most by which sound is stretched: five times what a bad sample clock is off by, and a tenth of a semitone."""
_BLOCK_S = Fraction(1, 10)
_NS = 1_000_000_000  # errors are compared in whole ns: fractions are slow
_STEP_NS = 5_000_000
"""A smaller step forward is no lost packet: hardly any holds less."""
_BACK_NS = 2_000_000
"""Timestamps that are rounded to ms go back by less."""
_MOST_STEPS = 8
"""Packets lost in `HOLD_S` from a stream that still counts as exact; more is a clock that floats."""
_EXACT_S = 60
"""Timestamps that went back or floated are taken for inexact for so long."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples (n,) whose first is due at `time` (seconds): right behind the last ones, unless times have jumped."""

    time: Fraction
    rate_hz: int
    samples: Floats


@dataclass(frozen=True, slots=True)
class _Stamped:
    time: Fraction | None
    samples: Floats


class Steering:
    """The sound of one source: `push` what was decoded with its timestamps and take it with times that hold.

    What comes out, taken together, does not depend on how the sound was cut. At most `HOLD_S` of it is held.
    """

    def __init__(self, *, stamped_on_arrival: bool = False) -> None:
        """`stamped_on_arrival`: timestamps say when packets came. They then show where a stream broke, and no more."""
        self.shift = Fraction(0)
        """Seconds to add to a timestamp of the source to have the time of what comes with it."""
        self._limit_ns = int((ARRIVAL_LIMIT_S if stamped_on_arrival else LIMIT_S) * _NS)
        self._on_arrival = stamped_on_arrival
        self._unplaced: list[Floats] = []  # from before the first timestamp
        self._unplaced_hz = 0
        self._rate_hz = 0
        self._base = Fraction(0)  # time of the run's first sample
        self._count = 0  # samples of the run that came out
        self._errors = _Errors(BURST_LASTING_S if stamped_on_arrival else LASTING_S)
        self._error = 0  # ns, at the newest sample that was let go
        self._went_back: Fraction | None = None  # when a timestamp last did
        self._block_size = 0
        self._filled = 0  # samples let go of the block that runs
        self._stretching = False
        self._block: list[Floats] = []  # they wait here if the block will be stretched
        self._held: list[_Stamped] = []  # while an error may go away
        self._agreed = 0  # ns; the error that all that is held agrees on
        self._stood = 0  # samples since it last got smaller
        self._returns = 0  # ns; an error on this side of it has gone away
        self._furthest = 0  # ns; after a small step: the largest error, which exact timestamps don't take back
        self._steps = 0  # how often it grew

    @property
    def settled(self) -> bool:
        """Whether the times of all that was pushed are certain."""
        return not self._held and not self._unplaced

    @property
    def end(self) -> Fraction | None:
        """When the next sample is due, if none is missing; None before the first timestamp."""
        if not self._rate_hz:
            return None
        waiting = sum(map(len, self._block)) + sum(len(one.samples) for one in self._held)
        return self._base + Fraction(self._count + waiting, self._rate_hz)

    def push(self, time: Fraction | None, rate_hz: int, samples: Floats) -> list[Sound]:
        """Take in samples (n,) whose first has the timestamp `time` (seconds); None: the source does not say."""
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
            # A new rate is another encoder's beginning, and its first timestamp the best there is.
            self._begin(time + self.shift if time is not None else self.end or Fraction(0), rate_hz)
        out += self._take(_Stamped(time, samples))
        return out

    def flush(self) -> list[Sound]:
        """The sound ends here: an error that still stands is believed, unless jitter may be as large."""
        out: list[Sound] = []
        if self._unplaced:
            out += self._place(None)
        while self._held:
            out += self._believe() if abs(self._agreed) > self._limit_ns else self._trust_samples()
        out += self._unblocked()
        return out

    def _place(self, time: Fraction | None) -> list[Sound]:
        """What came without a timestamp was right before `time`; without that, time begins with it."""
        unplaced, self._unplaced = self._unplaced, []
        lasted = Fraction(sum(map(len, unplaced)), self._unplaced_hz)
        self._begin(Fraction(0) if time is None else time + self.shift - lasted, self._unplaced_hz)
        return [sound for samples in unplaced for sound in self._take(_Stamped(None, samples))]

    def _begin(self, time: Fraction, rate_hz: int) -> None:
        """A run begins at `time`, and errors are counted from there."""
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
                self._went_back = self.end  # not exact, but floating
                self._returns = error
            self._furthest = error
        if sign * error <= sign * self._returns:
            yield from self._trust_samples()  # the error has gone away
            yield from self._take(item)
            return
        self._held.append(item)
        if sign * error < sign * self._agreed:
            if sign * error < sign * self._agreed - _BACK_NS:
                # It is going away, as where a network delivers nothing and then all at once: wait on.
                self._stood = 0
            self._agreed = error
        self._stood += len(item.samples)
        yield from self._believe_what_stands()

    def _believe_what_stands(self) -> Iterator[Sound]:
        while self._held and self._stood >= HOLD_S * self._rate_hz:
            yield from self._believe()

    def _believe(self) -> Iterator[Sound]:
        """The times jump in front of what is held, which is looked at anew from there."""
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
        """What is held runs on from the last, whatever its timestamps say."""
        for one in self._unheld():
            yield from self._let_go(one, self._error_of(one))

    def _unheld(self) -> list[_Stamped]:
        held, self._held, self._stood = self._held, [], 0
        return held

    def _let_go(self, item: _Stamped, error: int) -> Iterator[Sound]:
        """Give out the samples behind the last ones, and learn from their error."""
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
        """What has waited for the block's end; and what is done with the next block."""
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
        """What waits for the end of a block that will not come."""
        block, self._block = self._block, []
        self._filled = 0
        self._stretching = False
        if block:
            time = self._base + Fraction(self._count, self._rate_hz)
            samples = np.concatenate(block)
            self._count += len(samples)
            yield Sound(time, self._rate_hz, samples)


class _Errors:
    """The errors of the newest seconds in ns, and what they all agree on."""

    def __init__(self, seconds: int) -> None:
        self._blocks: deque[tuple[int, int]] = deque(maxlen=round(seconds / _BLOCK_S))  # least, most
        self._block: tuple[int, int] | None = None
        self._taken_away = 0

    def push(self, error: int) -> None:
        """Take in the error of some samples."""
        error += self._taken_away
        least, most = self._block or (error, error)
        self._block = (min(least, error), max(most, error))

    def end_block(self) -> None:
        """A block is over; one without a timestamp tells nothing."""
        if self._block is not None:
            self._blocks.append(self._block)
            self._block = None

    @property
    def lasting(self) -> int:
        """The error closest to zero of all, if they have one sign and are many enough; else 0."""
        if len(self._blocks) < (self._blocks.maxlen or 0):
            return 0
        least, most = self._blocks[-1]
        if least <= self._taken_away <= most:
            return 0
        least = min(block[0] for block in self._blocks) - self._taken_away
        most = max(block[1] for block in self._blocks) - self._taken_away
        return max(least, 0) + min(most, 0)

    def take_away(self, error: int) -> None:
        """All errors have become smaller by this."""
        self._taken_away += error

    def clear(self) -> None:
        """Errors are counted from another place now."""
        self._blocks.clear()
        self._block = None
        self._taken_away = 0
