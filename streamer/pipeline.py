"""The pipeline of one stream from media to events: extractors, windows, event tracker, epoch by epoch, without I/O.

It does not contain the network, because windows of all streams share a batch: `push` returns windows, the owner
of the `Detector` scores them, and `drain` takes the scores and returns the resulting events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from streamer.decoding import Decoding
from streamer.detect import Detector
from streamer.errors import SourceError
from streamer.event_level import CellPowers, EventLevel
from streamer.events import EventTracker
from streamer.evidence import Evidence, ScoreHistory
from streamer.features.base import ExtractorFactory, want_of
from streamer.features.extraction import Extraction, StageTimer
from streamer.onsets import NOT_EARLY
from streamer.timeline import Timeline, samples
from streamer.types import (
    CELL,
    SAMPLE_RATE_HZ,
    Anchor,
    CellScores,
    Chunk,
    ClockSource,
    Discontinuity,
    EndReason,
    MediaItem,
    Offset,
    Onset,
    Picture,
    Window,
)
from streamer.windows import Coverage, StreamSettings, Windower

Output: TypeAlias = Onset | Offset | CellScores


@dataclass(frozen=True, slots=True)
class TimedOutput:
    """An event or scores that are now certain, with the timeline of their epoch."""

    output: Output
    timeline: Timeline
    level: EventLevel | None = None  # of an event; of an onset: so far. None: no sound is heard
    evidence: Evidence | None = None  # of an event


_UNLIMITED = 2**40
"""More cells than any recording has."""


WHOLE_CLIP = StreamSettings(
    _UNLIMITED // 2, lookahead_cells=0, skew_cells=_UNLIMITED, max_event_s=float("inf"), early_threshold=NOT_EARLY
)
"""Settings for offline evaluation: with `WHOLE_CLIP_WINDOW`, an epoch of any length is one window."""
WHOLE_CLIP_WINDOW = _UNLIMITED


class StreamPipeline:
    """All core state of one stream. Not thread-safe.

    Windows that `push` and `finish` return must be scored and drained before the next `push`. After
    `finish`, and after the push of a `Discontinuity`, `drain` is due even without windows: it closes
    the open events.
    """

    def __init__(
        self,
        stream: str,
        factories: Mapping[str, ExtractorFactory],
        decoding: Decoding,
        window_cells: int,
        settings: StreamSettings,
        new_id: Callable[[], str],
        timer: StageTimer | None = None,
        *,
        epoch: int = 0,
        carried: bool = False,
    ) -> None:
        """`factories`, `decoding`, `window_cells` and `carried` are the bundle's; `new_id` returns a new event id.

        `epoch` is the first epoch's number.
        """
        self._stream = stream
        self._factories = dict(factories)
        self._decoding = decoding
        self._window_cells = window_cells
        self._carried = carried
        self._settings = settings
        self._new_id = new_id
        self._timer = timer
        self._present = tuple(factories)
        self._picture_stride = 1
        self._past = Coverage()
        self._epoch = epoch
        self._undrained: int | None = None  # windows whose scores are awaited; None: no drain is due
        self._ended: EndReason | None = None  # why the epoch ended; None: it has not
        self._begin()

    def _begin(self) -> None:
        """Create the state of one epoch."""
        self._timeline = Timeline()
        self._extraction = Extraction({name: self._factories[name] for name in self._present}, self._timer)
        self._extraction.shed(self._picture_stride)
        self._windower = Windower(
            self._stream,
            self._epoch,
            {name: factory.shape for name, factory in self._factories.items()},
            self._present,
            window_cells=self._window_cells,
            hop_cells=self._settings.hop_cells,
            lookahead_cells=self._settings.lookahead_cells,
            skew_cells=self._settings.skew_cells,
            carried=self._carried,
        )
        longest = _cells(self._settings.max_event_s)
        rates_hz = want_of(self._factories[name] for name in self._present).rates_hz
        self._powers = CellPowers(max(rates_hz, default=SAMPLE_RATE_HZ), longest + self._window_cells)
        self._history = ScoreHistory(self._decoding)
        self._tracker = EventTracker(
            self._stream,
            self._epoch,
            self._decoding,
            max_event_cells=longest,
            new_id=self._new_id,
            early_threshold=self._settings.early_threshold,
        )

    @property
    def epoch(self) -> int:
        """Number of the epoch; it increases when an epoch with any media ends."""
        return self._epoch

    @property
    def settings(self) -> StreamSettings:
        """How the stream is cut into windows."""
        return self._settings

    @property
    def most_hop_cells(self) -> int:
        """The longest hop at which every cell still lies in a window, with the lookahead of `settings`."""
        return self._window_cells - self._settings.lookahead_cells

    @property
    def clock(self) -> ClockSource | None:
        """Source of the epoch's UTC; None while it is unknown."""
        return self._timeline.source

    @property
    def open_events(self) -> tuple[Onset, ...]:
        """The events that have begun and not ended."""
        return self._tracker.open_events

    @property
    def coverage(self) -> Coverage:
        """How much of the stream's media was processed, over all its epochs."""
        return self._past.plus(self._windower.coverage) if self._ended is None else self._past

    @property
    def picture_stride(self) -> int:
        """One picture is processed per this many cells: 1: all; 0: none. Extractors that can't shed ignore it."""
        return self._picture_stride

    @picture_stride.setter
    def picture_stride(self, stride: int) -> None:
        self._picture_stride = stride
        self._extraction.shed(stride)

    def retune(self, settings: StreamSettings) -> None:
        """Change the settings, from the next window on; the epoch goes on, and each cell is still decided once.

        Filters change with the next epoch.

        Raises:
            ValueError: a window is shorter than a hop plus the lookahead.

        """
        self._windower.retune(
            hop_cells=settings.hop_cells, lookahead_cells=settings.lookahead_cells, skew_cells=settings.skew_cells
        )
        self._tracker.limit(_cells(settings.max_event_s))
        self._tracker.raise_early(settings.early_threshold)
        self._settings = settings

    def source_has(self, *, audio: bool, pictures: bool) -> None:
        """Set what the source has, before the first push of an epoch. The default is all of the model's inputs.

        Raises:
            SourceError: the source has none of the model's inputs.
            RuntimeError: the epoch has begun.

        """
        if self._ended is None and self._extraction.begun:
            raise RuntimeError(f"{self._stream}: what the source has can't change within an epoch")
        present = tuple(
            name for name, factory in self._factories.items() if factory.want.served_by(audio=audio, pictures=pictures)
        )
        if not present:
            needs_audio = want_of(self._factories.values()).audio
            raise SourceError(
                "no_audio" if needs_audio else "no_video",
                f"{self._stream}: the source has none of the model's inputs ({', '.join(self._factories)}); "
                f"choose a source with {'sound' if needs_audio else 'a picture'} or another model",
            )
        self._present = present
        if self._ended is None:
            self._begin()

    def push(self, item: MediaItem) -> list[Window]:
        """Process the next media of the stream and return the windows that are due.

        A `Discontinuity` ends the epoch with `gap`. Raises `RuntimeError` if windows are not drained.
        """
        if isinstance(item, Discontinuity):
            return self.finish("gap")
        self._check_drained()
        if self._ended is not None:
            self._ended = None
            self._begin()
        windows: list[Window] = []
        match item:
            case Anchor():
                self._timeline.push(item)
            case Chunk() | Picture():
                if isinstance(item, Chunk):
                    self._powers.push(item)
                for name, cells in self._extraction.push(item):
                    windows += self._windower.push(name, cells)
        self._undrained = len(windows) or None
        return windows

    def finish(self, reason: EndReason) -> list[Window]:
        """End the epoch and return windows that decide all its remaining cells.

        An epoch without media has no effect. Raises `RuntimeError` if windows are not drained.
        """
        self._check_drained()
        if self._ended is not None:
            return []
        if not self._extraction.begun:
            self._begin()  # anchors of a connection without media do not apply to the next one
            return []
        cells = max(self._extraction.cells, self._windower.ready)
        windows = self._windower.flush(cells, self._extraction.flush(cells))
        self._past = self.coverage
        self._ended = reason
        self._epoch += 1
        self._undrained = len(windows)
        return windows

    def drain(self, scores: Sequence[CellScores]) -> list[TimedOutput]:
        """Process the scores of all windows returned since the last drain, in their order.

        Returns the scores of each window, followed by the events that they made certain.
        """
        if len(scores) != (self._undrained or 0):
            raise RuntimeError(f"{self._stream}: got {len(scores)} scores for {self._undrained or 0} windows")
        out: list[TimedOutput] = []
        for one in scores:
            out.append(TimedOutput(one, self._timeline))
            self._history.push(one)
            decided = one.start + len(one.scores)
            out += self._timed(self._tracker.push(one), decided)
        if self._ended is not None:
            out += self._timed(self._tracker.flush(self._ended), self._extraction.cells)
        self._undrained = None
        return out

    def _timed(self, events: Sequence[Onset | Offset], decided: int) -> list[TimedOutput]:
        """`events` with what belongs to them; the level of one that has not ended is measured up to `decided`.

        An early one is heard up to its trigger.
        """
        ends = {event.event_id: event.offset // CELL for event in events if isinstance(event, Offset)}
        out = []
        for event in events:
            onset, stop = event.onset // CELL, ends.get(event.event_id, decided)
            history = self._history
            if isinstance(event, Offset):
                evidence = history.of_offset(stop)
            else:
                stop = max(stop, event.trigger // CELL + 1)
                evidence = history.of_onset(onset, event.trigger // CELL, early=event.early)
            out.append(TimedOutput(event, self._timeline, self._powers.level(onset, stop), evidence))
        return out

    def _check_drained(self) -> None:
        if self._undrained is not None:
            raise RuntimeError(f"{self._stream}: drain the returned windows before the next push")


def run(
    items: Iterable[MediaItem], pipeline: StreamPipeline, detector: Detector, end: EndReason = "silence"
) -> Iterator[TimedOutput]:
    """Process a recording with a stream's pipeline, as fast as possible; open events end with `end`.

    A fault in the media raises `SourceError` during the iteration.
    """
    for item in items:
        yield from pipeline.drain(detector.scores(pipeline.push(item)))
    yield from pipeline.drain(detector.scores(pipeline.finish(end)))


def _cells(duration_s: float) -> int:
    return _UNLIMITED if duration_s == float("inf") else max(samples(duration_s) // CELL, 1)
