"""Makes the status and heartbeat messages. `streamer.sinks.compose` makes those of detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from streamer.runtime.board import StreamView
from streamer.runtime.shedding import CELLS_PER_S
from streamer.sinks.wire import AudioStatus, HeartbeatMessage, StatusMessage, StreamState

if TYPE_CHECKING:
    from streamer.features.base import ExtractorFactory  # not loaded with it: torch takes seconds


@dataclass(frozen=True, slots=True)
class Reporter:
    """Makes the messages about one daemon and its streams, which are not numbered yet."""

    model: str  # the bundle's name
    factories: Mapping[str, ExtractorFactory]  # of its modalities
    version: str

    def status(self, view: StreamView, *, stopped: bool = False) -> StatusMessage:
        """The state of a stream. `stopped`: the daemon is shutting down."""
        pictures = any(factory.want.pictures for factory in self.factories.values())
        has = [
            name
            for name, factory in self.factories.items()
            if factory.want.served_by(audio=view.has_audio, pictures=view.has_video)
        ]
        stride = view.stride if pictures else None
        state: StreamState = "stopped" if stopped else view.state
        return StatusMessage(
            stream=view.name,
            epoch=view.epoch,
            state=state,
            reason=view.reason,
            detail=view.detail,
            model=self.model,
            modalities=has,
            missing=[name for name in self.factories if name not in has],
            media_lag_s=round(view.lag_s, 3),
            coverage=round(view.coverage, 4),
            picture_stride=stride,
            pictures_hz=None if stride is None else round(CELLS_PER_S / stride, 3) if stride else 0.0,
            reconnects=view.reconnects,
            clock=view.clock,
            audio=_audio_status(view),
            input=view.input,
            warnings=view.warnings,
        )

    def heartbeat(self, views: Sequence[StreamView], interval_s: float, uptime_s: float) -> HeartbeatMessage:
        """The daemon has been running for `uptime_s` seconds; the next heartbeat is due in `interval_s`."""
        return HeartbeatMessage(
            interval_s=interval_s,
            uptime_s=round(uptime_s, 3),
            version=self.version,
            streams={view.name: view.state for view in views},
        )


def _audio_status(view: StreamView) -> AudioStatus | None:
    if view.audio is None:
        return None
    return AudioStatus(
        **asdict(view.audio),
        rms_dbfs=None if view.level is None else round(view.level.rms_dbfs, 1),
        peak_dbfs=None if view.level is None else round(view.level.peak_dbfs, 1),
    )
