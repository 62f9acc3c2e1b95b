"""The state of each stream, on a fake clock."""

from __future__ import annotations

import pytest

from streamer.runtime.board import Board, StreamView
from streamer.runtime.metrics import STATES, Metrics, State


class Streams:
    """A board of two streams."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.metrics = Metrics("0", "seeded", ["cam", "file"], ["Dog"])
        self.board = Board(
            [StreamView("cam", "rtsp://camera/x", live=True), StreamView("file", "a.wav", live=False)],
            self.metrics,
            lambda: self.now_s,
        )

    @property
    def cam(self) -> StreamView:
        return self.board.view("cam")

    def open(self, connection: int = 1) -> None:
        self.board.connecting("cam")
        self.board.opened("cam", connection, live=True, has_audio=True, has_video=False)

    def shown(self) -> set[str]:
        """The states that metrics show for the camera."""
        value = self.metrics.registry.get_sample_value
        return {one for one in STATES if value("earwitness_stream_state", {"stream": "cam", "state": one})}


@pytest.fixture
def streams() -> Streams:
    return Streams()


def test_a_stream_is_streaming_only_once_its_cells_are_scored(streams: Streams) -> None:
    seen: list[State] = [streams.cam.state]
    streams.open()
    seen.append(streams.cam.state)
    streams.now_s = 103.0
    streams.board.scored("cam", 1, epoch=0)
    seen.append(streams.cam.state)
    assert seen == ["connecting", "connecting", "streaming"]
    assert (streams.cam.began_s, streams.cam.opened_s, streams.cam.scored_s) == (100.0, 100.0, 103.0)
    assert streams.shown() == {"streaming"}
    assert streams.board.view("file").state == "connecting"
    assert [view.name for view in streams.board.views()] == ["cam", "file"]


def test_cells_of_an_older_connection_do_not_count_as_streaming(streams: Streams) -> None:
    """Media of the lost connection was still queued and is scored after the loss."""
    streams.open(1)
    streams.board.scored("cam", 1, epoch=0)
    streams.board.lost("cam", "timeout", "no media")
    streams.board.scored("cam", 1, epoch=0)
    states = [streams.cam.state]
    streams.open(2)
    streams.board.scored("cam", 1, epoch=0)
    states.append(streams.cam.state)
    assert states == ["backoff", "connecting"]
    assert streams.cam.reason == "timeout", "why it was lost stays on view until it is well again"
    streams.board.scored("cam", 2, epoch=1)
    assert (streams.cam.state, streams.cam.reason, streams.cam.epoch) == ("streaming", "", 1)


def test_a_loss_is_counted_with_its_reason(streams: Streams) -> None:
    streams.open()
    for reason in ("timeout", "timeout", "nonsense"):
        streams.board.lost("cam", reason, "why")
    value = streams.metrics.registry.get_sample_value
    assert value("earwitness_reconnects_total", {"stream": "cam", "reason": "timeout"}) == 2
    assert value("earwitness_reconnects_total", {"stream": "cam", "reason": "other"}) == 1
    assert streams.cam.reconnects == 3
    assert (streams.cam.detail, streams.cam.opened_s) == ("why", None)


def test_only_a_connected_stream_can_stall_and_it_recovers(streams: Streams) -> None:
    streams.board.connecting("cam")
    streams.board.stalled("cam", "no media arrives")
    states = [streams.cam.state]
    streams.board.opened("cam", 1, live=True, has_audio=True, has_video=True)
    streams.board.stalled("cam", "no media arrives")
    states.append(streams.cam.state)
    streams.board.scored("cam", 1, epoch=1)
    states.append(streams.cam.state)
    streams.board.finished("cam", "failed", "auth", "wrong password")
    streams.board.stalled("cam", "no media arrives")
    states.append(streams.cam.state)
    assert states == ["connecting", "stalled", "streaming", "failed"]


def test_changes_count_what_subscribers_must_learn_at_once(streams: Streams) -> None:
    counts = [streams.board.changes("cam")]

    def note() -> None:
        counts.append(streams.board.changes("cam"))

    streams.open()
    note()  # connecting as before
    streams.board.scored("cam", 1, epoch=0)
    note()  # streaming
    streams.board.scored("cam", 1, epoch=0)
    note()  # nothing new
    streams.board.scored("cam", 1, epoch=1)
    note()  # an epoch
    streams.board.progress("cam", 0.5, 0.9, 1, 1, "rtcp")
    note()  # the lag waits for the next status
    streams.board.progress("cam", 0.5, 0.9, 4, 2, "rtcp")
    note()  # the stride
    streams.board.lost("cam", "eof", "end of file")
    note()
    assert counts == [1, 1, 2, 2, 3, 3, 4, 5]
    assert streams.board.changes("file") == 1


def test_progress_is_in_the_view_and_in_metrics(streams: Streams) -> None:
    streams.board.progress("cam", 0.5, 0.9, 4, 2, "rtcp")
    assert (streams.cam.lag_s, streams.cam.coverage, streams.cam.stride, streams.cam.clock) == (0.5, 0.9, 4, "rtcp")
    value = streams.metrics.registry.get_sample_value
    names = ("media_lag_seconds", "coverage_ratio", "picture_stride", "hop_stretch")
    assert [value(f"earwitness_{name}", {"stream": "cam"}) for name in names] == [0.5, 0.9, 4, 2]
