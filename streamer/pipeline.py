"""One stream's way from media to events: extractors, windows, event tracker, epoch by epoch, without I/O.

The network is not in here, because windows of all streams share a batch: `push` gives out windows,
whoever owns the `Detector` scores them, `drain` takes the scores back and gives out what is known now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from streamer.detect import Detector
from streamer.errors import SourceError
from streamer.events import Decoding, EventTracker
from streamer.features.base import ExtractorFactory, want_of
from streamer.features.extraction import Extraction, StageTimer
from streamer.timeline import Timeline, samples
from streamer.types import (
    CELL,
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
    """What has become certain, with the clock of its epoch."""

    output: Output
    timeline: Timeline


_UNLIMITED = 2**40
"""Cells that no recording has."""


WHOLE_CLIP = StreamSettings(_UNLIMITED // 2, lookahead_cells=0, skew_cells=_UNLIMITED, max_event_s=float("inf"))
"""Settings, with `WHOLE_CLIP_WINDOW`, that make one window of an epoch of any length: offline evaluation."""
WHOLE_CLIP_WINDOW = _UNLIMITED


class StreamPipeline:
    """All core state of one stream. Not for two threads at once.

    Windows that `push` and `finish` gave out must be scored and drained before the next `push`. After
    `finish`, and after the push of a `Discontinuity`, `drain` is due even without windows: it closes
    what is still open.
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
    ) -> None:
        """`factories`, `decoding` and `window_cells` are the bundle's; `new_id` gives each event its id."""
        self._stream = stream
        self._factories = dict(factories)
        self._decoding = decoding
        self._window_cells = window_cells
        self._settings = settings
        self._new_id = new_id
        self._timer = timer
        self._present = tuple(factories)
        self._picture_stride = 1
        self._past = Coverage()
        self._epoch = 0
        self._undrained: int | None = None  # windows whose scores are waited for; None: no drain is due
        self._ended: EndReason | None = None  # why the epoch ended; None: it goes on
        self._begin()

    def _begin(self) -> None:
        """Everything that lives for one epoch."""
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
        )
        self._tracker = EventTracker(
            self._stream,
            self._epoch,
            self._decoding,
            max_event_cells=_cells(self._settings.max_event_s),
            new_id=self._new_id,
        )

    @property
    def epoch(self) -> int:
        """Number of the epoch; it rises when one that held any media has ended."""
        return self._epoch

    @property
    def clock(self) -> ClockSource | None:
        """Where the epoch's UTC comes from; None while it is not known."""
        return self._timeline.source

    @property
    def open_events(self) -> tuple[Onset, ...]:
        """The events that have begun and not ended."""
        return self._tracker.open_events

    @property
    def coverage(self) -> Coverage:
        """How much of the stream could be looked at, over all its epochs."""
        return self._past.plus(self._windower.coverage) if self._ended is None else self._past

    @property
    def picture_stride(self) -> int:
        """Every how many cells a picture is looked at: 1 all, 0 none. Extractors that can't shed ignore it."""
        return self._picture_stride

    @picture_stride.setter
    def picture_stride(self, stride: int) -> None:
        self._picture_stride = stride
        self._extraction.shed(stride)

    def source_has(self, *, audio: bool, pictures: bool) -> None:
        """Say what the source has, before the first push of an epoch; without it, all that the model takes.

        Raises:
            SourceError: none of it is what the model takes.
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
                f"{self._stream}: the source has none of what the model takes ({', '.join(self._factories)}); "
                f"choose a source with {'sound' if needs_audio else 'a picture'} or another model",
            )
        self._present = present
        if self._ended is None:
            self._begin()

    def push(self, item: MediaItem) -> list[Window]:
        """Take in the next media of the stream and give out the windows that are due.

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
                for name, cells in self._extraction.push(item):
                    windows += self._windower.push(name, cells)
        self._undrained = len(windows) or None
        return windows

    def finish(self, reason: EndReason) -> list[Window]:
        """The epoch has ended: give out windows that decide all its remaining cells.

        An epoch without media ends without a trace. Raises `RuntimeError` if windows are not drained.
        """
        self._check_drained()
        if self._ended is not None:
            return []
        if not self._extraction.begun:
            self._begin()  # anchors of a connection that gave nothing say nothing of the next one
            return []
        cells = max(self._extraction.cells, self._windower.ready)
        windows = self._windower.flush(cells, self._extraction.flush(cells))
        self._past = self.coverage
        self._ended = reason
        self._epoch += 1
        self._undrained = len(windows)
        return windows

    def drain(self, scores: Sequence[CellScores]) -> list[TimedOutput]:
        """Take in the scores of all windows given out since the last drain, in their order.

        Gives out each window's scores, and behind them the events that they made certain, with their epoch's clock.
        """
        if len(scores) != (self._undrained or 0):
            raise RuntimeError(f"{self._stream}: {self._undrained or 0} windows wait for scores, not {len(scores)}")
        out: list[Output] = []
        for one in scores:
            out.append(one)
            out += self._tracker.push(one)
        if self._ended is not None:
            out += self._tracker.flush(self._ended)
        self._undrained = None
        return [TimedOutput(one, self._timeline) for one in out]

    def _check_drained(self) -> None:
        if self._undrained is not None:
            raise RuntimeError(f"{self._stream}: drain the windows that were given out before going on")


def run(
    items: Iterable[MediaItem], pipeline: StreamPipeline, detector: Detector, end: EndReason = "silence"
) -> Iterator[TimedOutput]:
    """Put a recording through a stream's pipeline, as fast as it goes; open events end with `end`.

    The caller iterates: what is wrong with the media (`SourceError`) comes up where it is met.
    """
    for item in items:
        yield from pipeline.drain(detector.scores(pipeline.push(item)))
    yield from pipeline.drain(detector.scores(pipeline.finish(end)))


def _cells(duration_s: float) -> int:
    return _UNLIMITED if duration_s == float("inf") else max(samples(duration_s) // CELL, 1)
