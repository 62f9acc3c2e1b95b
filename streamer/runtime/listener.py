"""Reports the audio of a connection: its level, whether it holds any sound, and what was damaged."""

from __future__ import annotations

import logging

from streamer.media.level import InputWatch
from streamer.runtime.board import Board
from streamer.runtime.metrics import Metrics
from streamer.runtime.sources import OpenMedia

log = logging.getLogger(__name__)


class Listener:
    """Observes one connection's media, about once a second, and updates board, metrics and log."""

    def __init__(self, name: str, media: OpenMedia, board: Board, metrics: Metrics) -> None:
        self._name = name
        self._media = media
        self._board = board
        self._metrics = metrics
        self._watch = InputWatch()
        self._counted = (0, 0, 0)

    @property
    def news(self) -> bool:
        """Whether it is time to `look`."""
        return self._media.ear.has_levels or self._counts() != self._counted or self._clock_is_news

    def look(self) -> None:
        """Report what is new."""
        counts, before = self._counts(), self._counted
        self._counted = counts
        self._metrics.damaged(self._name, *(now - then for now, then in zip(counts, before, strict=True)))
        if self._clock_is_news:
            log.warning("%s: %s", self._name, self._media.clock_fault)
            self._board.disbelieved(self._name, self._media.clock_fault)
        for level in self._media.ear.take_levels():
            first, state = self._watch.level is None, self._watch.state
            self._watch.push(level)
            if first:
                log.info("%s: level %.0f dBFS, peak %.0f dBFS", self._name, level.rms_dbfs, level.peak_dbfs)
            if self._watch.state != state:
                self._changed(state == "unknown")
            self._board.heard(self._name, level, self._watch.state, self._watch.detail)

    def _changed(self, first: bool) -> None:
        if self._watch.detail:
            log.warning("%s: %s", self._name, self._watch.detail)
        elif not first:
            log.info("%s: there is sound again", self._name)

    @property
    def _clock_is_news(self) -> bool:
        # Once per connection: the text changes with every report of the clock.
        return bool(self._media.clock_fault) and not self._board.view(self._name).clock_fault

    def _counts(self) -> tuple[int, int, int]:
        return self._media.corrupt_packets, self._media.overlap_samples, self._media.stray_pictures
