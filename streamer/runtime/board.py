"""The current state of each stream: written by readers and worker, read by health checks and publisher."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from streamer.media.level import InputState, Level
from streamer.media.tracks import AudioInput
from streamer.runtime.metrics import Metrics, State
from streamer.types import ClockSource


@dataclass(frozen=True, slots=True)
class StreamView:
    """One stream at one moment."""

    name: str
    source: str  # its address without secrets
    live: bool | None = None  # runs at its own pace and has no end of its own; None: never opened yet
    state: State = "connecting"
    reason: str = ""  # code for why it is not streaming; "" if it is, or not yet
    detail: str = ""  # one line that explains the reason
    connection: int = 0
    began_s: float | None = None  # monotonic; the last attempt to connect
    opened_s: float | None = None  # monotonic; when the connection was opened; None without one
    scored_s: float | None = None  # monotonic; when its latest cells were scored
    epoch: int = 0
    reconnects: int = 0
    has_audio: bool = False
    has_video: bool = False
    lag_s: float = 0.0
    coverage: float = 0.0
    stride: int = 1
    clock: ClockSource | None = None
    audio: AudioInput | None = None  # the audio in use; None without sound
    level: Level | None = None  # of its latest second
    input: InputState = "unknown"  # whether the audio holds any sound
    input_detail: str = ""  # one line that explains it, if it holds none
    clock_fault: str = ""  # one line about a clock of the source that is implausible

    @property
    def warnings(self) -> list[str]:
        """Faults while media arrives, one line each."""
        return [text for text in (self.input_detail, self.clock_fault) if text]


class Board:
    """The streams' views. Thread-safe."""

    def __init__(self, views: Sequence[StreamView], metrics: Metrics, clock_s: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._views = {view.name: view for view in views}
        self._changes = {view.name: 1 for view in views}
        self._metrics = metrics
        self._clock_s = clock_s
        for view in views:
            metrics.state(view.name, view.state)

    def view(self, name: str) -> StreamView:
        """The stream's view."""
        with self._lock:
            return self._views[name]

    def views(self) -> list[StreamView]:
        """All streams, in the order of the config."""
        with self._lock:
            return list(self._views.values())

    def changes(self, name: str) -> int:
        """How often the stream has changed in a way that calls for a status message at once."""
        with self._lock:
            return self._changes[name]

    def snapshot(self) -> list[tuple[StreamView, int]]:
        """All streams of one moment, each with how often it has changed in a way that is told at once."""
        with self._lock:
            return [(view, self._changes[name]) for name, view in self._views.items()]

    def add(self, view: StreamView) -> None:
        """One stream more."""
        with self._lock:
            self._views[view.name] = view
            self._changes[view.name] = 1
        self._metrics.state(view.name, view.state)

    def remove(self, name: str) -> StreamView:
        """The stream is no more; gives what was known of it last."""
        with self._lock:
            del self._changes[name]
            return self._views.pop(name)

    def moved(self, name: str, source: str) -> None:
        """The stream's source is another from now on; `source` is what may be shown of its address."""
        with self._lock:
            view = replace(self._views[name], source=source, live=None, opened_s=None, began_s=None)
            self._set(replace(view, state="connecting", reason="", detail=""))

    def connecting(self, name: str) -> None:
        """A reader begins to open the source. The reason of the last loss is kept until cells are scored."""
        with self._lock:
            self._set(replace(self._views[name], state="connecting", began_s=self._clock_s(), opened_s=None))

    def opened(
        self,
        name: str,
        connection: int,
        *,
        live: bool,
        has_audio: bool,
        has_video: bool,
        audio: AudioInput | None = None,
    ) -> None:
        """A connection was opened. The state stays `connecting` until its first cell is scored."""
        with self._lock:
            self._set(
                replace(
                    self._views[name],
                    connection=connection,
                    opened_s=self._clock_s(),
                    live=live,
                    has_audio=has_audio,
                    has_video=has_video,
                    audio=audio,
                    level=None,
                    input="unknown",
                    input_detail="",
                    clock_fault="",
                )
            )
        self._metrics.listening(name, audio)

    def heard(self, name: str, level: Level, state: InputState, detail: str) -> None:
        """Level of the latest second, and the state of the input with its explanation."""
        with self._lock:
            self._set(replace(self._views[name], level=level, input=state, input_detail=detail))
        self._metrics.heard(name, level, state)

    def disbelieved(self, name: str, clock_fault: str) -> None:
        """A clock of the source is implausible."""
        with self._lock:
            self._set(replace(self._views[name], clock_fault=clock_fault))

    def lost(self, name: str, reason: str, detail: str) -> None:
        """The connection was lost or could not be opened, and will be retried."""
        with self._lock:
            view = self._views[name]
            self._set(
                replace(
                    view, state="backoff", reason=reason, detail=detail, opened_s=None, reconnects=view.reconnects + 1
                )
            )
        self._metrics.reconnect(name, reason)
        self._metrics.unheard(name)

    def finished(self, name: str, state: State, reason: str, detail: str) -> None:
        """`state` is `ended` or `failed`: the source will not be retried, and all of its media has been processed."""
        with self._lock:
            self._set(replace(self._views[name], state=state, reason=reason, detail=detail, opened_s=None))
        self._metrics.unheard(name)

    def stalled(self, name: str, detail: str) -> None:
        """The source is connected, but no media arrives."""
        with self._lock:
            view = self._views[name]
            if view.state in ("connecting", "streaming") and view.opened_s is not None:
                self._set(replace(view, state="stalled", reason="timeout", detail=detail))

    def scored(self, name: str, connection: int, epoch: int) -> None:
        """Cells of `epoch` were scored. Only those of the latest `connection` show that it works."""
        with self._lock:
            view = replace(self._views[name], epoch=epoch)
            if connection == view.connection and view.opened_s is not None:
                view = replace(view, scored_s=self._clock_s())
                if view.state in ("connecting", "stalled"):
                    view = replace(view, state="streaming", reason="", detail="")
            self._set(view)

    def progress(
        self, name: str, lag_s: float, coverage: float, stride: int, stretch: int, clock: ClockSource | None
    ) -> None:
        """The stream's lag, coverage, picture stride, factor on the hop and clock now."""
        with self._lock:
            self._set(replace(self._views[name], lag_s=lag_s, coverage=coverage, stride=stride, clock=clock))
        self._metrics.progress(name, lag_s, coverage, stride, stretch)

    def _set(self, view: StreamView) -> None:
        before = self._views[view.name]
        self._views[view.name] = view
        if _worth_a_message(before) != _worth_a_message(view):
            self._changes[view.name] += 1
        if before.state != view.state:
            self._metrics.state(view.name, view.state)


def _worth_a_message(view: StreamView) -> tuple[object, ...]:
    return view.state, view.reason, view.epoch, view.stride, view.input, view.clock_fault
