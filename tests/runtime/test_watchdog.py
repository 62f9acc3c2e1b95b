"""The watchdog with real readers on sources that hang; only its clock is faked."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from streamer.address import Address
from streamer.media.source import MediaOptions
from streamer.runtime.backoff import Backoff, BackoffLimits
from streamer.runtime.board import Board, StreamView
from streamer.runtime.intake import Closed, Intake
from streamer.runtime.metrics import Metrics
from streamer.runtime.reader import Reader, Source
from streamer.runtime.watchdog import Watchdog
from streamer.types import SAMPLE_RATE_HZ, Want
from tests.hanging import hanging_playlist
from tests.make_media import make_clip
from tests.models import bursts

PATIENCE_S = 20.0
OPEN_S = 10.0


class Stream:
    """A watched stream on a fake clock; reader, queue and board are real."""

    def __init__(self, url: str, *, realtime: bool = False) -> None:
        self.now_s = 1000.0
        options = MediaOptions(open_timeout_s=OPEN_S, read_timeout_s=60.0)
        source = Source("cam", Address.parse(url), options, loop=False, realtime=realtime, reconnect=True)
        self.metrics = Metrics("0", "seeded", ["cam"], ["Dog"])
        self.board = Board([StreamView("cam", url)], self.metrics, lambda: self.now_s)
        self.intake = Intake(
            limit_s=1.0,
            picture_limit=10,
            clock_s=lambda: self.now_s,
            dropped=lambda reason, count: None,
            wake=lambda: None,
        )
        self.readers: list[Reader] = []

        def new_reader(*, connection: int, first: Closed | None) -> Reader:
            reader = Reader(
                source,
                Want(frozenset({SAMPLE_RATE_HZ})),
                self.intake,
                self.board,
                self.metrics,
                Backoff(BackoffLimits(0.05, 0.05, 1.0, 0.05, 0.05), lambda low, high: high),
                lambda error: pytest.fail(repr(error)),
                connection=connection,
                first=first,
            )
            self.readers.append(reader)
            return reader

        self.watchdog = Watchdog(source, PATIENCE_S, self.intake, self.board, self.metrics, new_reader)

    def until(self, condition: Callable[[], object]) -> None:
        end_s = time.monotonic() + 10.0
        while not condition():
            assert time.monotonic() < end_s, "waited in vain"
            time.sleep(0.01)

    def check(self, after_s: float) -> None:
        self.now_s += after_s
        self.watchdog.check(self.now_s)

    def abandoned(self) -> float | None:
        registry: CollectorRegistry = self.metrics.registry
        return registry.get_sample_value("earwitness_readers_abandoned_total", {"stream": "cam"})


@contextmanager
def watched(url: str, *, realtime: bool = False) -> Iterator[Stream]:
    stream = Stream(url, realtime=realtime)
    stream.watchdog.reader.start()
    try:
        yield stream
    finally:
        stream.intake.attach()
        for reader in stream.readers:
            reader.stop()


def test_a_reader_that_hangs_beyond_an_interrupt_is_replaced_and_counted(tmp_path: Path) -> None:
    with hanging_playlist(tmp_path) as url, watched(str(url), realtime=True) as stream:
        stream.until(lambda: stream.watchdog.reader.tries == 1)
        time.sleep(0.3)  # it hangs by now, and does not notice a cut
        stream.check(after_s=PATIENCE_S + 2 * OPEN_S - 0.1)
        stream.check(after_s=60.0)  # cut only here, so the grace period begins now
        assert stream.watchdog.reader is stream.readers[0]
        time.sleep(0.3)
        stream.check(after_s=4.9)
        assert stream.watchdog.abandoned == 0
        stream.check(after_s=0.1)
        assert stream.watchdog.abandoned == 1
        assert stream.abandoned() == 1
        assert stream.watchdog.reader is stream.readers[1]
        # The new reader ends the old one's epoch before it opens the source.
        stream.until(lambda: len(stream.intake))
        closed = stream.intake.take()
        assert isinstance(closed, Closed)
        assert (closed.reason, closed.end) == ("watchdog", "gap")
        stream.until(lambda: stream.watchdog.reader.tries == 1)


def test_a_reader_that_notices_the_cut_stays() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts the connection, sends nothing
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x"
        with watched(url) as stream:
            stream.until(lambda: stream.board.view("cam").began_s is not None)
            stream.check(after_s=PATIENCE_S + 2 * OPEN_S)
            stream.until(lambda: stream.watchdog.reader.tries > 1)
            stream.check(after_s=5.0)
            assert stream.watchdog.abandoned == 0
            assert stream.readers == [stream.watchdog.reader]
            assert stream.board.view("cam").reconnects >= 1


def test_a_file_that_waits_for_the_model_is_left_alone(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "long.wav", audio="pcm", rate_hz=SAMPLE_RATE_HZ, samples=bursts(10.0))
    with watched(str(clip)) as stream:
        stream.until(lambda: stream.board.view("cam").opened_s is not None and len(stream.intake) > 3)
        stream.check(after_s=10_000.0)
        stream.check(after_s=10_000.0)
        assert stream.watchdog.reader.tries == 1
        assert stream.watchdog.abandoned == 0
        assert stream.board.view("cam").state == "connecting"


def test_an_ended_source_is_left_alone(tmp_path: Path) -> None:
    missing = tmp_path / "gone.wav"
    with watched(str(missing)) as stream:
        stream.watchdog.reader.join(5.0)
        stream.check(after_s=10_000.0)
        stream.check(after_s=10_000.0)
        assert stream.watchdog.abandoned == 0
        assert stream.readers == [stream.watchdog.reader]
