"""Places decoded audio and pictures on an epoch's clock, and detects when an epoch must end. Decodes nothing.

Media times are exact fractions of seconds on the source's own clock, which may start anywhere and may jump.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from streamer.media.audio import AudioTrack
from streamer.media.pictures import PictureChooser, Render
from streamer.media.steering import LIMIT_S, Sound, Steering
from streamer.types import SAMPLE_RATE_HZ, Anchor, ClockSource, Discontinuity, Floats, MediaItem

START_WAIT_S = Fraction(1)
"""How much of one kind of media is held at an epoch's start to wait for the other; the earlier one is at position 0."""
BRIDGE_S = 60
"""The longest hole in the audio that is masked, if pictures bridge it or a recording's audio begins late. Its masked
cells all follow at once when the audio arrives."""
_SAME_START_S = Fraction(25, 1000)
"""Audio that begins this soon after the epoch is taken as its start: a hole of a few samples would mask a cell."""
_SLOW_PICTURES = 3  # a gap of so many picture intervals is no hole in a video
_ARRIVAL_EVERY_S = 1
_RTCP_EVERY_S = 10


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
    """Builds the epochs of one source: `push_*` decoded media in the order of arrival, receive `MediaItem`s.

    Audio is the master if it is wanted and present: pictures that don't fit its clock are dropped and counted
    (`stray_pictures`) until it jumps too, or, if it has stopped, until they have run for `hole_limit_s`.

    A recording's first epoch begins where the container does, so that its times are those that a player shows. A live
    source has no such start: its first epoch begins with the first media received.
    """

    def __init__(
        self,
        rates_hz: frozenset[int],
        *,
        pictures: bool,
        hole_limit_s: float,
        picture_interval_s: float = 0.0,
        file_start: Fraction | None = None,
        file_utc_s: float | None = None,
        stamped_on_arrival: bool = False,
    ) -> None:
        """`rates_hz` is empty without audio.

        For a recording that states them, `file_start` is the media time at which the container begins, and `file_utc_s`
        its UTC. `stamped_on_arrival`: media times are arrival times (FFmpeg's `use_wallclock_as_timestamps`).
        """
        self.stray_pictures = 0
        self._overlap_samples = 0
        self._rates_hz = rates_hz
        self._pictures = pictures
        self._limit = Fraction(hole_limit_s).limit_denominator(1000)
        interval = Fraction(picture_interval_s).limit_denominator(1000)
        self._picture_limit = max(self._limit, _SLOW_PICTURES * interval)
        self._file_start = file_start
        self._file_utc_s = file_utc_s
        self._late_limit = Fraction(BRIDGE_S if file_start is not None else 0)  # for the first audio of a recording
        self._steering = Steering(stamped_on_arrival=stamped_on_arrival)
        self._sound_end: Fraction | None = None  # of the latest audio, by the source's timestamp
        self._undecided: list[_Shown] = []  # pictures that do not fit, while the audio may jump to them
        self._audio: AudioTrack | None
        self._zero: Fraction
        self._chooser: PictureChooser
        self._last_picture: Fraction | None
        self._stray_since: Fraction | None
        self._waiting: list[Sound | _Shown]
        self._stamps: dict[ClockSource, _Stamp]
        self._best_arrival: _Stamp | None
        self._anchored: dict[ClockSource, Fraction]
        self._reset()

    @property
    def overlap_samples(self) -> int:
        """Audio samples, at the source's rate, that were dropped because their time was already covered."""
        return self._overlap_samples + (self._audio.overlap_samples if self._audio is not None else 0)

    def push_audio(self, time: Fraction | None, rate_hz: int, samples: Floats) -> Iterator[MediaItem]:
        """Add samples (n,) whose first has the timestamp `time`; None: it has none."""
        self._sound_end = None if time is None else time + Fraction(len(samples), rate_hz)
        for sound in self._steering.push(time, rate_hz, samples):
            yield from self._push_sound(sound)
        yield from self._decide_pictures()

    def _push_sound(self, sound: Sound) -> Iterator[MediaItem]:
        if self._audio is None:
            yield from self._wait(sound)
            return
        reason = self._audio_jump(sound.time)
        if reason is not None:
            yield from self._end_epoch(reason, sound.time)
            yield from self._wait(sound)
            return
        self._stray_since = None
        yield from self._audio.push(sound.time, sound.rate_hz, sound.samples)

    def _decide_pictures(self) -> Iterator[MediaItem]:
        if self._steering.settled:
            undecided, self._undecided = self._undecided, []
            for shown in undecided:
                yield from self._push_shown(shown)

    def push_picture(self, time: Fraction, picture: Render) -> Iterator[MediaItem]:
        """Add a picture that is shown from `time` on."""
        shown = _Shown(time + self._steering.shift, picture)
        if self._steering.settled or self._audio is None or self._fits(shown.time):
            yield from self._push_shown(shown)
        else:
            self._undecided.append(_rendered(shown))

    def _push_shown(self, shown: _Shown) -> Iterator[MediaItem]:
        time = shown.time
        if self._audio is None:
            yield from self._wait(shown)
            return
        if self._fits(time):
            self._stray_since = None
            at = self._in_order(round((time - self._zero) * SAMPLE_RATE_HZ))
            if at is None:
                self.stray_pictures += 1
                return
            self._last_picture = time
            yield from self._chooser.push(at, shown.picture)
            return
        if self._rates_hz:
            self.stray_pictures += 1
            if self._stray_since is None or not 0 <= time - self._stray_since <= self._limit + START_WAIT_S:
                self._stray_since = time
            if time - self._stray_since <= self._limit:
                return
        behind = self._last_picture is not None and time < self._last_picture
        yield from self._end_epoch("pts_jump" if behind else "hole", time)
        yield from self._wait(shown)

    def _in_order(self, at: int) -> int | None:
        """The position of a picture due at `at`: after the last one if only jitter put it before; else None."""
        last = self._chooser.last
        first = 0 if last is None else last + 1
        return None if at < first - LIMIT_S * SAMPLE_RATE_HZ else max(at, first)

    def push_arrival(self, time: Fraction, utc_s: float) -> Iterator[MediaItem]:
        """Record that the latest media, which ends at `time`, arrived at `utc_s` (Unix seconds).

        The end of the audio is taken from its sample count, not from timestamps. While those are in doubt, the
        arrival is ignored.
        """
        end = self._steering.end
        if end is not None and self._steering.settled:
            # Some decoders are a packet behind.
            behind = time - self._sound_end if self._sound_end is not None else Fraction(0)
            yield from self.push_stamp(end - self._steering.shift + behind, utc_s, "arrival")
        elif not self._rates_hz:
            yield from self.push_stamp(time, utc_s, "arrival")

    def push_stamp(self, time: Fraction, utc_s: float, source: ClockSource) -> Iterator[MediaItem]:
        """Record that media time `time` is `utc_s` (Unix seconds) by the clock `source`."""
        time += self._steering.shift
        stamp = _Stamp(time, utc_s, source)
        if self._audio is None:
            # Keep the earliest arrival and the latest sender report, so that only two are held.
            kept = self._stamps.get(source)
            if kept is None or source != "arrival" or utc_s - time < kept.utc_s - kept.time:
                self._stamps[source] = stamp
        elif abs(time - self._head()) <= self._limit:
            yield from self._anchor(stamp)

    def flush(self) -> Iterator[MediaItem]:
        """End the source: yields everything that is still held."""
        for sound in self._steering.flush():
            yield from self._push_sound(sound)
        yield from self._decide_pictures()
        if self._audio is None:
            yield from self._start()
        yield from self._drain()

    def _reset(self) -> None:
        self._audio = None  # until the epoch's zero is known
        self._zero = Fraction(0)
        self._chooser = PictureChooser()
        self._last_picture = None
        self._stray_since = None  # time of the first picture of a run that doesn't fit
        self._waiting = []  # media until the zero is known
        self._stamps = {}
        self._best_arrival = None  # of the current second
        self._anchored = {}  # when an anchor of each clock was last yielded

    def _wait(self, item: Sound | _Shown) -> Iterator[MediaItem]:
        """Hold media until the epoch's zero is certain, then release all of it."""
        self._waiting.append(_rendered(item) if isinstance(item, _Shown) else item)
        sounds = [i for i in self._waiting if isinstance(i, Sound)]
        shown = [i for i in self._waiting if isinstance(i, _Shown)]
        heard = sum((Fraction(len(s.samples), s.rate_hz) for s in sounds), Fraction(0))
        seen = shown[-1].time - shown[0].time if shown else Fraction(0)
        complete = (bool(sounds) or not self._rates_hz) and (bool(shown) or not self._pictures)
        if complete or heard > START_WAIT_S or not 0 <= seen <= START_WAIT_S:
            yield from self._start()

    def _start(self) -> Iterator[MediaItem]:
        waiting, self._waiting = self._waiting, []
        first_sound = next((i.time for i in waiting if isinstance(i, Sound)), None)
        first_shown = next((i.time for i in waiting if isinstance(i, _Shown)), None)
        times = [t for t in (first_sound, first_shown) if t is not None]
        if first_sound is not None and first_shown is not None and abs(first_sound - first_shown) > self._limit:
            times = [first_sound]
        self._zero = min(times, default=Fraction(0))
        yield from self._begin_with_file()
        if first_sound is not None and first_sound - self._zero <= _SAME_START_S:
            self._zero = first_sound
        self._audio = AudioTrack(self._rates_hz, self._zero)
        if self._file_utc_s is not None:
            yield Anchor(0, self._file_utc_s, "file")
        for stamp in self._stamps.values():
            if abs(stamp.time - self._zero) <= self._limit + START_WAIT_S:
                yield from self._anchor(stamp)
        for item in waiting:
            yield from self._push_sound(item) if isinstance(item, Sound) else self._push_shown(item)

    def _begin_with_file(self) -> Iterator[MediaItem]:
        """Begin a recording's first epoch at its start, or, if wanted media begins much later, with that media."""
        start, self._file_start = self._file_start, None
        if start is None or start >= self._zero:
            return
        lead = self._zero - start
        if lead <= BRIDGE_S:
            self._zero = start
            return
        if self._file_utc_s is not None:
            self._file_utc_s += float(lead)
        yield Discontinuity("hole", round(lead * SAMPLE_RATE_HZ))

    def _drain(self) -> Iterator[MediaItem]:
        if self._audio is not None:
            yield from self._audio.flush()
        yield from self._chooser.flush()

    def _end_epoch(self, reason: str, time: Fraction) -> Iterator[MediaItem]:
        # A recording's next epoch is later by the length of this one, and by the hole that ended it.
        head = self._head()
        hole = max(Fraction(0), time - head)
        if self._file_utc_s is not None:
            self._file_utc_s += float(head - self._zero + hole)
        yield from self._drain()
        self._overlap_samples = self.overlap_samples
        self._late_limit = Fraction(0)
        self._reset()
        yield Discontinuity(reason, round(hole * SAMPLE_RATE_HZ))

    def _head(self) -> Fraction:
        """The latest media time of the epoch."""
        ends = [self._zero, self._last_picture, self._audio.end if self._audio is not None else None]
        return max(t for t in ends if t is not None)

    def _audio_jump(self, time: Fraction) -> str | None:
        assert self._audio is not None
        due = self._audio.end
        if due is None:
            due = self._zero
            if due <= time <= due + self._late_limit:
                return None
        if time < due - self._limit:
            return "pts_jump"
        if time <= due + self._limit:
            return None
        bridged = self._last_picture is not None and abs(time - self._last_picture) <= self._picture_limit
        return None if bridged and time - due <= BRIDGE_S else "hole"

    def _fits(self, time: Fraction) -> bool:
        """Whether a picture follows the last one closely, or is near the audio."""
        assert self._audio is not None
        last, end = self._last_picture, self._audio.end
        if last is None and end is None:
            return True
        if last is not None and -self._limit <= time - last <= self._picture_limit:
            return True
        return end is not None and abs(time - end) <= self._picture_limit

    def _anchor(self, stamp: _Stamp) -> Iterator[MediaItem]:
        """Yield at most one anchor a second (arrival: the earliest of it) or in ten seconds (sender reports)."""
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


def _rendered(shown: _Shown) -> _Shown:
    pixels = shown.picture()  # 150 KB instead of a whole decoded picture
    return _Shown(shown.time, lambda: pixels)
