"""The offsets of events whose end is unknown: the daemon was killed, or its model did not answer at shutdown."""

from __future__ import annotations

from streamer.sinks.compose import rfc3339
from streamer.sinks.wire import OffsetMessage, OnsetMessage
from streamer.types import EndReason


def assumed_offset(onset: OnsetMessage, alive_utc_s: float, longest_s: float, reason: EndReason) -> OffsetMessage:
    """The offset of an event that was last known to be open at `alive_utc_s` (Unix seconds).

    Nobody knows when the sound ended. It lasted at least as long as the event is known to have been open after its
    onset was sent: an onset is sent some seconds after the sound began, and an offset would have been sent as many
    seconds after it ended. That is the duration given here, and at most `longest_s`, in case the system's clock was
    set meanwhile. Confidence, peak and level are those of the onset, because no more is known.
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
