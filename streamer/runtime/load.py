"""Sheds load while the worker is behind: pictures first, then how often streams are scored. Audio is dropped last, by
their queues."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from streamer.runtime.hop_stretch import HopStretch
from streamer.runtime.lane import Lane
from streamer.runtime.shedding import PictureStride
from streamer.runtime.stopwatch import Stopwatch
from streamer.timeline import seconds
from streamer.types import CELL
from streamer.windows import StreamSettings

log = logging.getLogger(__name__)


class Load:
    """What the worker's time is spent on, and what follows from it for its lanes."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._stride: PictureStride | None = None
        self._picture_stages: frozenset[str] = frozenset()
        self._stretch = HopStretch()
        self._busy_s = 0.0

    def uses_pictures(self, stages: frozenset[str], budget: float) -> None:
        """The modalities `stages` use pictures too; `budget` is the share of the worker's time for pictures."""
        self._picture_stages |= stages
        if self._stride is None and stages:
            self._stride = PictureStride(budget)
        if self._stride is not None:
            self._stride.budget = budget

    def worked(self, busy_s: float) -> None:
        """The worker was busy for so long."""
        self._busy_s += busy_s

    def settings(self, lane: Lane, configured: StreamSettings) -> StreamSettings:
        """A lane's settings: those configured, with a longer hop if it is live and the worker behind."""
        if not lane.intake.live:  # a recording only takes longer
            return configured
        return replace(configured, hop_cells=self._stretch.factor * configured.hop_cells)

    def set_stride(self, lanes: Sequence[Lane]) -> None:
        """Set the picture stride of the lanes. A recording waits for the model instead of losing pictures."""
        if self._stride is None:
            return
        for lane in lanes:
            lane.live_stride = self._stride.stride
            lane.pipeline.picture_stride = lane.live_stride if lane.intake.live else 1

    def shed_pictures(self, now_s: float, late_s: float, lanes: Sequence[Lane], watched: int) -> None:
        """Adapt the picture rate.

        `late_s`: of the live stream furthest behind; `watched`: the number of live streams with pictures.
        """
        stride = self._stride
        if stride is None:
            return
        spent_s = sum(self._stopwatch.spent_s.pop(name, 0.0) for name in self._picture_stages)
        processed = 0.0
        for lane in lanes:
            if lane.pipeline.picture_stride:
                processed += lane.pictures / lane.pipeline.picture_stride
            lane.pictures = 0
        stride.measured(now_s, spent_s, processed)
        before = stride.stride
        after = stride.update(now_s, late_s, watched)
        if after != before:
            log.log(
                logging.WARNING if after == 0 else logging.INFO,
                "pictures: %s (one takes %.0f ms)",
                f"one every {after} cells" if after else "none, the machine is too slow",
                1000 * (stride.cost_s or 0.0),
            )
        self.set_stride(lanes)

    def stretch_hops(
        self, now_s: float, passed_s: float, late_s: float, lanes: Sequence[Lane], configured: StreamSettings
    ) -> None:
        """Adapt the hop of live streams.

        `passed_s`: since the last call; `late_s`: of the live stream furthest behind, 0 if there is none.
        """
        busy, self._busy_s = self._busy_s / passed_s, 0.0
        windows = self._stopwatch.spent_s.pop("detect", 0.0) / passed_s
        most_cells = min((lane.pipeline.most_hop_cells for lane in lanes), default=0)
        before = self._stretch.factor
        after = self._stretch.update(now_s, late_s, busy, windows, most_cells // configured.hop_cells)
        if after != before:
            hop_s = seconds(configured.hop_cells * CELL)
            log.log(
                logging.WARNING if after > before else logging.INFO,
                "live streams: scored every %.2f s%s",
                after * hop_s,
                f" instead of {hop_s:.2f} s, because the machine is too slow" if after > 1 else ", as configured",
            )
