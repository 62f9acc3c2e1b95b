"""Posteriors of cells become events: a streaming median filter, then a threshold pair per class.

An event is raised by final posteriors. Its onset is read from the newest ones, which a run of the network gives again
for cells that were decided earlier, with more context.

This is the only event decoder. Offline evaluation pushes all posteriors of a clip at once, the daemon
a few cells at a time, and the results are bit-identical.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, zip_longest

import numpy as np
from numpy.typing import NDArray

from streamer.filtering import held, median, triggered
from streamer.types import CELL, CellScores, EndReason, Floats, NewestScores, Offset, Onset

_TICKS = float(2**32)
"""Posteriors are summed as integer multiples of 1 / this: a float sum would depend on how the cells are chunked."""

BACKDATE_CELLS = 8
"""An onset is at most this much (0.53 s) before the cell that raised the event. (With lookaheads of 4, 8 and 15 cells
any limit from 8 to 60 gives the same event F1 within 0.3 points on 150 clips; a low one keeps onsets from lying far in
the past.)"""


@dataclass(frozen=True, slots=True)
class ClassDecoding:
    """How one class's posteriors (0 to 1) become events. Raises `ValueError` if a number is out of range."""

    onset_threshold: float  # an event begins at the first filtered posterior that reaches it
    offset_threshold: float  # an event ends before the first one below it; at most `onset_threshold`
    median_cells: int  # length of the median filter, odd; 1: none
    tag_threshold: float = 0.5  # a clip has the class if its clip posterior reaches it

    def __post_init__(self) -> None:
        if not 0.0 < self.offset_threshold <= self.onset_threshold <= 1.0:
            raise ValueError(
                f"thresholds must be 0 < offset_threshold <= onset_threshold <= 1, "
                f"not {self.offset_threshold} and {self.onset_threshold}"
            )
        if not 0.0 < self.tag_threshold <= 1.0:
            raise ValueError(f"tag_threshold must be above 0 and at most 1, not {self.tag_threshold}")
        if self.median_cells < 1 or self.median_cells % 2 == 0:
            raise ValueError(f"median_cells must be odd and at least 1, not {self.median_cells}")


@dataclass(frozen=True, slots=True)
class Decoding:
    """The decoding of every class, in the order of the network's outputs. Raises `ValueError` if they don't match."""

    classes: tuple[str, ...]
    per_class: tuple[ClassDecoding, ...]

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.per_class):
            raise ValueError(f"{len(self.classes)} classes but decoding for {len(self.per_class)}")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must be one or more different names")

    def filtered_by_at_most(self, cells: int | None) -> Decoding:
        """The same with each median filter no longer than `cells`, which is odd; None: without a limit."""
        if cells is None:
            return self
        return Decoding(
            self.classes, tuple(replace(one, median_cells=min(one.median_cells, cells)) for one in self.per_class)
        )


@dataclass(slots=True)
class _Open:
    """An event that has begun: its onset, and the running state of its confidence and peak."""

    onset: Onset
    cell: int  # of the onset
    ticks: int  # the class's running sum of posteriors in front of `cell`, by the newest ones
    peak: float  # over the cells from `cell` up to `seen`
    seen: int


@dataclass(frozen=True, slots=True)
class _Group:
    """Classes with the same median filter length: they are always decided up to the same cell."""

    median: int
    columns: NDArray[np.intp]
    onset: NDArray[np.float64]
    offset: NDArray[np.float64]


# The changes at a cell, in their order: an event ends before the next one begins.
_SILENCE, _TOO_LONG, _ONSET = range(3)
_Change = tuple[int, int, int, float, int]  # cell, which of the above, column, filtered posterior, cell of the onset


class EventTracker:
    """The events of one epoch of one stream: `push` posteriors in cell order, `flush` once at the end.

    The median filter is zero-padded at both ends of the epoch. A cell that is not covered repeats the
    posteriors of the cell before it. An event that lasts longer than `max_event_cells` is closed with
    `max_duration`, and a new one begins at the same cell.

    An event is raised at the first cell whose final filtered posterior reaches the onset threshold. Its onset is the
    beginning of the run of active cells there in the newest posteriors: at that cell or up to `BACKDATE_CELLS` before
    it, never before the end of the class's last event. Once told, an onset does not change.
    """

    def __init__(
        self, stream: str, epoch: int, decoding: Decoding, *, max_event_cells: int, new_id: Callable[[], str]
    ) -> None:
        """`new_id` returns the `event_id` of a new event. Raises `ValueError` if `max_event_cells` is below 1."""
        self._stream = stream
        self._epoch = epoch
        self._classes = decoding.classes
        self.limit(max_event_cells)
        self._new_id = new_id
        self._groups = _grouped(decoding)
        self._decided = [0] * len(self._groups)  # number of decided cells, by group
        self._margin = max(group.median for group in self._groups) // 2
        width = len(decoding.classes)
        # The posteriors that are still needed, from cell `_base` on; initially the padding before the epoch.
        self._base = -self._margin
        self._raw: Floats = np.zeros((self._margin, width), np.float32)
        # The running sums before each of those cells, and after the last one.
        self._ticks: NDArray[np.int64] = np.zeros((self._margin + 1, width), np.int64)
        self._last: Floats = np.zeros(width, np.float32)
        self._newest: NewestScores | None = None
        self._ended = [0] * width  # the cell at which the class's last event ended
        self._next = 0
        self._open: dict[int, _Open] = {}
        self._flushed = False

    def limit(self, max_event_cells: int) -> None:
        """Change how long an event may last; one that is longer by now ends at the next cell that is decided.

        Raises:
            ValueError: it is below 1.

        """
        if max_event_cells < 1:
            raise ValueError(f"max_event_cells must be at least 1, not {max_event_cells}")
        self._max_event_cells = max_event_cells

    @property
    def open_events(self) -> tuple[Onset, ...]:
        """The events that have begun and not ended, earliest first."""
        return tuple(sorted((event.onset for event in self._open.values()), key=lambda onset: onset.onset))

    def push(self, scores: CellScores) -> list[Onset | Offset]:
        """Process the next cells' posteriors and return the onsets and offsets that are now certain, in their order.

        A class is decided up to half its median filter before the newest cell. Raises `ValueError`
        if the cells are not the epoch's next ones.
        """
        if self._flushed or scores.epoch != self._epoch or scores.start != self._next:
            raise ValueError(
                f"epoch {scores.epoch}, cell {scores.start} can't follow epoch {self._epoch}, cell {self._next - 1}"
            )
        if len(scores.scores) == 0:
            return []
        self._newest = scores.newest
        rows = held(scores.scores, scores.covered, self._last)
        self._last = rows[-1]
        self._append(rows)
        self._next += len(rows)
        return self._decide(ended=False)

    def flush(self, reason: EndReason) -> list[Onset | Offset]:
        """End the epoch: decide the last cells, then close all open events with `reason`."""
        if self._flushed:
            return []
        self._flushed = True
        self._append(np.zeros((self._margin, len(self._classes)), np.float32))
        out = self._decide(ended=True)
        out.extend(self._close(column, self._next, reason) for column in sorted(self._open))
        return out

    def _append(self, rows: Floats) -> None:
        keep = min(decided - group.median // 2 for decided, group in zip(self._decided, self._groups, strict=True))
        drop = keep - self._base
        sums = self._ticks[-1] + np.cumsum(np.rint(rows * _TICKS).astype(np.int64), axis=0)
        self._raw = np.concatenate((self._raw[drop:], rows))
        self._ticks = np.concatenate((self._ticks[drop:], sums))
        self._base = keep

    def _decide(self, *, ended: bool) -> list[Onset | Offset]:
        """Decide every cell whose filter window is complete; once the epoch has `ended`, it is padded with zeros."""
        changes: list[_Change] = []
        for index, group in enumerate(self._groups):
            half = group.median // 2
            start, stop = self._decided[index], self._next if ended else self._next - half
            if stop > start:
                rows = self._raw[start - half - self._base : stop + half - self._base, group.columns]
                changes.extend(self._changes(group, start, median(rows, group.median)))
                self._decided[index] = stop
        changes.sort()
        out: list[Onset | Offset] = []
        for cell, what, column, score, began in changes:
            if what == _ONSET:
                out.append(self._begin(column, cell, score, began))
            else:
                out.append(self._close(column, cell, "max_duration" if what == _TOO_LONG else "silence"))
        for decided, group in zip(self._decided, self._groups, strict=True):
            for column in group.columns.tolist():
                if column in self._open:
                    self._see(column, decided)
        return out

    def _changes(self, group: _Group, start: int, filtered: Floats) -> list[_Change]:
        """The begins and ends of the group's events in the filtered posteriors (n, columns) from cell `start` on."""
        was = np.array([column in self._open for column in group.columns.tolist()])
        active = triggered(filtered, group.onset, group.offset, was)
        changes: list[_Change] = []
        for member in np.flatnonzero(active.any(axis=0) | was).tolist():
            column = int(group.columns[member])
            before = np.concatenate((was[member : member + 1], active[:-1, member]))
            edges: list[int] = (np.flatnonzero(active[:, member] != before) + start).tolist()
            if was[member]:
                edges.insert(0, self._open[column].cell)
            not_before = self._ended[column]
            for begin, end in zip_longest(edges[::2], edges[1::2]):
                began = begin
                if begin >= start:  # else it began in an earlier block
                    began = self._began(group, member, begin, not_before)
                    changes.append((begin, _ONSET, column, float(filtered[begin - start, member]), began))
                until = start + len(filtered) if end is None else end
                # Not before `start`: the limit may have been lowered while the event was open.
                for cell in range(max(began + self._max_event_cells, start), until, self._max_event_cells):
                    changes.append((cell, _TOO_LONG, column, 0.0, cell))
                    changes.append((cell, _ONSET, column, float(filtered[cell - start, member]), cell))
                if end is not None:
                    changes.append((end, _SILENCE, column, 0.0, end))
                    not_before = end
        return changes

    def _began(self, group: _Group, member: int, trigger: int, not_before: int) -> int:
        """The cell at which an event that is raised at the cell `trigger` began, by the newest posteriors.

        `trigger` itself if they do not have the event there. Never so early that the event is already too long.
        """
        newest, half = self._newest, group.median // 2
        if newest is None or not newest.start <= trigger < newest.stop:
            return trigger
        # The filter is zero-padded at the ends of the epoch only.
        first = newest.start + half if newest.start else 0
        first = max(first, not_before, trigger - min(BACKDATE_CELLS, self._max_event_cells - 1))
        if first >= trigger:
            return trigger
        column = int(group.columns[member])
        rows = np.pad(self._newest_held()[:, column], half)[
            first - newest.start : trigger + 1 - newest.start + 2 * half
        ]
        active = triggered(
            median(rows[:, None], group.median),
            group.onset[member : member + 1],
            group.offset[member : member + 1],
            np.zeros(1, np.bool_),
        )[:, 0]
        if not active[-1]:
            return trigger
        quiet = np.flatnonzero(~active)
        return first + (int(quiet[-1]) + 1 if len(quiet) else 0)

    def _newest_held(self) -> Floats:
        assert self._newest is not None
        return held(self._newest.scores, self._newest.covered, np.zeros(len(self._classes), np.float32))

    def _begin(self, column: int, cell: int, score: float, began: int) -> Onset:
        """Open an event that was raised at `cell`, and began at `began`."""
        onset = Onset(
            self._new_id(), self._stream, self._epoch, self._classes[column], began * CELL, cell * CELL, score
        )
        ticks, peak = int(self._ticks[cell - self._base, column]), 0.0
        if began < cell:
            assert self._newest is not None
            rows = self._newest_held()[began - self._newest.start : cell - self._newest.start, column]
            ticks -= int(np.rint(rows * _TICKS).astype(np.int64).sum())
            peak = float(rows.max())
        self._open[column] = _Open(onset, began, ticks, peak, cell)
        return onset

    def _see(self, column: int, cell: int) -> None:
        """Update an open event's peak with the cells before `cell`."""
        event = self._open[column]
        if cell > event.seen:
            rows = self._raw[event.seen - self._base : cell - self._base, column]
            event.peak = max(event.peak, float(rows.max()))
            event.seen = cell

    def _close(self, column: int, cell: int, reason: EndReason) -> Offset:
        self._see(column, cell)
        event = self._open.pop(column)
        self._ended[column] = cell
        ticks = int(self._ticks[cell - self._base, column]) - event.ticks
        return Offset(
            event_id=event.onset.event_id,
            stream=self._stream,
            epoch=self._epoch,
            label=event.onset.label,
            onset=event.onset.onset,
            offset=cell * CELL,
            confidence=min(ticks / _TICKS / (cell - event.cell), event.peak),  # ticks are rounded
            peak=event.peak,
            end_reason=reason,
        )


def decode_clip(stream: str, scores: Floats, decoding: Decoding) -> list[Offset]:
    """The events of one clip's posteriors (cells, classes), from the same tracker; their duration is not limited."""
    covered = np.ones(len(scores), bool)
    return decode_epoch(
        [CellScores(stream, 0, 0, scores, covered, np.zeros(len(decoding.classes), np.float32), 0, len(scores))],
        decoding,
    )


def decode_epoch(runs: Sequence[CellScores], decoding: Decoding) -> list[Offset]:
    """The events of one epoch, from the scores of all its runs, in order; their duration is not limited."""
    stream, epoch = runs[0].stream, runs[0].epoch
    ids = count()
    tracker = EventTracker(stream, epoch, decoding, max_event_cells=sys.maxsize, new_id=lambda: f"{stream}-{next(ids)}")
    events = [event for one in runs for event in tracker.push(one)]
    return [event for event in [*events, *tracker.flush("silence")] if isinstance(event, Offset)]


def _grouped(decoding: Decoding) -> tuple[_Group, ...]:
    groups = []
    for length in sorted({one.median_cells for one in decoding.per_class}):
        columns = [index for index, one in enumerate(decoding.per_class) if one.median_cells == length]
        groups.append(
            _Group(
                median=length,
                columns=np.array(columns, np.intp),
                onset=np.array([decoding.per_class[column].onset_threshold for column in columns]),
                offset=np.array([decoding.per_class[column].offset_threshold for column in columns]),
            )
        )
    return tuple(groups)
