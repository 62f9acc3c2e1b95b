from __future__ import annotations

from dataclasses import replace

from streamer.address import Address
from streamer.media.source import MediaOptions
from streamer.runtime.backoff import BackoffLimits
from streamer.runtime.crowd import HttpGuard
from streamer.runtime.plan import Changes, Plan, StreamPlan
from streamer.runtime.reader import Source
from streamer.windows import StreamSettings


def stream(name: str, source: str = "rtsp://cam/x", **limits: float) -> StreamPlan:
    one = Source(name, Address.parse(source), MediaOptions(), loop=False, realtime=False, reconnect=True)
    return StreamPlan(one, **{"stall_s": 5.0, "watchdog_s": 20.0, "queue_s": 5.0, **limits})


def plan(*streams: StreamPlan) -> Plan:
    return Plan(
        publisher="test",
        run="run1",
        version="0",
        streams=streams,
        settings=StreamSettings(),
        backoff=BackoffLimits(1.0, 60.0, 30.0, 60.0, 900.0),
        threads=1,
        picture_budget=0.5,
        publish_tags=True,
        publish_scores=False,
        queue_messages=1000,
        metrics_address=None,
        http_guard=HttpGuard(),
        store=None,
        stay=False,
    )


def test_each_stream_has_one_kind_of_change() -> None:
    old = plan(stream("stays"), stream("goes"), stream("moves"), stream("waits"), stream("both"))
    new = plan(
        stream("comes"),
        stream("stays"),
        stream("moves", "rtsp://other/x"),
        stream("waits", queue_s=9.0),
        stream("both", "rtsp://other/x", queue_s=9.0),
    )
    changes = Changes.between(old, new)
    assert [one.source.name for one in changes.added] == ["comes"]
    assert changes.removed == ("goes",)
    assert [one.source.name for one in changes.reconnected] == ["moves", "both"]
    assert [one.source.name for one in changes.limited] == ["waits"]
    assert changes.summary(None) == "added: comes; removed: goes; reconnected: moves, both; new limits: waits"


def test_a_changed_password_is_a_changed_source() -> None:
    changes = Changes.between(plan(stream("a", "rtsp://u:old1@cam/x")), plan(stream("a", "rtsp://u:new2@cam/x")))
    assert len(changes.reconnected) == 1
    assert "new2" not in changes.summary(None)


def test_equal_plans_have_no_changes() -> None:
    changes = Changes.between(plan(stream("a")), plan(stream("a")))
    assert changes == Changes((), (), (), (), ())
    assert changes.summary(None) == "nothing changed"


def test_other_fields_have_their_names_in_the_config() -> None:
    new = replace(plan(), settings=StreamSettings(hop_cells=4), threads=2, publish_scores=True)
    assert Changes.between(plan(), new).summary("better", ["log"]) == (
        "model: better; changed: windows, load.threads, publish.scores, log"
    )
