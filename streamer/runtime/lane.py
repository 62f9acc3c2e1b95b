"""One stream's part of the worker: takes media from its queue, feeds its pipeline, and ends a stalled epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from streamer.pipeline import StreamPipeline
from streamer.runtime.intake import Closed, Intake, Opened
from streamer.runtime.model import Model
from streamer.timeline import Timeline
from streamer.types import SAMPLE_RATE_HZ, Anchor, Chunk, Discontinuity, EndReason, MediaItem, Picture, Window

_ITEMS_A_TURN = 32
"""Items that one stream may push before the others get a turn: about 0.5 s of media."""
_TURN_S = 0.1
"""After so long, the turn ends with the current item. A picture can take a third of a second."""
_BASE_UNIT = 221
"""Master-clock samples that equal a whole number (160) of samples at 16 kHz."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The outcome of a turn: `windows` to score; `drain`: the pipeline must be drained, even without windows."""

    windows: list[Window]
    drain: bool
    stalled: bool = False
    closed: Closed | None = None
    ready: bool = False  # for the next model: the epoch has ended for its sake


class Lane:
    """The worker's end of one stream. Not thread-safe."""

    def __init__(
        self,
        name: str,
        intake: Intake,
        pipeline: StreamPipeline,
        model: Model,
        stall_s: float,
        clock_s: Callable[[], float],
    ) -> None:
        """`pipeline` is one of `model`. `clock_s` is monotonic."""
        self.name = name
        self.intake = intake
        self.pipeline = pipeline
        self.model = model
        self.stall_s = stall_s
        """A live stream that brings nothing for so long has its epoch ended."""
        self.connection = 0
        self._open = False
        self.has_audio = False
        self.has_video = False
        self.pictures = 0
        """Pictures pushed since this was last set to 0."""
        self.live_stride = 1
        """Cells per picture that is processed while the stream is live; a recording loses none."""
        self._clock_s = clock_s
        self._restart = Restart()
        self._in_epoch = False

    def turn(self, now_s: float) -> Turn | None:
        """Push queued items until windows are due or the turn is over; None if there was nothing to do.

        `now_s` is when the turn begins.
        """
        for count in range(_ITEMS_A_TURN):
            item = self.intake.take()
            if item is None:
                return self._nothing(now_s) if count == 0 else Turn([], drain=False)
            turn = self._handle(item)
            if turn is not None:
                return turn
            if self._clock_s() - now_s >= _TURN_S:
                break
        return Turn([], drain=False)

    def shut_down(self, reason: EndReason) -> Turn:
        """End the epoch because the stream or the daemon ends."""
        self.pipeline.picture_stride = 0  # the last pictures are not worth seconds of shutdown
        self._in_epoch = False
        return Turn(self.pipeline.finish(reason), drain=True)

    def make_ready(self) -> Turn:
        """End the epoch in the middle of a connection, so that it can `adopt` another model; no media is lost."""
        if self._in_epoch or self.pipeline.clock is not None:  # what is known of UTC must not be lost either
            self._restart.ask()
        self._in_epoch = False
        return Turn(self.pipeline.finish("reload"), drain=True, ready=True)

    def adopt(self, model: Model, pipeline: StreamPipeline) -> None:
        """Go on with another model; the epoch has ended, and its last scores are drained."""
        if self._open:
            pipeline.source_has(audio=self.has_audio, pictures=self.has_video)
        pipeline.picture_stride = self.live_stride if self.intake.live else 1
        self.model, self.pipeline = model, pipeline

    def _nothing(self, now_s: float) -> Turn | None:
        """The queue was empty: end the epoch if media is overdue by `stall_s`."""
        if not (self.intake.live and self._in_epoch and self.intake.silent_s(now_s) >= self.stall_s):
            return None
        self._restart.ask()
        self._in_epoch = False
        return Turn(self.pipeline.finish("gap"), drain=True, stalled=True)

    def _handle(self, item: MediaItem | Opened | Closed) -> Turn | None:
        """Process one item; a `Turn` if something must be scored or reported before the next one."""
        if isinstance(item, Opened):
            self.connection = item.connection
            self._open = True
            self.has_audio, self.has_video = item.has_audio, item.has_video
            self._restart = Restart()
            self.pipeline.source_has(audio=item.has_audio, pictures=item.has_video)
            self.pipeline.picture_stride = self.live_stride if item.live else 1
            return None
        if isinstance(item, (Closed, Discontinuity)):
            self._restart = Restart()
            self._in_epoch = False
            closed = item if isinstance(item, Closed) else None
            self._open = self._open and closed is None
            ready = closed is not None and closed.end == "reload"
            return Turn(self.pipeline.finish(closed.end if closed else "gap"), drain=True, closed=closed, ready=ready)
        windows: list[Window] = []
        for part in self._restart.push(item):
            if isinstance(part, (Chunk, Picture)):
                self._in_epoch = True
                self.pictures += isinstance(part, Picture)
            # Only the last part can be media; the anchors before it complete no windows.
            windows += self.pipeline.push(part)
        return Turn(windows, drain=True) if windows else None


class Restart:
    """Begins a new epoch in the middle of a connection, after a stall has ended the one before.

    Later positions are shifted so that the new epoch begins at 0, and the known anchors with them. Without `ask`,
    items pass unchanged.
    """

    def __init__(self) -> None:
        self._base = 0
        self._asked = False
        self._clock = Timeline()  # of the whole connection, in unshifted positions

    def ask(self) -> None:
        """The next chunk or picture begins a new epoch."""
        self._asked = True

    def push(self, item: MediaItem) -> list[MediaItem]:
        """`item` as shifted into the epoch; nothing if it lies before the epoch's start."""
        if isinstance(item, Anchor):
            self._clock.push(item)
            return [] if self._asked else [replace(item, at=item.at - self._base)]
        if isinstance(item, Discontinuity):
            return [item]
        out: list[MediaItem] = []
        if self._asked:
            self._asked = False
            at = item.start * SAMPLE_RATE_HZ // item.rate_hz if isinstance(item, Chunk) else item.at
            # Up, for sound: 10 ms less are no loss, but a cell of which they are missing would be masked.
            up = _BASE_UNIT - 1 if isinstance(item, Chunk) else 0
            self._base = (at + up) // _BASE_UNIT * _BASE_UNIT
            out += self._anchors()
        if not self._base:
            return [*out, item]
        if isinstance(item, Picture):
            return [*out, replace(item, at=item.at - self._base)] if item.at >= self._base else out
        # Audio of another rate may begin a little before the base.
        start = item.start - self._base * item.rate_hz // SAMPLE_RATE_HZ
        early = max(-start, 0)
        if early < len(item.samples):
            out.append(replace(item, start=start + early, samples=item.samples[early:]))
        return out

    def _anchors(self) -> list[Anchor]:
        anchors = []
        arrival_s, best_s = self._clock.arrival_utc_s(self._base), self._clock.utc_s(self._base)
        if arrival_s is not None:
            anchors.append(Anchor(0, arrival_s, "arrival"))
        if best_s is not None and self._clock.source not in (None, "arrival"):
            assert self._clock.source is not None
            anchors.append(Anchor(0, best_s, self._clock.source))
        return anchors
