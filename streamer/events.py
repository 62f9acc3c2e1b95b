"""Posteriors of cells become events: a streaming median filter, then a threshold pair per class.

This is the only event decoder. Offline evaluation pushes all posteriors of a clip at once, the daemon
a few cells at a time, and the results are bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from streamer.types import CELL, Bools, CellScores, EndReason, Floats, Offset, Onset

_TICKS = float(2**32)
"""Posteriors are summed as integer multiples of 1 / this: a float sum would depend on how the cells are chunked."""


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


@dataclass(slots=True)
class _Open:
    """An event that has begun: its onset, and the running state of its confidence and peak."""

    onset: Onset
    cell: int
    ticks: int  # the class's running sum of posteriors in front of `cell`
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
_Change = tuple[int, int, int, float]  # cell, which of the above, column, filtered posterior


class EventTracker:
    """The events of one epoch of one stream: `push` posteriors in cell order, `flush` once at the end.

    The median filter is zero-padded at both ends of the epoch. A cell that is not covered repeats the
    posteriors of the cell before it. An event that lasts longer than `max_event_cells` is closed with
    `max_duration`, and a new one begins at the same cell.
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
        count = len(decoding.classes)
        # The posteriors that are still needed, from cell `_base` on; initially the padding before the epoch.
        self._base = -self._margin
        self._raw: Floats = np.zeros((self._margin, count), np.float32)
        # The running sums before each of those cells, and after the last one.
        self._ticks: NDArray[np.int64] = np.zeros((self._margin + 1, count), np.int64)
        self._last: Floats = np.zeros(count, np.float32)
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
        """Process the next cells' posteriors and return the onsets and offsets that are now certain, in time order.

        A class is decided up to half its median filter before the newest cell. Raises `ValueError`
        if the cells are not the epoch's next ones.
        """
        if self._flushed or scores.epoch != self._epoch or scores.start != self._next:
            raise ValueError(
                f"epoch {scores.epoch}, cell {scores.start} can't follow epoch {self._epoch}, cell {self._next - 1}"
            )
        if len(scores.scores) == 0:
            return []
        held = _held(scores.scores, scores.covered, self._last)
        self._last = held[-1]
        self._append(held)
        self._next += len(held)
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
                changes.extend(self._changes(group, start, _median(rows, group.median)))
                self._decided[index] = stop
        changes.sort()
        out: list[Onset | Offset] = []
        for cell, what, column, score in changes:
            if what == _ONSET:
                onset = Onset(self._new_id(), self._stream, self._epoch, self._classes[column], cell * CELL, score)
                self._open[column] = _Open(onset, cell, int(self._ticks[cell - self._base, column]), 0.0, cell)
                out.append(onset)
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
        active = _triggered(filtered, group.onset, group.offset, was)
        changes: list[_Change] = []
        for member in np.flatnonzero(active.any(axis=0) | was).tolist():
            column = int(group.columns[member])
            before = np.concatenate((was[member : member + 1], active[:-1, member]))
            edges: list[int] = (np.flatnonzero(active[:, member] != before) + start).tolist()
            if was[member]:
                edges.insert(0, self._open[column].cell)
            for begin, end in zip_longest(edges[::2], edges[1::2]):
                if begin >= start:  # else it began in an earlier block
                    changes.append((begin, _ONSET, column, float(filtered[begin - start, member])))
                until = start + len(filtered) if end is None else end
                # Not before `start`: the limit may have been lowered while the event was open.
                for cell in range(max(begin + self._max_event_cells, start), until, self._max_event_cells):
                    changes.append((cell, _TOO_LONG, column, 0.0))
                    changes.append((cell, _ONSET, column, float(filtered[cell - start, member])))
                if end is not None:
                    changes.append((end, _SILENCE, column, 0.0))
        return changes

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
    count = iter(range(scores.size + 1))
    tracker = EventTracker(
        stream, 0, decoding, max_event_cells=len(scores) + 1, new_id=lambda: f"{stream}-{next(count)}"
    )
    covered = np.ones(len(scores), bool)
    whole = CellScores(stream, 0, 0, scores, covered, np.zeros(len(decoding.classes), np.float32), 0, len(scores))
    return [event for event in [*tracker.push(whole), *tracker.flush("silence")] if isinstance(event, Offset)]


def filtered(scores: Floats, covered: Bools, median_cells: int) -> Floats:
    """The filtered posteriors (n, classes) that `EventTracker` compares with the thresholds, for consecutive cells.

    `scores` (n, classes) and `covered` (n,) are those of the cells. A cell whose filter reaches beyond them is NaN.
    """
    out = np.full(scores.shape, np.nan, np.float32)
    half = median_cells // 2
    if len(scores) >= median_cells:
        held = _held(scores, covered, np.zeros(scores.shape[1], np.float32))
        out[half : len(scores) - half] = _median(held, median_cells)
    return out


def _grouped(decoding: Decoding) -> tuple[_Group, ...]:
    groups = []
    for median in sorted({one.median_cells for one in decoding.per_class}):
        columns = [index for index, one in enumerate(decoding.per_class) if one.median_cells == median]
        groups.append(
            _Group(
                median=median,
                columns=np.array(columns, np.intp),
                onset=np.array([decoding.per_class[column].onset_threshold for column in columns]),
                offset=np.array([decoding.per_class[column].offset_threshold for column in columns]),
            )
        )
    return tuple(groups)


def _held(scores: Floats, covered: Bools, before: Floats) -> Floats:
    """`scores` (n, classes) with each uncovered row replaced by the last covered one before it, or by `before`."""
    if covered.all():
        return scores
    rows = np.concatenate((before[None], scores))
    newest = np.maximum.accumulate(np.where(covered, np.arange(1, len(scores) + 1), 0))
    return rows[newest]


def _median(rows: Floats, length: int) -> Floats:
    """Running medians over `length` (odd) rows of (n + length - 1, classes): (n, classes), without interpolation."""
    if length == 1:
        return rows
    half = length // 2
    medians: Floats = np.partition(sliding_window_view(rows, length, axis=0), half, axis=-1)[..., half]
    return medians


def _triggered(filtered: Floats, onset: NDArray[np.float64], offset: NDArray[np.float64], was: Bools) -> Bools:
    """Hysteresis: active from a row that reaches `onset` until one below `offset`; `was` is the state before."""
    says_on = filtered >= onset
    says = np.concatenate((np.ones((1, len(was)), bool), says_on | (filtered < offset)))
    newest = np.maximum.accumulate(np.where(says, np.arange(len(says))[:, None], 0), axis=0)
    return np.take_along_axis(np.concatenate((was[None], says_on)), newest, axis=0)[1:]
