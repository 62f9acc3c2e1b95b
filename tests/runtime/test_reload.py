"""A supervisor whose plan is changed while it reads real files at their own speed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamer.errors import ConfigError
from streamer.features.base import ExtractorFactory
from streamer.media.source import MediaOptions
from streamer.networks.stream_crnn import StreamForm
from streamer.runtime.backoff import BackoffLimits
from streamer.runtime.control import Outcome
from streamer.runtime.model import Model
from streamer.runtime.plan import StreamPlan
from streamer.runtime.reader import Source
from streamer.runtime.reload import Reloads, Setup
from streamer.windows import StreamSettings
from tests.make_media import make_clip
from tests.models import bursts, factories, seeded_bundle
from tests.runtime.test_supervisor import Daemon, source

CELL_S = 1464 / 22_100
LIMITS = {"stall_s": 2.0, "watchdog_s": 10.0, "queue_s": 5.0}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "long.wav"
    return make_clip(path, audio="pcm", rate_hz=22_100, samples=bursts(60.0))


class Reloadable(Daemon):
    """A daemon that publishes scores, and whose next setup the test chooses."""

    def __init__(self, folder: Path, *sources: Source, modalities: Sequence[str] = ("spectral",)) -> None:
        super().__init__(folder, *sources, modalities=modalities, scores=True)
        self.fault: Exception | None = None
        self._setup: Setup | None = None
        self.applied = threading.Event()

    def until(self, condition: Callable[[], object], seconds: float = 90.0) -> None:
        super().until(condition, seconds)

    def prepared(self) -> Setup:
        if self.fault is not None:
            raise self.fault
        assert self._setup is not None
        return self._setup

    def run(self) -> int:
        self.reloads = Reloads(self.prepared, threading.Event())
        return self.supervisor.run(self.stop, self.reopen, self.reloads)

    def reload(self, *sources: Source, model: Model | None = None, limits: Any = None, **changes: Any) -> Outcome:
        streams = [StreamPlan(one, **{**LIMITS, **(limits or {})}) for one in sources]
        plan = replace(self.supervisor.plan, streams=streams, **changes)
        self._setup = Setup(plan, model or self.supervisor.model, (), self.applied.set)
        outcomes: list[Outcome] = []
        self.reloads.ask(outcomes.append)
        self.until(lambda: outcomes)
        return outcomes[0]

    def cells(self, stream: str) -> int:
        """Cells scored so far, over all epochs. Checks that each epoch has all its cells, in order, and covered."""
        count, epoch, following = 0, 0, 0
        for one in self.messages("scores", stream):
            if one["epoch"] != epoch:
                assert one["epoch"] == epoch + 1
                epoch, following = one["epoch"], 0
            assert round(one["start_s"] / CELL_S) == following, "a cell is missing, or came twice"
            assert all(one["covered"]), one
            following += len(one["scores"])
            count += len(one["scores"])
        return count

    def events(self, stream: str) -> dict[str, str]:
        """Each event's `end_reason`, by its id. Checks that each has exactly one onset and one offset."""
        onsets = [one["event_id"] for one in self.messages("onset", stream)]
        offsets = {one["event_id"]: one["end_reason"] for one in self.messages("offset", stream)}
        assert sorted(offsets) == sorted(onsets), "each onset has its offset"
        return offsets

    def has_open(self, stream: str) -> bool:
        return len(self.messages("onset", stream)) > len(self.messages("offset", stream))


def live(name: str, clip: Path, **changes: Any) -> Source:
    return source(name, clip, realtime=True, loop=True, **changes)


def model_of(modalities: Sequence[str], name: str, made: Mapping[str, ExtractorFactory] | None = None) -> Model:
    bundle = replace(seeded_bundle(modalities, classes=("Bell", "Dog"), seed=3), name=name)
    return Model.of(bundle, made or factories(modalities))


def test_adding_and_removing_streams_costs_the_others_no_cell(tmp_path: Path, clip: Path) -> None:
    stays, goes, comes = live("stays", clip), live("goes", clip), live("comes", clip)
    with Reloadable(tmp_path, stays, goes) as daemon:
        daemon.until(lambda: daemon.has_open("goes") and daemon.cells("stays") > 60)
        outcome = daemon.reload(stays, comes)
        assert outcome == Outcome(True, "added: comes; removed: goes")
        assert daemon.applied.is_set()
        daemon.until(lambda: daemon.last("goes", "state") == "stopped")
        before = daemon.cells("stays")
        daemon.until(lambda: daemon.cells("comes") > 30 and daemon.cells("stays") > before + 30)
        assert daemon.last("comes", "state") == "streaming"
        assert {one["epoch"] for one in daemon.messages("scores", "stays")} == {0}
        assert daemon.last("stays", "reconnects") == 0
        assert "reload" in daemon.events("goes").values()
        status = daemon.messages("status", "goes")[-1]
        last = max(one["seq"] for kind in ("scores", "offset") for one in daemon.messages(kind, "goes"))
        assert status["seq"] > last, "its `stopped` status is its last message"
        daemon.until(lambda: 'stream="goes"' not in daemon.get("/metrics").text)
        assert 'earwitness_reloads_total{result="applied"} 1.0' in daemon.get("/metrics").text
        assert set(daemon.get("/readyz").json()["streams"]) == {"stays", "comes"}
        # The name may be used again, for a new stream.
        assert daemon.reload(stays, comes, goes).text == "added: goes"
        daemon.until(lambda: daemon.last("goes", "state") == "streaming")
    assert daemon.code == 0
    names = {f"reader-{one}" for one in ("stays", "goes", "comes")}
    daemon.until(lambda: not names & {thread.name for thread in threading.enumerate()})


def test_only_a_changed_source_reconnects_changed_limits_do_not(tmp_path: Path, clip: Path) -> None:
    stays, moves = live("stays", clip), live("moves", clip)
    other = live("moves", clip, options=MediaOptions(open_timeout_s=3.0, read_timeout_s=3.0))
    with Reloadable(tmp_path, stays, moves) as daemon:
        daemon.until(lambda: daemon.has_open("moves"))
        settings = StreamSettings(hop_cells=4, lookahead_cells=20, max_event_s=30.0)
        backoff = BackoffLimits(0.1, 0.2, 30.0, 0.2, 1.0)
        outcome = daemon.reload(stays, other, limits={"queue_s": 4.0}, settings=settings, backoff=backoff)
        assert outcome.text == "reconnected: moves; new limits: stays; changed: windows, reconnect"
        daemon.until(lambda: any(one["epoch"] == 1 for one in daemon.messages("scores", "moves")))
        before = daemon.cells("stays")
        daemon.until(lambda: daemon.cells("stays") > before + 20)
        assert {one["epoch"] for one in daemon.messages("scores", "stays")} == {0}
        assert {len(one["scores"]) for one in daemon.messages("scores", "stays")[-3:]} == {4}, "the new hop is used"
        assert daemon.last("moves", "reconnects") == 0, "it was not lost"
        daemon.end()
    ends = daemon.events("moves")
    assert "reload" in ends.values()
    assert "gap" not in ends.values()


def test_a_model_is_replaced_without_reconnecting(tmp_path: Path, clip: Path) -> None:
    stream = live("cam", clip)
    with Reloadable(tmp_path, stream) as daemon:
        daemon.until(lambda: daemon.has_open("cam"))
        assert daemon.reload(stream, model=model_of(["spectral"], "better")).text == "model: better"
        daemon.until(lambda: daemon.cells("cam") > 150 and daemon.last("cam", "epoch") == 1)
        assert daemon.last("cam", "model") == "better"
        assert 'bundle="better"' in daemon.get("/metrics").text
        daemon.end()
    daemon.cells("cam")
    epochs = [[one for one in daemon.messages("scores", "cam") if one["epoch"] == epoch] for epoch in (0, 1)]
    assert {tuple(one["classes"]) for one in epochs[0]} == {("Cat", "Dog", "Speech")}
    assert {tuple(one["classes"]) for one in epochs[1]} == {("Bell", "Dog")}
    # The new epoch begins where the one before it ended, by the same clock: no media is lost in between.
    last, first = epochs[0][-1], epochs[1][0]
    gap_s = first["start_utc_s"] - (last["start_utc_s"] + len(last["scores"]) * CELL_S)
    assert -CELL_S < gap_s < 2 * CELL_S
    assert "reload" in daemon.events("cam").values()
    assert daemon.last("cam", "reconnects") == 0


def test_a_model_that_needs_other_media_restarts_the_readers(tmp_path: Path) -> None:
    film = make_clip(tmp_path / "film.mkv", audio="aac", video="h264", seconds=20.0)
    cam, file = source("cam", film, realtime=True, loop=True), source("file", film)
    with Reloadable(tmp_path, cam, file) as daemon:
        daemon.until(lambda: daemon.last("file", "state") == "ended" and daemon.has_open("cam"))
        done = len(daemon.messages("scores", "file"))
        daemon.reload(cam, file, model=model_of(["spectral", "vgg16"], "sees"))
        daemon.until(lambda: daemon.last("cam", "epoch") == 1)
        daemon.until(lambda: daemon.last("cam", "modalities") == ["spectral", "vgg16"])
        daemon.until(lambda: daemon.last("cam", "state") == "streaming")
        assert daemon.last("cam", "picture_stride") in (1, 2, 4, 8, 16)
        assert len(daemon.messages("scores", "file")) == done, "a recording that has ended is not read again"
        daemon.end()
    assert daemon.code == 0
    assert "reload" in daemon.events("cam").values()


@pytest.mark.parametrize("fault", [ConfigError("config x.yaml:3: is wrong"), ZeroDivisionError("oh")])
def test_a_refused_config_changes_nothing(tmp_path: Path, clip: Path, fault: Exception) -> None:
    stream = live("cam", clip)
    with Reloadable(tmp_path, stream) as daemon:
        daemon.until(lambda: daemon.cells("cam") > 0)
        daemon.fault = fault
        outcome = daemon.reload(stream)
        assert not outcome.applied
        assert str(fault) in outcome.text
        metrics = daemon.get("/metrics").text
        assert 'earwitness_reloads_total{result="refused"} 1.0' in metrics
        assert "earwitness_last_reload_applied 0.0" in metrics
        before = daemon.cells("cam")
        daemon.until(lambda: daemon.cells("cam") > before)
        daemon.fault = None
        assert daemon.reload(stream) == Outcome(True, "nothing changed")
        assert "earwitness_last_reload_applied 1.0" in daemon.get("/metrics").text
        assert {one["epoch"] for one in daemon.messages("scores", "cam")} == {0}


def test_many_reloads_in_a_row(tmp_path: Path, clip: Path) -> None:
    one, two = live("one", clip), live("two", clip)
    with Reloadable(tmp_path, one) as daemon:
        daemon.until(lambda: daemon.cells("one") > 0)
        for _ in range(4):
            assert daemon.reload(one, two).text == "added: two"
            assert daemon.reload(one).text == "removed: two"
        daemon.until(lambda: 'stream="two"' not in daemon.get("/metrics").text)
        daemon.end()
    assert {one["epoch"] for one in daemon.messages("scores", "one")} == {0}
    daemon.cells("one")
    assert daemon.last("two", "state") == "stopped"


def test_a_model_of_the_other_form_is_taken_up_and_given_back(tmp_path: Path, clip: Path) -> None:
    sources = live("one", clip), live("two", clip)
    carried = replace(seeded_bundle(classes=("Bell", "Dog"), stream=StreamForm()), name="carried")
    with Reloadable(tmp_path, *sources) as daemon:
        window = daemon.supervisor.model
        daemon.until(lambda: daemon.cells("one") > 10 and daemon.cells("two") > 10)
        settings = StreamSettings(hop_cells=4, lookahead_cells=6)
        for epoch, model in ((1, Model.of(carried, factories())), (2, window)):
            assert daemon.reload(*sources, model=model, settings=settings).applied
            for name in ("one", "two"):
                daemon.until(lambda name=name, epoch=epoch: _scored(daemon, name, epoch) > 40)  # type: ignore[misc]
        assert daemon.last("one", "reconnects") == 0
    for name in ("one", "two"):
        assert daemon.cells(name) > 90, "each epoch has all its cells, in order"
        daemon.events(name)


def _scored(daemon: Reloadable, stream: str, epoch: int) -> int:
    return sum(len(one["scores"]) for one in daemon.messages("scores", stream) if one["epoch"] == epoch)
