"""Offsets of events whose end is unknown: the daemon was killed, or its model did not answer at shutdown."""

from __future__ import annotations

from streamer.sinks.compose import rfc3339
from streamer.sinks.wire import OffsetMessage, OnsetMessage
from streamer.types import EndReason


def assumed_offset(onset: OnsetMessage, alive_utc_s: float, longest_s: float, reason: EndReason) -> OffsetMessage:
    """The offset of an event that was last known to be open at `alive_utc_s` (Unix seconds).

    When the sound ended is unknown; the duration is a lower bound: the time for which the event is known to have been
    open after its onset was sent. Onsets and offsets are both sent some seconds late, so these delays cancel out. The
    duration is at most `longest_s`, because the system clock may have been set in between. Confidence, peak and level
    are the onset's, because nothing later is known.
    """
    duration_s = round(min(max(0.0, alive_utc_s - onset.sent_utc_s), longest_s), 6)
    offset_utc_s = None if onset.onset_utc_s is None else round(onset.onset_utc_s + duration_s, 6)
    return OffsetMessage(
        stream=onset.stream,
        epoch=onset.epoch,
        event_id=onset.event_id,
        label=onset.label,
        onset_s=onset.onset_s,
        onset_utc_s=onset.onset_utc_s,
        onset_utc=onset.onset_utc,
        offset_s=round(onset.onset_s + duration_s, 6),
        offset_utc_s=offset_utc_s,
        offset_utc=None if offset_utc_s is None else rfc3339(offset_utc_s),
        duration_s=duration_s,
        clock=onset.clock,
        confidence=onset.score,
        peak=onset.score,
        end_reason=reason,
        level_dbfs=onset.level_dbfs,
        over_background_db=onset.over_background_db,
    )
