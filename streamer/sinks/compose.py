"""Converts the core's outputs to messages: samples become media seconds and, where a clock is known, UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from streamer.event_level import EventLevel
from streamer.sinks.wire import OffsetMessage, OnsetMessage, ScoresMessage, TagsMessage
from streamer.timeline import Timeline, seconds
from streamer.types import CELL, CellScores, Offset, Onset

_TIME_DIGITS = 6
"""Decimals of a time in seconds; a sample lasts 45 us."""
_SCORE_DIGITS = 4
_LEVEL_DIGITS = 1


def onset_message(onset: Onset, timeline: Timeline, level: EventLevel | None) -> OnsetMessage:
    """The message for an onset, with UTC from what its epoch's timeline knows so far; `level`: of the event so far."""
    return OnsetMessage(
        stream=onset.stream,
        epoch=onset.epoch,
        event_id=onset.event_id,
        label=onset.label,
        onset_s=_media_s(onset.onset),
        onset_utc_s=_utc_s(timeline, onset.onset),
        onset_utc=_utc(timeline, onset.onset),
        clock=timeline.source,
        score=_share(onset.score),
        trigger_s=_media_s(onset.trigger),
        early=onset.early,
        level_dbfs=_level_dbfs(level),
        over_background_db=_over_background_db(level),
    )


def offset_message(offset: Offset, timeline: Timeline, level: EventLevel | None) -> OffsetMessage:
    """The message for an offset. Its onset's UTC may differ from the onset message's if a better clock came since."""
    return OffsetMessage(
        stream=offset.stream,
        epoch=offset.epoch,
        event_id=offset.event_id,
        label=offset.label,
        onset_s=_media_s(offset.onset),
        onset_utc_s=_utc_s(timeline, offset.onset),
        onset_utc=_utc(timeline, offset.onset),
        offset_s=_media_s(offset.offset),
        offset_utc_s=_utc_s(timeline, offset.offset),
        offset_utc=_utc(timeline, offset.offset),
        duration_s=_media_s(offset.offset - offset.onset),
        clock=timeline.source,
        confidence=_share(offset.confidence),
        peak=_share(offset.peak),
        end_reason=offset.end_reason,
        level_dbfs=_level_dbfs(level),
        over_background_db=_over_background_db(level),
    )


def tags_message(scores: CellScores, classes: Sequence[str], timeline: Timeline) -> TagsMessage:
    """The message for a window's clip-level tags; `classes` name the columns of the scores."""
    return TagsMessage(
        stream=scores.stream,
        epoch=scores.epoch,
        start_s=_media_s(scores.tags_start * CELL),
        end_s=_media_s(scores.tags_stop * CELL),
        start_utc_s=_utc_s(timeline, scores.tags_start * CELL),
        clock=timeline.source,
        tags={label: _share(float(tag)) for label, tag in zip(classes, scores.tags, strict=True)},
    )


def scores_message(scores: CellScores, classes: Sequence[str], timeline: Timeline) -> ScoresMessage:
    """The message for the scores of consecutive cells; `classes` name their columns."""
    return ScoresMessage(
        stream=scores.stream,
        epoch=scores.epoch,
        start_s=_media_s(scores.start * CELL),
        step_s=_media_s(CELL),
        start_utc_s=_utc_s(timeline, scores.start * CELL),
        clock=timeline.source,
        classes=list(classes),
        scores=[[_share(score) for score in row] for row in scores.scores.tolist()],
        covered=scores.covered.tolist(),
    )


def rfc3339(utc_s: float) -> str:
    """Unix seconds as RFC 3339 text in UTC, to the microsecond."""
    return datetime.fromtimestamp(utc_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _media_s(sample: int) -> float:
    return round(seconds(sample), _TIME_DIGITS)


def _utc_s(timeline: Timeline, sample: int) -> float | None:
    utc_s = timeline.utc_s(sample)
    return None if utc_s is None else round(utc_s, _TIME_DIGITS)


def _utc(timeline: Timeline, sample: int) -> str | None:
    utc_s = _utc_s(timeline, sample)
    return None if utc_s is None else rfc3339(utc_s)


def _share(score: float) -> float:
    return round(score, _SCORE_DIGITS)


def _level_dbfs(level: EventLevel | None) -> float | None:
    return None if level is None else round(level.level_dbfs, _LEVEL_DIGITS)


def _over_background_db(level: EventLevel | None) -> float | None:
    over_db = None if level is None else level.over_background_db
    return None if over_db is None else round(over_db, _LEVEL_DIGITS)
