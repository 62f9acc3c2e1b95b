"""The reader thread on real sources: it connects, counts, reconnects, ends, stops, and is silent once replaced."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from streamer.address import Address
from streamer.media.source import MediaOptions
from streamer.runtime.backoff import Backoff, BackoffLimits
from streamer.runtime.board import Board, StreamView
from streamer.runtime.intake import Closed, Intake, Item, Opened
from streamer.runtime.metrics import Metrics
from streamer.runtime.reader import Reader, Source
from streamer.types import Chunk, Want
from tests.make_media import make_clip, tone
from tests.rtsp import RtspServer, free_port, needs_rtsp
from tests.send import serving

RATES_HZ = frozenset({22_100, 16_000})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    return make_clip(folder / "clip.ts", audio="aac", rate_hz=48_000, samples=tone(3, 48_000))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(
        tmp_path_factory.mktemp("film") / "film.mkv", audio="opus", rate_hz=48_000, samples=tone(8, 48_000)
    )


class Stream:
    """The queue, board and metrics of one stream, and its readers; everything they put is taken at once."""

    def __init__(self) -> None:
        self.metrics = Metrics("0", "seeded", ["cam"], ["Dog"])
        self.board = Board([StreamView("cam", "shown")], self.metrics, time.monotonic)
        self.drops: list[str] = []
        self.items: list[Item] = []
        self.waits: list[float] = []
        self.intake = Intake(
            limit_s=5.0,
            picture_limit=75,
            clock_s=time.monotonic,
            dropped=lambda reason, count: self.drops.append(reason),
            wake=lambda: None,
        )
        self.backoff = Backoff(BackoffLimits(0.1, 0.8, 30.0, 0.1, 0.8), self._jitter)
        self.crashes: list[BaseException] = []
        self._readers: list[Reader] = []
        self._done = threading.Event()
        self._taker = threading.Thread(target=self._take)
        self._taker.start()

    def _jitter(self, low_s: float, high_s: float) -> float:
        self.waits.append(high_s)
        return high_s

    def _take(self) -> None:
        while not self._done.wait(0.005):
            while (item := self.intake.take()) is not None:
                self.items.append(item)

    def read(
        self,
        url: str | Path,
        *,
        loop: bool = False,
        reconnect: bool = True,
        first: Closed | None = None,
        connection: int = 0,
        timeout_s: float = 5.0,
    ) -> Reader:
        """A running reader of `url`."""
        options = MediaOptions(open_timeout_s=timeout_s, read_timeout_s=timeout_s)
        source = Source("cam", Address.parse(str(url)), options, loop=loop, realtime=False, reconnect=reconnect)
        reader = Reader(
            source,
            Want(RATES_HZ),
            self.intake,
            self.board,
            self.metrics,
            self.backoff,
            self.crashes.append,
            connection=connection,
            first=first,
        )
        self._readers.append(reader)
        reader.start()
        return reader

    def until(self, condition: Callable[[], object], limit_s: float = 20.0) -> None:
        end_s = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end_s, (self.items[-3:], self.board.view("cam"), self.crashes)
            time.sleep(0.01)

    def of(self, kind: type[Opened] | type[Closed]) -> list[Any]:
        return [item for item in self.items if isinstance(item, kind)]

    def seconds(self) -> float:
        """Seconds of audio that were taken."""
        return sum(len(one.samples) for one in self.items if isinstance(one, Chunk) and one.rate_hz == 22_100) / 22_100

    def decoded_s(self) -> float:
        value = self.metrics.registry.get_sample_value("earwitness_decoded_audio_seconds_total", {"stream": "cam"})
        assert value is not None
        return value

    def close(self) -> None:
        for reader in self._readers:
            reader.stop()
        self.intake.attach()
        for reader in self._readers:
            reader.join(10)
            assert not reader.is_alive()
        self._done.set()
        self._taker.join(10)
        assert self.crashes == []


@pytest.fixture
def stream() -> Iterator[Stream]:
    one = Stream()
    try:
        yield one
    finally:
        one.close()


@contextmanager
def late_server(clip: Path, answer: threading.Event) -> Iterator[str]:
    """The URL of a live HTTP stream whose server accepts the connection at once and answers on request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer.wait(30)
            with suppress(OSError):
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                for _ in range(20):
                    self.wfile.write(clip.read_bytes())
                    time.sleep(0.2)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with serving(Handler) as base:
        yield f"{base}/late"


def test_a_recording_is_read_completely_counted_once_and_ends(stream: Stream, clip: Path) -> None:
    reader = stream.read(clip)
    reader.join(20)
    stream.until(lambda: stream.of(Closed))
    assert stream.of(Opened) == [Opened(1, True, False, live=False)]
    assert stream.items[-1] == Closed("eof", "reached its end", "silence", final=True, failed=False)
    assert stream.seconds() == pytest.approx(3.0, abs=0.06)
    assert stream.decoded_s() == pytest.approx(stream.seconds(), abs=0.01)  # although it is queued at two rates
    assert (reader.connection, reader.tries, stream.waits, stream.drops) == (1, 1, [], [])
    assert stream.board.view("cam").reconnects == 0
    assert stream.board.view("cam").live is False


def test_a_looping_recording_restarts_without_a_wait(stream: Stream, clip: Path) -> None:
    stream.read(clip, loop=True)
    stream.until(lambda: len(stream.of(Opened)) >= 3)
    assert [one.connection for one in stream.of(Opened)][:3] == [1, 2, 3]
    assert {(one.final, one.failed, one.end) for one in stream.of(Closed)} == {(False, False, "silence")}
    assert stream.waits == []


def test_a_missing_recording_is_not_retried(stream: Stream, tmp_path: Path) -> None:
    reader = stream.read(tmp_path / "gone.wav")
    reader.join(10)
    stream.until(lambda: stream.of(Closed))
    (closed,) = stream.of(Closed)
    assert (closed.reason, closed.final, closed.failed) == ("not_found", True, True)
    assert (reader.tries, stream.waits) == (1, [])


def test_a_source_that_may_come_back_is_retried_with_growing_waits(stream: Stream) -> None:
    reader = stream.read(f"http://127.0.0.1:{free_port()}/clip.mp4")
    stream.until(lambda: len(stream.of(Closed)) >= 4)
    assert stream.waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert {(one.reason, one.final, one.failed) for one in stream.of(Closed)} == {("refused", False, True)}
    assert reader.tries >= 4
    assert reader.connection == 0
    assert stream.board.view("cam").reconnects >= 4
    assert stream.board.view("cam").live is None


def test_without_reconnect_a_live_source_is_given_up(stream: Stream) -> None:
    reader = stream.read(f"rtsp://127.0.0.1:{free_port()}/x", reconnect=False)
    reader.join(10)
    stream.until(lambda: stream.of(Closed))
    assert [(one.reason, one.final) for one in stream.of(Closed)] == [("refused", True)]


@needs_rtsp
def test_a_restarted_camera_is_a_new_connection(stream: Stream, film: Path) -> None:
    with RtspServer(film) as server:
        reader = stream.read(server.url())
        stream.until(lambda: stream.seconds() > 0.5)
        server.restart()
        stream.until(lambda: len(stream.of(Opened)) == 2)
    assert [(one.connection, one.live) for one in stream.of(Opened)] == [(1, True), (2, True)]
    first = stream.items.index(stream.of(Closed)[0])
    assert stream.items.index(stream.of(Opened)[0]) < first < stream.items.index(stream.of(Opened)[1])
    assert (stream.of(Closed)[0].reason, stream.of(Closed)[0].end) == ("eof", "gap")
    assert stream.waits[0] == 0.1
    assert reader.connection == 2


@needs_rtsp
def test_a_cut_counts_as_a_loss_and_a_stop_does_not(stream: Stream, film: Path) -> None:
    with RtspServer(film) as server:
        reader = stream.read(server.url())
        stream.until(lambda: stream.seconds() > 0.3)
        reader.cut()
        stream.until(lambda: stream.of(Closed))
        assert (stream.of(Closed)[0].reason, stream.of(Closed)[0].final) == ("watchdog", False)
        stream.until(lambda: len(stream.of(Opened)) == 2)
        closed = len(stream.of(Closed))
        began_s = time.monotonic()
        reader.stop()
        reader.join(5)
        assert time.monotonic() - began_s < 2.0
        assert len(stream.of(Closed)) == closed


def test_the_end_of_the_replaced_readers_epoch_is_queued_first(stream: Stream, clip: Path) -> None:
    before = Closed("watchdog", "the reader hung", "gap", final=False, failed=True)
    stream.read(clip, first=before, connection=7)
    stream.until(lambda: len(stream.of(Closed)) == 2)
    assert stream.items[0] == before
    assert stream.items[1] == Opened(8, True, False, live=False)
    assert stream.waits == [0.1]  # the usual wait after a loss
    assert stream.board.view("cam").reconnects == 1


def test_a_replaced_reader_whose_open_succeeds_late_is_silent(
    stream: Stream, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream has a new reader by then: neither its queue nor the board's view may change."""
    answer = threading.Event()
    with late_server(clip, answer) as url:
        late = stream.read(url, timeout_s=20.0)
        stream.until(lambda: stream.board.view("cam").began_s is not None)
        time.sleep(0.3)  # it waits for the answer
        stream.read(clip, loop=True, connection=4)
        stream.until(lambda: stream.of(Opened))
        answer.set()
        late.join(10)
        assert not late.is_alive()
        view = stream.board.view("cam")
        assert (view.live, stream.intake.live) == (False, False)
        assert view.connection >= 5
        assert (late.connection, late.tries) == (0, 1)
        assert all(one.connection >= 5 and not one.live for one in stream.of(Opened))
        assert (stream.waits, view.reconnects, stream.drops) == ([], 0, [])
        assert "live)" not in caplog.text


def test_a_replaced_reader_that_fails_late_is_silent(stream: Stream, clip: Path) -> None:
    """No loss is counted, and no wait begins, for a stream that works by then."""
    answer = threading.Event()
    with late_server(clip.with_name("notes"), answer) as url:
        clip.with_name("notes").write_text("no media\n" * 100)
        late = stream.read(url, timeout_s=20.0)
        stream.until(lambda: stream.board.view("cam").began_s is not None)
        time.sleep(0.3)
        stream.read(clip, loop=True)
        stream.until(lambda: stream.of(Opened))
        answer.set()
        late.join(20)
        assert not late.is_alive()
    assert (stream.waits, stream.board.view("cam").reconnects) == ([], 0)
    assert not [one for one in stream.of(Closed) if one.failed]
