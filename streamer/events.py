"""Posteriors of cells become events: a streaming median filter, then a threshold pair per class.

An event is raised by final posteriors, or early, by several high ones in a row of cells that are not decided yet. Its
onset is read from the newest posteriors, which a run of the network gives again for cells with more context.

This is the only event decoder. Offline evaluation pushes all posteriors of a clip at once, the daemon
a few cells at a time. Without `NewestScores` the results are bit-identical.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest

import numpy as np
from numpy.typing import NDArray

from streamer.decoding import Decoding, Group, grouped
from streamer.filtering import held, median, triggered
from streamer.onsets import BACKDATE_CELLS, EARLY_CELLS, NOT_EARLY, beginning, sure_runs
from streamer.types import CELL, Bools, CellScores, EndReason, Floats, NewestScores, Offset, Onset

_TICKS = float(2**32)
"""Posteriors are summed as integer multiples of 1 / this: a float sum would depend on how the cells are chunked."""


@dataclass(slots=True)
class _Open:
    """An event that has begun: its onset, and the running state of its confidence and peak."""

    onset: Onset
    cell: int  # of the onset
    until: int  # active up to this cell, whatever the final posteriors are: what was told is true
    ticks: int  # sum of the posteriors from `cell` up to `seen`: final ones, but those that dated it back
    peak: float  # the highest of them
    seen: int


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

    Before that it is raised early, if the newest posteriors of `EARLY_CELLS` undecided cells in a row reach the early
    threshold. They are not filtered: a filter would have to wait. What they say stands, so these cells are active also
    if the final posteriors deny it later.
    """

    def __init__(
        self,
        stream: str,
        epoch: int,
        decoding: Decoding,
        *,
        max_event_cells: int,
        new_id: Callable[[], str],
        early_threshold: float = NOT_EARLY,
    ) -> None:
        """`new_id` returns the `event_id` of a new event; for the other arguments see `limit` and `raise_early`.

        Raises `ValueError` if `max_event_cells` is below 1.
        """
        self._stream = stream
        self._epoch = epoch
        self._classes = decoding.classes
        self.limit(max_event_cells)
        self.raise_early(early_threshold)
        self._new_id = new_id
        self._per_class = decoding.per_class
        self._groups = grouped(decoding)
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

    def raise_early(self, threshold: float) -> None:
        """Change what undecided cells must reach (0 to 1) to raise an event; never less than a class's onset threshold.

        `NOT_EARLY`: events are raised by final posteriors alone.
        """
        self._early_threshold = threshold

    @property
    def open_events(self) -> tuple[Onset, ...]:
        """The events that have begun and not ended, earliest first."""
        return tuple(sorted((event.onset for event in self._open.values()), key=lambda onset: onset.onset))

    def push(self, scores: CellScores) -> list[Onset | Offset]:
        """Process the next cells' posteriors and return the onsets and offsets that are now certain, in their order.

        A class is decided up to half its median filter before the newest cell. Onsets that are early come last. Raises
        `ValueError` if the cells are not the epoch's next ones.
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
        return [*self._decide(ended=False), *self._early()]

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

    def _changes(self, group: Group, start: int, filtered: Floats) -> list[_Change]:
        """The begins and ends of the group's events in the filtered posteriors (n, columns) from cell `start` on."""
        was = np.array([column in self._open for column in group.columns.tolist()])
        active = self._active(group, start, filtered, was)
        changes: list[_Change] = []
        for member in np.flatnonzero(active.any(axis=0) | was).tolist():
            column = int(group.columns[member])
            before = np.concatenate((was[member : member + 1], active[:-1, member]))
            edges: list[int] = (np.flatnonzero(active[:, member] != before) + start).tolist()
            if was[member]:
                edges.insert(0, start)
            not_before = self._ended[column]
            for index, (begin, end) in enumerate(zip_longest(edges[::2], edges[1::2])):
                if was[member] and index == 0:  # it was raised before
                    began = self._open[column].cell
                else:
                    began = self._began(column, group.median, begin, not_before)
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

    def _active(self, group: Group, start: int, filtered: Floats, was: Bools) -> Bools:
        """Which of the cells from `start` on are active, like `filtered` (n, columns): by it, and by what was told."""
        active = triggered(filtered, group.onset, group.offset, was)
        for member in np.flatnonzero(was).tolist():
            told = self._open[int(group.columns[member])].until - start
            if told > 0:
                one = slice(member, member + 1)
                active[:told, member] = True
                active[told:, one] = triggered(
                    filtered[told:, one], group.onset[one], group.offset[one], np.ones(1, np.bool_)
                )
        return active

    def _early(self) -> list[Onset]:
        """Open the events that undecided cells are sure of."""
        newest, found = self._newest, []
        if newest is None or self._early_threshold >= NOT_EARLY:
            return []
        rows = self._newest_held()
        for group, decided in zip(self._groups, self._decided, strict=True):
            first = max(decided, newest.start)
            undecided = rows[first - newest.start :, group.columns]
            sure = sure_runs(undecided, np.maximum(group.onset, self._early_threshold))
            for member in np.flatnonzero(sure.any(axis=0)).tolist():
                column = int(group.columns[member])
                not_before = max(first, self._ended[column])
                runs = np.flatnonzero(sure[not_before - first :, member])
                if column in self._open or not len(runs):
                    continue
                begin = not_before + int(runs[0])
                trigger = begin + EARLY_CELLS - 1
                began = self._began(column, 1, begin, not_before)
                score = float(undecided[begin - first : trigger + 1 - first, member].min())
                onset = self._onset(column, began, trigger, score, early=True)
                self._open[column] = _Open(onset, began, trigger + 1, 0, 0.0, began)
                found.append(onset)
        return found

    def _began(self, column: int, length: int, trigger: int, not_before: int) -> int:
        """The cell at which an event that is raised at the cell `trigger` began: see `onsets.beginning`.

        Never so early that the event is already too long.
        """
        if self._newest is None:
            return trigger
        of_class = self._per_class[column]
        return beginning(
            self._newest,
            column,
            (of_class.onset_threshold, of_class.offset_threshold),
            length,
            trigger,
            max(not_before, trigger - min(BACKDATE_CELLS, self._max_event_cells - 1)),
        )

    def _newest_held(self) -> Floats:
        assert self._newest is not None
        return held(self._newest.scores, self._newest.covered, np.zeros(len(self._classes), np.float32))

    def _begin(self, column: int, cell: int, score: float, began: int) -> Onset:
        """Open an event that was raised at `cell`, and began at `began`."""
        onset = self._onset(column, began, cell, score, early=False)
        ticks, peak = 0, 0.0
        if began < cell:
            assert self._newest is not None
            rows = self._newest_held()[began - self._newest.start : cell - self._newest.start, column]
            ticks, peak = int(np.rint(rows * _TICKS).astype(np.int64).sum()), float(rows.max())
        self._open[column] = _Open(onset, began, cell, ticks, peak, cell)
        return onset

    def _onset(self, column: int, began: int, trigger: int, score: float, *, early: bool) -> Onset:
        return Onset(
            self._new_id(),
            self._stream,
            self._epoch,
            self._classes[column],
            began * CELL,
            trigger * CELL,
            score,
            early=early,
        )

    def _see(self, column: int, cell: int) -> None:
        """Update what is known of an open event by the final posteriors of the cells before `cell`."""
        event = self._open[column]
        if cell > event.seen:
            rows = self._raw[event.seen - self._base : cell - self._base, column]
            event.peak = max(event.peak, float(rows.max()))
            event.ticks += int(self._ticks[cell - self._base, column] - self._ticks[event.seen - self._base, column])
            event.seen = cell

    def _close(self, column: int, cell: int, reason: EndReason) -> Offset:
        self._see(column, cell)
        event = self._open.pop(column)
        # An epoch may end before the cells are decided that raised an event early.
        end = cell if reason == "max_duration" else max(cell, event.until)
        self._ended[column] = end
        heard = cell > event.cell
        return Offset(
            event_id=event.onset.event_id,
            stream=self._stream,
            epoch=self._epoch,
            label=event.onset.label,
            onset=event.onset.onset,
            offset=end * CELL,
            # Ticks are rounded.
            confidence=min(event.ticks / _TICKS / (cell - event.cell), event.peak) if heard else event.onset.score,
            peak=event.peak if heard else event.onset.score,
            end_reason=reason,
        )


def decode_clip(stream: str, scores: Floats, decoding: Decoding) -> list[Offset]:
    """The events of one clip's posteriors (cells, classes), from the same tracker; their duration is not limited."""
    covered = np.ones(len(scores), bool)
    return decode_epoch(
        [CellScores(stream, 0, 0, scores, covered, np.zeros(len(decoding.classes), np.float32), 0, len(scores))],
        decoding,
        NOT_EARLY,
    )


def decode_epoch(runs: Sequence[CellScores], decoding: Decoding, early_threshold: float) -> list[Offset]:
    """The events of one epoch, from the scores of all its runs, in order; their duration is not limited."""
    stream, epoch = runs[0].stream, runs[0].epoch
    ids = count()
    tracker = EventTracker(
        stream,
        epoch,
        decoding,
        max_event_cells=sys.maxsize,
        new_id=lambda: f"{stream}-{next(ids)}",
        early_threshold=early_threshold,
    )
    events = [event for one in runs for event in tracker.push(one)]
    return [event for event in [*events, *tracker.flush("silence")] if isinstance(event, Offset)]
