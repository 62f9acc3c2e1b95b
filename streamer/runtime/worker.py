"""The inference thread: owns the core state of all streams and scores their windows in batches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from streamer.detect import Detector
from streamer.networks.backends import use_threads
from streamer.pipeline import StreamPipeline
from streamer.runtime.board import Board
from streamer.runtime.intake import Closed
from streamer.runtime.lane import Lane, Turn
from streamer.runtime.load import Load
from streamer.runtime.metrics import Metrics
from streamer.runtime.model import Model
from streamer.runtime.outbox import Outbox
from streamer.runtime.recent_coverage import RecentCoverage
from streamer.runtime.stopwatch import Stopwatch
from streamer.runtime.turns import RecordingTurns, urgent
from streamer.sinks.compose import offset_message, onset_message, scores_message, tags_message
from streamer.timeline import seconds
from streamer.types import CELL, CellScores, Offset, Onset, Window
from streamer.windows import Coverage, StreamSettings

log = logging.getLogger(__name__)

_TICK_S = 0.5
_IDLE_S = 0.1
_RECORDINGS_S = 0.1
"""How long recordings may take turns before it is the live streams' turn again."""
_SLACK_S = 2.0
"""How much longer than a hop may pass before media that is due and not scored counts as missing coverage."""
_LAST_WORK_S = 1.0
"""How long the worker may keep emptying the queues after it was asked to stop."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects and settings that the worker uses."""

    lanes: Sequence[Lane]
    stopwatch: Stopwatch
    load: Load
    board: Board
    metrics: Metrics
    outbox: Outbox
    settings: StreamSettings  # of all streams; the hop of live ones is stretched while the machine is too slow
    threads: int  # of the networks
    with_tags: bool  # publish each window's tags
    with_scores: bool  # publish each cell's scores


@dataclass(frozen=True, slots=True)
class Change:
    """What a reload changes in the worker, applied between two turns."""

    add: Sequence[Lane]
    remove: Collection[str]  # streams to remove: their epochs end, and their open events are closed
    stall_s: Mapping[str, float]  # of each stream of the new plan
    settings: StreamSettings
    adopt: Mapping[str, Callable[[int], StreamPipeline]]  # stream -> makes its pipeline of `model` from an epoch on
    model: Model
    at_once: Collection[str]  # of these, those that change without reconnecting; others wait for their new reader
    picture_budget: float
    threads: int
    with_tags: bool
    with_scores: bool
    done: Callable[[], None]


class Worker(threading.Thread):
    """Takes media from all streams in turn, scores the windows that are due as one batch, and queues the messages.

    An unexpected exception is passed to `crashed`, and the thread ends.
    """

    def __init__(
        self,
        parts: Parts,
        clock_s: Callable[[], float],
        wake: threading.Event,
        crashed: Callable[[BaseException], None],
    ) -> None:
        """`clock_s` is monotonic; `wake` is set whenever media is queued."""
        super().__init__(name="worker", daemon=True)
        self._parts = parts
        self._clock_s = clock_s
        self._wake = wake
        self._crashed = crashed
        self._stop_asked = threading.Event()
        self._change: Change | None = None
        self._next: dict[str, tuple[Model, Callable[[int], StreamPipeline]]] = {}
        self._coverage = {lane.name: RecentCoverage() for lane in parts.lanes}
        self._counted: dict[str, Coverage] = {}
        self._recording_turns = RecordingTurns()
        self._next_recording = 0
        self._ticked_s = clock_s()
        self.beat_s = clock_s()
        """When the thread last began a step (monotonic seconds)."""

    def run(self) -> None:
        """Work until asked to stop, then end every epoch with `shutdown`."""
        try:
            use_threads(self._parts.threads)
            while not self._stop_asked.is_set():
                if not self.step():
                    self._wake.wait(_IDLE_S)
                    self._wake.clear()
            until_s = self._clock_s() + _LAST_WORK_S
            while self._clock_s() < until_s and self.step():
                pass
            self._score([(lane, lane.shut_down("shutdown")) for lane in self._parts.lanes])
        except BaseException as error:
            self._crashed(error)

    def stop(self) -> None:
        """Ask the thread to end; returns at once."""
        self._stop_asked.set()
        self._wake.set()

    def ask(self, change: Change) -> None:
        """Apply `change` before the next turn, then call its `done`. Returns at once. Any earlier one must be done."""
        self._change = change
        self._wake.set()

    def step(self) -> bool:
        """Give every live stream a turn, then recordings; False if there was nothing to do."""
        change, self._change = self._change, None
        if change is not None:
            self._apply(change)
        self.beat_s = now_s = self._clock_s()
        if now_s - self._ticked_s >= _TICK_S:
            self._tick(now_s)
        live = [lane for lane in self._parts.lanes if lane.intake.live]
        first = urgent(live, lambda lane: lane.intake.late_s(), lambda lane: len(lane.intake) > 0)
        turns = [(lane, turn) for lane in first if (turn := lane.turn(self._clock_s())) is not None]
        self._score(turns)
        worked = self._recordings(with_live=bool(live)) or bool(turns)
        if worked:
            self._parts.load.worked(self._clock_s() - now_s)
        return worked

    def _recordings(self, *, with_live: bool) -> bool:
        """Give recordings turns if live streams are not late; False if there was nothing to do."""
        recordings = [lane for lane in self._parts.lanes if not lane.intake.live]
        began_s = self._clock_s()
        if not recordings or not self._recording_turns.may_begin(began_s, self._late_s()):
            return False
        turns: list[tuple[Lane, Turn]] = []
        for _ in recordings:
            self._next_recording += 1
            lane = recordings[self._next_recording % len(recordings)]
            turn = lane.turn(self._clock_s())
            if turn is not None:
                turns.append((lane, turn))
            if with_live and self._clock_s() - began_s >= _RECORDINGS_S:
                break
        self._score(turns)
        if turns:
            self._recording_turns.ended(began_s, self._clock_s())
        return bool(turns)

    def _late_s(self) -> float:
        """How late the media is of the live stream that is furthest behind."""
        return max((lane.intake.late_s() for lane in self._parts.lanes if lane.intake.live), default=0.0)

    def _score(self, turns: Sequence[tuple[Lane, Turn]]) -> None:
        """Score the windows of all turns, one batch for each model, and publish each stream's results."""
        by_detector: dict[Detector, list[tuple[Lane, Turn]]] = {}
        for lane, turn in turns:
            by_detector.setdefault(lane.model.detector, []).append((lane, turn))
        for detector, its_turns in by_detector.items():
            self._score_with(detector, its_turns)

    def _score_with(self, detector: Detector, turns: Sequence[tuple[Lane, Turn]]) -> None:
        due: list[Window] = [window for _, turn in turns for window in turn.windows]
        scores: list[CellScores] = []
        if due:
            self._parts.metrics.batch(len(due))
            with self._parts.stopwatch.stage("detect"):
                scores = detector.scores(due)
        begin = 0
        for lane, turn in turns:
            end = begin + len(turn.windows)
            if turn.drain:
                self._publish(lane, scores[begin:end], alive=not turn.stalled)
            begin = end
            if turn.stalled:
                log.warning("%s: media has stopped arriving; closing its open events", lane.name)
                self._parts.board.stalled(lane.name, "connected, but no media arrives")
            if turn.closed is not None and turn.closed.final:
                self._finished(lane, turn.closed)
            if turn.ready and lane.name in self._next:
                self._adopt(lane)

    def _publish(self, lane: Lane, scores: Sequence[CellScores], *, alive: bool) -> None:
        """Queue the messages that follow from a stream's scores. `alive`: they come from media, not from a timer."""
        parts = self._parts
        cells = 0
        for timed in lane.pipeline.drain(scores):
            output, timeline = timed.output, timed.timeline
            match output:
                case CellScores():
                    count = len(output.scores)
                    cells += count
                    covered_s = seconds(int(output.covered.sum()) * CELL)
                    self._coverage[lane.name].push(self._clock_s(), seconds(count * CELL), covered_s)
                    parts.board.scored(lane.name, lane.connection if alive else 0, output.epoch)
                    if parts.with_tags:
                        parts.outbox.put(tags_message(output, lane.model.bundle.classes, timeline))
                    if parts.with_scores:
                        parts.outbox.put(scores_message(output, lane.model.bundle.classes, timeline))
                case Onset():
                    message = onset_message(output, timeline, timed.level)
                    parts.outbox.put(message, timeline.arrival_utc_s(output.onset), timed.evidence)
                case Offset():
                    parts.outbox.put(offset_message(output, timeline, timed.level), evidence=timed.evidence)
        if cells:
            parts.metrics.scored(lane.name, cells)

    def _finished(self, lane: Lane, closed: Closed) -> None:
        if closed.failed:
            self._parts.board.finished(lane.name, "failed", closed.reason, closed.message)
        else:
            self._parts.board.finished(lane.name, "ended", "", closed.message)

    def _apply(self, change: Change) -> None:
        parts = self._parts
        removed = [lane for lane in parts.lanes if lane.name in change.remove]
        self._score([(lane, lane.shut_down("reload")) for lane in removed])
        for lane in removed:
            self._count_missed(lane)
            del self._coverage[lane.name]
            self._counted.pop(lane.name, None)
            self._next.pop(lane.name, None)
        staying = [lane for lane in parts.lanes if lane.name not in change.remove]
        for lane in staying:
            lane.stall_s = change.stall_s.get(lane.name, lane.stall_s)
        parts.load.uses_pictures(change.model.picture_stages, change.picture_budget)
        self._coverage.update({lane.name: RecentCoverage() for lane in change.add})
        self._parts = replace(
            parts,
            lanes=[*staying, *change.add],
            settings=change.settings,
            threads=change.threads,
            with_tags=change.with_tags,
            with_scores=change.with_scores,
        )
        for lane in staying:
            if lane.name not in self._next:
                self._retune(lane)
        parts.load.set_stride(self._parts.lanes)
        use_threads(change.threads)
        self._next.update({name: (change.model, pipeline) for name, pipeline in change.adopt.items()})
        self._score([(lane, lane.make_ready()) for lane in staying if lane.name in change.at_once])
        change.done()

    def _adopt(self, lane: Lane) -> None:
        model, new_pipeline = self._next.pop(lane.name)
        self._count_missed(lane)
        self._counted.pop(lane.name)  # the new pipeline counts from 0
        lane.adopt(model, new_pipeline(lane.pipeline.epoch))
        self._retune(lane)  # another reload may have followed

    def _tick(self, now_s: float) -> None:
        """Periodic work: update lag and coverage, and shed load if the worker is behind."""
        passed_s, self._ticked_s = now_s - self._ticked_s, now_s
        views = {view.name: view for view in self._parts.board.views()}
        live = [lane for lane in self._parts.lanes if lane.intake.live and views[lane.name].opened_s is not None]
        late_s = self._recording_turns.own_late_s(self._late_s())
        load, lanes = self._parts.load, self._parts.lanes
        load.shed_pictures(now_s, late_s, lanes, watched=sum(lane.has_video for lane in live))
        load.stretch_hops(now_s, passed_s, late_s, lanes, self._parts.settings)
        for lane in lanes:
            self._retune(lane)
            view = views[lane.name]
            lost = view.state in ("backoff", "stalled") or (view.state == "connecting" and view.opened_s is None)
            if view.live and lost:  # not before the first connection or the first scored cell
                self._coverage[lane.name].push(now_s, passed_s, 0.0)
            lag_s = lane.intake.age_s() if lane.intake.live else 0.0
            pipeline = lane.pipeline
            hop_cells = pipeline.settings.hop_cells
            slack_s = lane.intake.patience_s + seconds(hop_cells * CELL) + _SLACK_S
            coverage = self._coverage[lane.name].ratio(now_s, slack_s if lane.intake.live else None)
            stretch = hop_cells // self._parts.settings.hop_cells
            self._count_missed(lane)
            self._parts.board.progress(lane.name, lag_s, coverage, pipeline.picture_stride, stretch, pipeline.clock)

    def _count_missed(self, lane: Lane) -> None:
        now, before = lane.pipeline.coverage, self._counted.get(lane.name)
        self._counted[lane.name] = now
        for name, masked in now.masked.items():
            late = now.late_dropped.get(name, 0)
            if before is not None:
                masked, late = masked - before.masked.get(name, 0), late - before.late_dropped.get(name, 0)
            self._parts.metrics.missed(lane.name, name, masked, late)

    def _retune(self, lane: Lane) -> None:
        """Set the lane's settings, with the hop of this moment if it is live."""
        settings = self._parts.load.settings(lane, self._parts.settings)
        if lane.pipeline.settings != settings:
            lane.pipeline.retune(settings)
