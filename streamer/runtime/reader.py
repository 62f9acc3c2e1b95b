"""The reader thread of one source: opens it, decodes, queues its media, and reconnects when the connection is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.liveness import carrier_of, comes_back
from streamer.media.pace import Arrival
from streamer.media.source import Interrupt, MediaOptions, open_media
from streamer.media.tracks import AudioInput
from streamer.runtime.backoff import Backoff
from streamer.runtime.board import Board
from streamer.runtime.intake import Closed, Intake, Opened
from streamer.runtime.listener import Listener
from streamer.runtime.metrics import Metrics
from streamer.runtime.sources import MediaOpener, OpenMedia
from streamer.types import SAMPLE_RATE_HZ, Anchor, Chunk, Discontinuity, MediaItem, Picture, Want

log = logging.getLogger(__name__)

_ANCHOR_EVERY_S = 1.0
_CAUGHT_UP_S = 0.5
"""A burst is over, and its length known, once its lead falls below this."""
_BURST_S = 2.0
"""Only longer bursts are logged."""


@dataclass(frozen=True, slots=True)
class Source:
    """One source and how to read it."""

    name: str
    address: Address
    options: MediaOptions
    loop: bool  # start a file again at its end
    realtime: bool  # read a file in real time, as if it were live
    reconnect: bool  # retry a live source that was lost

    def comes_back(self) -> bool:
        """Whether to retry it if it has never been opened; once open, `Media` decides."""
        return comes_back(carrier_of(self.address, self.options.format))


class Reader(threading.Thread):
    """Reads `source` until it is asked to `stop`, has ended for good, or has been replaced.

    A replaced reader may return from a call that hung. It must not write about a stream that now belongs to another
    reader, so all its writes go through `Intake.when_attached` or `Intake.put`.
    An unexpected exception is passed to `crashed`, and the thread ends.
    """

    def __init__(
        self,
        source: Source,
        want: Want,
        intake: Intake,
        board: Board,
        metrics: Metrics,
        backoff: Backoff,
        crashed: Callable[[BaseException], None],
        *,
        connection: int = 0,
        first: Closed | None = None,
        open_source: MediaOpener = open_media,
    ) -> None:
        """Attaches to `intake` at once, which refuses earlier readers from then on.

        `connection` is the number of the latest connection so far. `first` is queued before everything else: it ends
        the epoch of the reader that this one replaces, and the usual wait follows.
        """
        super().__init__(name=f"reader-{source.name}", daemon=True)
        self._source = source
        self._want = want
        self._intake = intake
        self._board = board
        self._metrics = metrics
        self._backoff = backoff
        self._crashed = crashed
        self._first = first
        self._open_source = open_source
        self._stop_asked = threading.Event()
        self._lock = threading.Lock()
        self._interrupt: Interrupt | None = None
        self._cut = False
        self._live: bool | None = None  # None: it has never been opened
        self._logged_burst_s = _BURST_S
        self._generation = intake.attach()
        self.connection = connection
        """Number of the latest connection that was opened."""
        self.returns = False
        """Whether it is retried if it was never open. Found out in this thread: a dead network drive hangs who asks."""
        self.tries = 0
        """Attempts to connect, successful or not."""

    def run(self) -> None:
        """Connect, read and wait, in a loop."""
        try:
            closed, healthy_s = (self._first, 0.0) if self._first else self._session()
            while self._report(closed, healthy_s):
                closed, healthy_s = self._session()
        except BaseException as error:
            self._crashed(error)

    def stop(self) -> None:
        """Ask the thread to end and interrupt a blocking call; returns at once."""
        self._stop_asked.set()
        with self._lock:
            if self._interrupt is not None:
                self._interrupt.set()

    def cut(self) -> None:
        """Interrupt the current connection or attempt; another follows. May be called from any thread."""
        with self._lock:
            if self._interrupt is not None:
                self._cut = True
                self._interrupt.set()

    def _report(self, closed: Closed, healthy_s: float) -> bool:
        """Report that a connection was lost and wait until the next one is due; False if there will be none."""
        if self._stop_asked.is_set():
            return False
        wait_s = 0.0

        def report() -> None:
            nonlocal wait_s
            name = self._source.name
            if closed.final:
                level = logging.ERROR if closed.failed else logging.INFO
                log.log(level, "%s: %s", name, closed.message)
            elif closed.failed:
                refused = closed.reason == "auth"
                wait_s = self._backoff.lost(healthy_s, refused=refused)
                detail = closed.message
                if refused:
                    times = f"{self._backoff.refusals} times in a row" if self._backoff.refusals > 1 else "once"
                    detail += f"; refused {times}, retried rarely because cameras lock accounts"
                self._board.lost(name, closed.reason, f"{detail}; next try in {wait_s:.0f} s" if refused else detail)
                log.warning("%s: %s; next try in %.1f s", name, detail, wait_s)

        if not self._intake.when_attached(self._generation, report):
            return False
        if not self._intake.put(closed, self._generation) or closed.final:
            return False
        return not self._stop_asked.wait(wait_s)

    def _session(self) -> tuple[Closed, float]:
        """One connection, from opening to loss; returns why it ended and for how many seconds it delivered media."""
        source = self._source
        delivered = _Delivered()
        with self._lock:
            self.tries += 1
            self._interrupt = interrupt = Interrupt()
            self._cut = False
            if self._stop_asked.is_set():
                interrupt.set()
        self._intake.when_attached(self._generation, lambda: self._board.connecting(source.name))
        self.returns = source.comes_back()
        try:
            with self._open_source(source.address, self._want, source.options, interrupt=interrupt) as media:
                self._live = media.live
                opened = Opened(
                    self.connection + 1, media.has_audio, media.has_video, live=media.live or source.realtime
                )
                if self._intake.when_attached(self._generation, lambda: self._opened(opened, media.audio)):
                    listener = Listener(source.name, media, self._board, self._metrics)
                    try:
                        self._read(media, delivered, listener)
                    finally:
                        self._intake.when_attached(self._generation, listener.look)
        except SourceError as error:
            return self._lost(error.reason, str(error)), delivered.seconds
        # A source that can't be rewound ends, even with `loop`.
        loop = source.loop and media.rewinds
        return Closed("eof", "reached its end", "silence", final=not loop, failed=False), delivered.seconds

    def _opened(self, opened: Opened, audio: AudioInput | None) -> None:
        """Report a new connection to board, worker and log."""
        self.connection = opened.connection
        tracks = {"has_audio": opened.has_audio, "has_video": opened.has_video}
        self._board.opened(self._source.name, opened.connection, live=opened.live, audio=audio, **tracks)
        self._intake.put(opened, self._generation)
        sound = None if audio is None else f"audio: {audio}"
        has = "; ".join(filter(None, (sound, "video" if opened.has_video else None)))
        log.info("%s: connected (%s; %s)", self._source.name, has, "live" if self._live else "a recording")

    def _lost(self, reason: str, message: str) -> Closed:
        hung = reason == "timeout"  # that says nothing of what it is: it is tried again
        if self._cut:
            reason, message = "watchdog", "cut because nothing was processed"
        live = self._live if self._live is not None else self.returns or hung
        final = not (live and self._source.reconnect)
        return Closed(reason, " ".join(message.split()), "gap", final=final, failed=True)

    def _read(self, media: OpenMedia, delivered: _Delivered, listener: Listener) -> None:
        items = _timed(media, self._metrics)
        if self._source.realtime:
            items = _paced(items, self._stop_asked)
        for item in items:
            if self._stop_asked.is_set():
                return
            arrival = media.arrival
            if not self._intake.put(item, self._generation, arrival):
                return
            if listener.news:
                self._intake.when_attached(self._generation, listener.look)
            if isinstance(item, Chunk):
                delivered.mark()
                # The same audio is queued at each rate: count it once.
                if item.rate_hz == min(self._want.rates_hz):
                    self._metrics.decoded(self._source.name, len(item.samples) / item.rate_hz, 0)
            elif isinstance(item, Picture):
                delivered.mark()
                self._metrics.decoded(self._source.name, 0.0, 1)
            self._log_bursts(arrival)

    def _log_bursts(self, arrival: Arrival) -> None:
        """Log once, and again if bursts get much longer, that the time limits for silence are extended."""
        if arrival.lead_s < _CAUGHT_UP_S and arrival.patience_s >= 2 * self._logged_burst_s:
            self._logged_burst_s = arrival.patience_s
            log.info(
                "%s: media comes in bursts; the time limits for silence are %.0f s longer than configured",
                self._source.name,
                arrival.patience_s,
            )


class _Delivered:
    """Measures the seconds from a connection's first media to its latest; silence after that does not count."""

    def __init__(self) -> None:
        self._first_s: float | None = None
        self.seconds = 0.0

    def mark(self) -> None:
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
        self.seconds = now_s - self._first_s


def _timed(media: OpenMedia, metrics: Metrics) -> Iterator[MediaItem]:
    """Yield the media and time its decoding, in processor time because a live source mostly waits for the network."""
    items = iter(media)
    while True:
        began_s = time.thread_time()
        try:
            item = next(items)
        except StopIteration:
            return
        metrics.stage("decode", time.thread_time() - began_s + media.other_process_s)
        yield item


def _paced(items: Iterator[MediaItem], stop: threading.Event) -> Iterator[MediaItem]:
    """Yield a file's items in real time, with arrival times, as a camera would deliver them.

    Audio is due at its last sample, a picture at its position.
    """
    zero_s: float | None = None  # monotonic time of the epoch's position 0
    anchored_s = 0.0
    for item in items:
        if isinstance(item, Discontinuity):
            zero_s = None
        if isinstance(item, (Chunk, Picture)):
            at_s = item.end / item.rate_hz if isinstance(item, Chunk) else item.at / SAMPLE_RATE_HZ
            now_s = time.monotonic()
            if zero_s is None:
                zero_s = now_s
                anchored_s = -_ANCHOR_EVERY_S
            wait_s = zero_s + at_s - now_s
            if wait_s > 0 and stop.wait(wait_s):
                return
            if at_s - anchored_s >= _ANCHOR_EVERY_S:
                anchored_s = at_s
                yield Anchor(round(at_s * SAMPLE_RATE_HZ), time.time(), "arrival")
        yield item
