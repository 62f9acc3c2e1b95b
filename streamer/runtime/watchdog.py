"""Watches one stream's reader: cuts a connection that yields nothing, replaces a reader that hangs."""

from __future__ import annotations

import logging
from typing import Protocol

from streamer.runtime.board import Board
from streamer.runtime.intake import Closed, Intake
from streamer.runtime.metrics import Metrics
from streamer.runtime.reader import Reader, Source

log = logging.getLogger(__name__)

_CUT_GRACE_S = 5.0
"""How long a reader may take to notice that its connection was cut; after that it is abandoned."""


class NewReader(Protocol):
    """Creates a reader of the stream without starting it; see `Reader`."""

    def __call__(self, *, connection: int, first: Closed | None) -> Reader:
        """`connection` is the number of the latest connection; `first` is queued before everything else."""


class Watchdog:
    """Owns one stream's reader. Liveness is measured at the last stage, by the cells that were scored.

    PyAV can hang where neither its timeouts nor an interrupt reach it. Such a thread can't be ended, so it is
    abandoned: the queue refuses whatever it puts from then on.
    """

    def __init__(
        self,
        source: Source,
        patience_s: float,
        intake: Intake,
        board: Board,
        metrics: Metrics,
        new_reader: NewReader,
    ) -> None:
        """A connection that yields no scored cell for `patience_s` seconds is cut."""
        self._source = source
        self.patience_s = patience_s
        """Seconds after which a connection of which nothing has come out is cut; may be changed at any time."""
        self._intake = intake
        self._board = board
        self._metrics = metrics
        self._new_reader = new_reader
        self._cut_s: float | None = None
        self._cut_try = 0  # the reader's attempt that was cut
        self._leaving: Reader | None = None
        self._left_s = 0.0
        self.reader = new_reader(connection=0, first=None)
        self.abandoned = 0
        """Readers that were abandoned."""

    @property
    def readers(self) -> list[Reader]:
        """The stream's reader, and the one before it while that has yet to end."""
        return [self.reader, *([self._leaving] if self._leaving else [])]

    def change(self, source: Source, new_reader: NewReader, now_s: float) -> None:
        """Read `source` from now on; what the reader so far has queued is used, and then its epoch ends.

        The new reader begins when the one before it has let go of its source, which may be the same device.
        """
        if self.reader.is_alive():
            self.reader.stop()
            self._leaving, self._left_s = self.reader, now_s
        self._source, self._new_reader, self._cut_s = source, new_reader, None
        self._intake.goes_on()
        closed = Closed("reload", "its settings have changed", "reload", final=False, failed=False)
        self.reader = new_reader(connection=self.reader.connection, first=closed)
        self._begin_when_free(now_s)

    def _begin_when_free(self, now_s: float) -> None:
        leaving = self._leaving
        if leaving is not None and leaving.is_alive():
            if now_s - self._left_s < _CUT_GRACE_S:
                return
            self._abandon()
        self._leaving = None
        self.reader.start()

    def check(self, now_s: float) -> None:
        """Cut or replace the reader if that is due; `now_s` is monotonic."""
        if self._leaving is not None:
            self._begin_when_free(now_s)
        reader, view = self.reader, self._board.view(self._source.name)
        if self._cut_s is not None:
            if reader.tries != self._cut_try or view.state == "backoff" or not reader.is_alive():
                self._cut_s = None  # it noticed
            elif now_s - self._cut_s >= _CUT_GRACE_S:
                self._replace()
            return
        if not reader.is_alive() or view.state not in ("connecting", "streaming", "stalled"):
            return
        if view.live is False and len(self._intake):
            return  # a recording's reader waits for the worker, as it should
        patience_s = self.patience_s + self._intake.patience_s
        if view.opened_s is not None:
            seen_s = max(view.opened_s, view.scored_s or 0.0)
        elif (self._source.realtime or reader.returns) and view.began_s is not None:
            seen_s = view.began_s
            patience_s += 2 * self._source.options.open_timeout_s  # FFmpeg takes up to twice its timeout
        else:
            return
        if now_s - seen_s >= patience_s:
            log.warning(
                "%s: nothing was processed for %.0f s; cutting the connection", self._source.name, now_s - seen_s
            )
            self._cut_s, self._cut_try = now_s, reader.tries
            reader.cut()

    def _replace(self) -> None:
        self._abandon()
        self.reader.stop()
        self._cut_s = None
        closed = Closed("watchdog", "the reader hung", "gap", final=False, failed=True)
        self.reader = self._new_reader(connection=self.reader.connection, first=closed)
        self.reader.start()

    def _abandon(self) -> None:
        log.error("%s: its reader hangs and is left behind; a new one takes its place", self._source.name)
        self.abandoned += 1
        self._metrics.abandoned(self._source.name)
