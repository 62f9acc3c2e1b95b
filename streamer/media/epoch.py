"""Puts decoded audio and pictures on the clock of an epoch, and notices when an epoch has to end. Decodes nothing.

Media times are seconds as exact fractions on the source's own clock, which may start anywhere and may jump.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from streamer.media.audio import JITTER_S, AudioTrack
from streamer.media.pictures import PictureChooser, Render
from streamer.types import SAMPLE_RATE_HZ, Anchor, ClockSource, Discontinuity, Floats, MediaItem

START_WAIT_S = Fraction(1)
"""How far one kind of media may run at an epoch's start while the other is awaited: position 0 is the earlier one's."""
BRIDGE_S = 60
"""The longest hole in the audio that pictures bridge: its masked cells all come at once when the audio is back."""
_SLOW_PICTURES = 3  # this many times its picture interval is no hole in a film
_ARRIVAL_EVERY_S = 1
_RTCP_EVERY_S = 10


@dataclass(frozen=True, slots=True)
class _Sound:
    time: Fraction | None
    rate_hz: int
    samples: Floats


@dataclass(frozen=True, slots=True)
class _Shown:
    time: Fraction
    picture: Render


@dataclass(frozen=True, slots=True)
class _Stamp:
    time: Fraction
    utc_s: float
    source: ClockSource


class EpochBuilder:
    """State of one source: `push_*` what was decoded, in the order it came, and take the `MediaItem`s.

    Audio is the master where it is wanted and present: pictures that don't fit its clock are left out and counted
    (`stray_pictures`) until it jumps too, or, if it has stopped, until they have run for `hole_limit_s`.
    """

    def __init__(
        self,
        rates_hz: frozenset[int],
        *,
        pictures: bool,
        hole_limit_s: float,
        picture_interval_s: float = 0.0,
        file_utc_s: float | None = None,
    ) -> None:
        """`rates_hz` is empty without audio; `file_utc_s` is the recording's start, if this is one that says so."""
        self.stray_pictures = 0
        self._overlap_samples = 0
        self._rates_hz = rates_hz
        self._pictures = pictures
        self._limit = Fraction(hole_limit_s).limit_denominator(1000)
        interval = Fraction(picture_interval_s).limit_denominator(1000)
        self._picture_limit = max(self._limit, _SLOW_PICTURES * interval)
        self._file_utc_s = file_utc_s
        self._audio: AudioTrack | None
        self._zero: Fraction
        self._chooser: PictureChooser
        self._last_picture: Fraction | None
        self._stray_since: Fraction | None
        self._waiting: list[_Sound | _Shown]
        self._stamps: dict[ClockSource, _Stamp]
        self._best_arrival: _Stamp | None
        self._anchored: dict[ClockSource, Fraction]
        self._reset()

    @property
    def overlap_samples(self) -> int:
        """Audio samples, at the source's rate, that were dropped because their time had been covered before."""
        return self._overlap_samples + (self._audio.overlap_samples if self._audio is not None else 0)

    def push_audio(self, time: Fraction | None, rate_hz: int, samples: Floats) -> Iterator[MediaItem]:
        """Samples (n,) whose first is due at `time`; None if the source doesn't say."""
        if self._audio is None:
            yield from self._wait(_Sound(time, rate_hz, samples))
            return
        reason = None if time is None else self._audio_jump(time)
        if reason is not None:
            yield from self._end_epoch(reason, time)
            yield from self._wait(_Sound(time, rate_hz, samples))
            return
        self._stray_since = None
        yield from self._audio.push(time, rate_hz, samples)

    def push_picture(self, time: Fraction, picture: Render) -> Iterator[MediaItem]:
        """A picture shown from `time` on."""
        if self._audio is None:
            yield from self._wait(_Shown(time, picture))
            return
        if self._fits(time):
            self._stray_since = None
            at = round((time - self._zero) * SAMPLE_RATE_HZ)
            at = 0 if -JITTER_S <= time - self._zero < 0 else at
            last = self._chooser.last
            if at < 0 or (last is not None and at <= last):
                self.stray_pictures += 1
                return
            self._last_picture = time
            yield from self._chooser.push(at, picture)
            return
        if self._rates_hz:
            self.stray_pictures += 1
            if self._stray_since is None or not 0 <= time - self._stray_since <= self._limit + START_WAIT_S:
                self._stray_since = time
            if time - self._stray_since <= self._limit:
                return
        behind = self._last_picture is not None and time < self._last_picture
        yield from self._end_epoch("pts_jump" if behind else "hole", time)
        yield from self._wait(_Shown(time, picture))

    def push_stamp(self, time: Fraction, utc_s: float, source: ClockSource) -> Iterator[MediaItem]:
        """The media time `time` is `utc_s` (Unix seconds) by the clock `source`."""
        stamp = _Stamp(time, utc_s, source)
        if self._audio is None:
            # The earliest arrival counts, and of sender reports the newest: two are enough, however many come.
            kept = self._stamps.get(source)
            if kept is None or source != "arrival" or utc_s - time < kept.utc_s - kept.time:
                self._stamps[source] = stamp
        elif abs(time - self._head()) <= self._limit:
            yield from self._anchor(stamp)

    def flush(self) -> Iterator[MediaItem]:
        """The source ends: all that is still held."""
        if self._audio is None:
            yield from self._start()
        yield from self._drain()

    def _reset(self) -> None:
        self._audio = None  # until the epoch's zero is known
        self._zero = Fraction(0)
        self._chooser = PictureChooser()
        self._last_picture = None
        self._stray_since = None  # time of the first picture of a run that doesn't fit
        self._waiting = []  # media, and the stamps for it, until the zero is known
        self._stamps = {}
        self._best_arrival = None  # of the second that runs
        self._anchored = {}  # when an anchor of each clock last came out

    def _wait(self, item: _Sound | _Shown) -> Iterator[MediaItem]:
        """Hold what comes until the epoch's zero is certain, then let it all go."""
        if isinstance(item, _Shown):
            pixels = item.picture()  # 150 KB instead of a whole decoded picture
            item = _Shown(item.time, lambda: pixels)
        self._waiting.append(item)
        sounds = [i for i in self._waiting if isinstance(i, _Sound)]
        shown = [i for i in self._waiting if isinstance(i, _Shown)]
        heard = sum((Fraction(len(s.samples), s.rate_hz) for s in sounds), Fraction(0))
        seen = shown[-1].time - shown[0].time if shown else Fraction(0)
        complete = (bool(sounds) or not self._rates_hz) and (bool(shown) or not self._pictures)
        if complete or heard > START_WAIT_S or not 0 <= seen <= START_WAIT_S:
            yield from self._start()

    def _start(self) -> Iterator[MediaItem]:
        waiting, self._waiting = self._waiting, []
        first_sound = next((i.time for i in waiting if isinstance(i, _Sound) and i.time is not None), None)
        first_shown = next((i.time for i in waiting if isinstance(i, _Shown)), None)
        times = [t for t in (first_sound, first_shown) if t is not None]
        if first_sound is not None and first_shown is not None and abs(first_sound - first_shown) > self._limit:
            times = [first_sound]
        self._zero = min(times, default=Fraction(0))
        if first_sound is not None and first_sound - self._zero <= JITTER_S:
            self._zero = first_sound  # no hole of a few samples at every start
        self._audio = AudioTrack(self._rates_hz, self._zero)
        if self._file_utc_s is not None:
            yield Anchor(0, self._file_utc_s, "file")
        for stamp in self._stamps.values():
            if abs(stamp.time - self._zero) <= self._limit + START_WAIT_S:
                yield from self._anchor(stamp)
        for item in waiting:
            if isinstance(item, _Sound):
                yield from self.push_audio(item.time, item.rate_hz, item.samples)
            else:
                yield from self.push_picture(item.time, item.picture)

    def _drain(self) -> Iterator[MediaItem]:
        if self._audio is not None:
            yield from self._audio.flush()
        yield from self._chooser.flush()

    def _end_epoch(self, reason: str, time: Fraction | None) -> Iterator[MediaItem]:
        head = self._head()
        if self._file_utc_s is not None:
            # A recording's next epoch is later by what has been played, and by the hole if that is what ended it.
            hole = max(Fraction(0), time - head) if time is not None else Fraction(0)
            self._file_utc_s += float(head - self._zero + hole)
        yield from self._drain()
        self._overlap_samples = self.overlap_samples
        self._reset()
        yield Discontinuity(reason)

    def _head(self) -> Fraction:
        """The furthest media time of the epoch."""
        ends = [self._zero, self._last_picture, self._audio.end if self._audio is not None else None]
        return max(t for t in ends if t is not None)

    def _audio_jump(self, time: Fraction) -> str | None:
        assert self._audio is not None
        due = self._audio.end
        if due is None:
            due = self._zero
        if time < due - self._limit:
            return "pts_jump"
        if time <= due + self._limit:
            return None
        bridged = self._last_picture is not None and abs(time - self._last_picture) <= self._picture_limit
        return None if bridged and time - due <= BRIDGE_S else "hole"

    def _fits(self, time: Fraction) -> bool:
        """Whether a picture goes on from the last one, or is near the audio."""
        assert self._audio is not None
        last, end = self._last_picture, self._audio.end
        if last is None and end is None:
            return True
        if last is not None and -self._limit <= time - last <= self._picture_limit:
            return True
        return end is not None and abs(time - end) <= self._picture_limit

    def _anchor(self, stamp: _Stamp) -> Iterator[MediaItem]:
        """At most one a second (arrival: the earliest of that second) or ten seconds (sender reports)."""
        before = self._anchored.get(stamp.source)
        if stamp.source == "arrival":
            best = self._best_arrival
            if best is None or stamp.utc_s - stamp.time < best.utc_s - best.time:
                self._best_arrival = best = stamp
            if before is not None and stamp.time - before < _ARRIVAL_EVERY_S:
                return
            self._best_arrival = None
            self._anchored["arrival"] = stamp.time
            stamp = best
        elif before is not None and stamp.time - before < _RTCP_EVERY_S:
            return
        else:
            self._anchored[stamp.source] = stamp.time
        at = round((stamp.time - self._zero) * SAMPLE_RATE_HZ)
        yield Anchor(at, stamp.utc_s, stamp.source)
