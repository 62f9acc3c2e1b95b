"""Messages to send in tests, and Hypothesis strategies that make any message."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st

from streamer.sinks.base import Numberer
from streamer.sinks.wire import (
    HeartbeatMessage,
    Message,
    OffsetMessage,
    OnsetMessage,
    ScoresMessage,
    StatusMessage,
    StreamState,
    TagsMessage,
)

CLASSES = ("Dog", "Speech", "Alarm_bell_ringing")


def numberer(publisher: str = "earwitness", run: str = "r1") -> Numberer:
    """A numberer whose clock goes on by a second each time."""
    seconds = itertools.count(1_790_000_000)
    return Numberer(publisher, run, lambda: float(next(seconds)))


def onset(stream: str = "cam", label: str = "Dog", *, epoch: int = 0, event_id: str = "e1") -> OnsetMessage:
    return OnsetMessage(
        stream=stream,
        epoch=epoch,
        event_id=event_id,
        label=label,
        onset_s=1.5,
        onset_utc_s=1_790_000_001.5,
        onset_utc="2026-09-21T14:13:21.500000Z",
        clock="arrival",
        score=0.8,
    )


def offset(stream: str = "cam", label: str = "Dog", *, epoch: int = 0, event_id: str = "e1") -> OffsetMessage:
    return OffsetMessage(
        stream=stream,
        epoch=epoch,
        event_id=event_id,
        label=label,
        onset_s=1.5,
        onset_utc_s=1_790_000_001.5,
        onset_utc="2026-09-21T14:13:21.500000Z",
        offset_s=2.0,
        offset_utc_s=1_790_000_002.0,
        offset_utc="2026-09-21T14:13:22.000000Z",
        duration_s=0.5,
        clock="arrival",
        confidence=0.7,
        peak=0.9,
        end_reason="silence",
    )


def tags(stream: str = "cam") -> TagsMessage:
    return TagsMessage(
        stream=stream,
        epoch=0,
        start_s=0.0,
        end_s=10.0,
        start_utc_s=None,
        clock=None,
        tags=dict.fromkeys(CLASSES, 0.25),
    )


def scores(stream: str = "cam") -> ScoresMessage:
    return ScoresMessage(
        stream=stream,
        epoch=0,
        start_s=0.0,
        step_s=0.066244,
        start_utc_s=None,
        clock=None,
        classes=list(CLASSES),
        scores=[[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]],
        covered=[True, False],
    )


def status(stream: str = "cam", state: StreamState = "streaming", *, epoch: int = 0) -> StatusMessage:
    return StatusMessage(
        stream=stream,
        epoch=epoch,
        state=state,
        reason="" if state == "streaming" else "timeout",
        detail="",
        model="spectral",
        modalities=["spectral"],
        missing=[],
        media_lag_s=0.25,
        coverage=1.0,
        picture_stride=None,
        pictures_hz=None,
        reconnects=0,
        clock="rtcp",
    )


def heartbeat(interval_s: float = 5.0) -> HeartbeatMessage:
    return HeartbeatMessage(interval_s=interval_s, uptime_s=12.5, version="0.1.0", streams={"cam": "streaming"})


_names = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
_shares = st.floats(0, 1)
_lengths = st.floats(0, 1e7)
_clocks = st.sampled_from(["rtcp", "arrival", "file", None])
_maybe_utc_s = st.none() | st.floats(0, 4e9)
_maybe_utc = st.none() | st.just("2026-09-21T14:13:22.000000Z")
_states = st.sampled_from(["connecting", "streaming", "stalled", "backoff", "ended", "failed", "stopped"])


def any_message() -> st.SearchStrategy[Message]:
    """Any message that can be sent, numbered."""
    header: dict[str, Any] = {
        "publisher": _names,
        "run": _names,
        "seq": st.integers(1, 2**53),
        "topic_seq": st.integers(1, 2**53),
        "sent_utc_s": st.floats(0, 4e9),
        "replay": st.booleans(),
        "store": st.just("") | _names,
        "stored_seq": st.integers(0, 2**53),
    }
    stream = {**header, "stream": _names, "epoch": st.integers(0, 2**31)}
    event = {
        **stream,
        "event_id": _texts,
        "label": _texts,
        "onset_s": _lengths,
        "onset_utc_s": _maybe_utc_s,
        "onset_utc": _maybe_utc,
        "clock": _clocks,
        "level_dbfs": st.none() | st.floats(-150, 50),
        "over_background_db": st.none() | st.floats(-200, 200),
    }
    window = {**stream, "start_s": _lengths, "start_utc_s": _maybe_utc_s, "clock": _clocks}
    return st.one_of(
        st.builds(OnsetMessage, **event, score=_shares),
        st.builds(
            OffsetMessage,
            **event,
            offset_s=_lengths,
            offset_utc_s=_maybe_utc_s,
            offset_utc=_maybe_utc,
            duration_s=_lengths,
            confidence=_shares,
            peak=_shares,
            end_reason=st.sampled_from(["silence", "gap", "max_duration", "shutdown", "crash"]),
        ),
        st.builds(TagsMessage, **window, end_s=_lengths, tags=st.dictionaries(_texts, _shares, max_size=4)),
        st.builds(
            ScoresMessage,
            **window,
            step_s=_lengths,
            classes=st.lists(_texts, max_size=3),
            scores=st.lists(st.lists(_shares, max_size=3), max_size=3),
            covered=st.lists(st.booleans(), max_size=3),
        ),
        st.builds(
            StatusMessage,
            **stream,
            state=_states,
            reason=st.text(max_size=10),
            detail=st.text(max_size=20),
            model=_texts,
            modalities=st.lists(_texts, max_size=3),
            missing=st.lists(_texts, max_size=3),
            media_lag_s=_lengths,
            coverage=_shares,
            picture_stride=st.none() | st.sampled_from([0, 1, 2, 4, 8, 16]),
            pictures_hz=st.none() | st.floats(0, 16),
            reconnects=st.integers(0, 10_000),
            clock=_clocks,
        ),
        st.builds(
            HeartbeatMessage,
            **header,
            interval_s=_lengths,
            uptime_s=_lengths,
            version=_texts,
            streams=st.dictionaries(_names, _states, max_size=3),
            catch_up=st.just("") | st.just("tcp://127.0.0.1:5558"),
            stored_through=st.integers(0, 2**53),
        ),
    )
