"""The daemon's Prometheus metrics, in a registry of their own.

Label values are bounded: streams and classes come from config and bundle, reasons and states from the sets below.
Anything else is counted as `other`.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Literal, TypeAlias, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from streamer.media.level import INPUT_STATES, InputState, Level
from streamer.media.tracks import AudioInput
from streamer.sinks.catch_up import RESULTS
from streamer.sinks.refusals import HTTP_REASONS, ZMQ_REASONS
from streamer.sinks.store.opening import REASONS
from streamer.sinks.store.writing import Content

State: TypeAlias = Literal["connecting", "streaming", "stalled", "backoff", "ended", "failed"]
STATES: tuple[State, ...] = ("connecting", "streaming", "stalled", "backoff", "ended", "failed")
"""In order: opening, or no cell scored yet; cells are being scored; connected, but no media arrives; waiting before
the next attempt; the source reached its end; given up."""

LOST_REASONS = frozenset(
    {"auth", "not_found", "refused", "unreachable", "timeout", "tls", "invalid_data", "no_audio", "no_video"}
    | {"empty", "eof", "device", "protocol", "watchdog", "other"}
)
"""Why a connection was lost: the values of `SourceError.reason`, and `watchdog`."""
DROP_REASONS = frozenset({"queue_audio", "queue_picture", "queue_anchor", "abandoned"})
"""Why media was dropped: the queue was full, or its reader had been abandoned."""
ReloadResult: TypeAlias = Literal["applied", "refused"]
RELOAD_RESULTS: tuple[ReloadResult, ...] = ("applied", "refused")
REFUSED_REASONS = {"zmq": ZMQ_REASONS, "http": HTTP_REASONS}
MESSAGE_KINDS = ("onset", "offset", "tags", "scores", "status", "heartbeat")

Series = TypeVar("Series", Counter, Gauge, Histogram)

_AUDIO_LABELS = tuple(field.name for field in fields_of(AudioInput))

LATENCY_BUCKETS_S = (
    *(0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0),
    *(3.25, 3.5, 3.75, 4.0, 4.25, 4.5, 5.0, 6.0, 7.5, 10.0),
)
STAGE_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its labels."""

    name: str  # as Prometheus shows it
    kind: str  # counter, gauge or histogram
    text: str
    labels: tuple[str, ...]


class Metrics:
    """All metrics of one daemon; thread-safe."""

    def __init__(self, version: str, bundle: str, streams: Sequence[str], classes: Sequence[str]) -> None:
        """Creates every series at once, so that rates and alerts see an increase from zero, and not from nothing."""
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter, of no use here
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.families: list[Family] = []
        """All metrics but those of the process."""
        self._by_stream: list[Counter | Gauge | Histogram] = []
        by_stream = ["stream"]

        def note(name: str, kind: str, text: str, labels: Sequence[str]) -> None:
            self.families.append(Family(f"earwitness_{name}", kind, text, tuple(labels)))

        def kept(made: Series, labels: Sequence[str]) -> Series:
            if "stream" in labels:
                self._by_stream.append(made)
            return made

        def counter(name: str, text: str, labels: Sequence[str]) -> Counter:
            note(f"{name}_total", "counter", text, labels)
            return kept(Counter(f"earwitness_{name}", text, labels, registry=registry), labels)

        def gauge(name: str, text: str, labels: Sequence[str]) -> Gauge:
            note(name, "gauge", text, labels)
            return kept(Gauge(f"earwitness_{name}", text, labels, registry=registry), labels)

        def histogram(name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
            note(name, "histogram", text, labels)
            return kept(Histogram(f"earwitness_{name}", text, labels, buckets=buckets, registry=registry), labels)

        self._state = gauge("stream_state", "1 for the stream's current state, else 0.", ["stream", "state"])
        self._reconnects = counter("reconnects", "Lost or failed connections.", ["stream", "reason"])
        self._abandoned = counter("readers_abandoned", "Reader threads that hung and were replaced.", by_stream)
        self._audio = counter("decoded_audio_seconds", "Audio decoded.", by_stream)
        self._frames = counter("decoded_frames", "Pictures decoded, scaled and queued.", by_stream)
        self._dropped = counter("dropped", "Media chunks and pictures dropped.", ["stream", "reason"])
        self._lag = gauge("media_lag_seconds", "Age of the oldest media that is not processed yet.", by_stream)
        self._coverage = gauge("coverage_ratio", "Share of the last minute for which media was processed.", by_stream)
        self._cells = counter("scored_cells", "Cells (66.24 ms) scored.", by_stream)
        self._masked = counter("masked_cells", "Cells that a modality lacked.", ["stream", "modality"])
        self._late = counter("late_cells", "Cells of a modality that arrived too late.", ["stream", "modality"])
        self._overflows = counter("subscriber_overflows", "How often a subscriber's queue ran full.", [])
        self._events = counter("events", "Onsets published.", ["stream", "class"])
        self._latency = histogram(
            "onset_to_message_seconds",
            "From the moment a sound began, as it arrived here, to its onset message.",
            by_stream,
            LATENCY_BUCKETS_S,
        )
        self._stride = gauge("picture_stride", "Cells per picture that is processed; 0: no pictures.", by_stream)
        self._stretch = gauge("hop_stretch", "Factor on the configured hop; over 1: the machine is slow.", by_stream)
        self._stage = histogram(
            "stage_seconds",
            "Time of one step of a stage: processor time for decode, else wall time.",
            ["stage"],
            STAGE_BUCKETS_S,
        )
        self._listened: dict[str, tuple[str, ...]] = {}  # stream -> the labels of its audio_info
        self._rms = gauge("input_rms_dbfs", "RMS level of the latest second of audio.", by_stream)
        self._peak = gauge("input_peak_dbfs", "Peak level of the latest second of audio.", by_stream)
        self._input = gauge("input_state", "1 for the current state of the input, else 0.", ["stream", "input"])
        self._listening = gauge("audio_info", "1 for the audio in use.", ["stream", *_AUDIO_LABELS])
        self._corrupt = counter("corrupt_packets", "Packets that were damaged or could not be decoded.", by_stream)
        self._overlap = counter("overlap_samples", "Samples that arrived twice, by their timestamps.", by_stream)
        self._stray = counter("stray_pictures", "Pictures whose timestamps are implausible.", by_stream)
        self._batch = histogram("batch_windows", "Windows in one batch.", [], (1, 2, 4, 8, 16, 32, 64))
        self._lost = counter("messages_dropped", "Messages dropped because the queue to the sinks was full.", ["type"])
        self._refused = counter(
            "connections_refused", "Connections and requests that were refused.", ["socket", "reason"]
        )
        self._sink_errors = counter("sink_errors", "Messages that a sink lost.", ["sink"])
        self._store_up = gauge("store_up", "1: messages are stored; 0: the store fails or is off.", [])
        self._store_waiting = gauge("store_waiting", "Messages that wait to be stored because the store failed.", [])
        self._store_messages = gauge("store_messages", "Messages in the store.", [])
        self._store_bytes = gauge("store_bytes", "Bytes of the store in use.", [])
        self._store_limit = gauge("store_limit_bytes", "Maximum bytes of the store (`store.keep_mb`).", [])
        self._store_free = gauge("store_free_bytes", "Free bytes on the store's disk.", [])
        self._store_oldest = gauge("store_oldest_timestamp_seconds", "When the oldest stored message was sent.", [])
        self._store_failures = counter("store_failures", "Failed operations of the store.", ["why"])
        self._store_removed = counter(
            "store_removed", "Messages removed from the store, by the limit that was exceeded.", ["limit"]
        )
        self._requests = counter("catch_up_requests", "Requests for missed messages.", ["result"])
        self._caught_up = counter("catch_up_messages", "Missed messages sent to subscribers on request.", [])
        for socket, reasons in REFUSED_REASONS.items():
            for reason in reasons:
                self._refused.labels(socket, reason)
        for why in sorted(REASONS):
            self._store_failures.labels(why)
        for limit in ("age", "size"):
            self._store_removed.labels(limit)
        for result in RESULTS:
            self._requests.labels(result)
        self._reloads = counter("reloads", "Times that the config was read anew.", ["result"])
        self._reload_applied = gauge("last_reload_applied", "1 if the newest reload was applied, else 0.", [])
        self._reload_applied.set(1)
        for result in RELOAD_RESULTS:
            self._reloads.labels(result)
        self._build = gauge("build_info", "Always 1.", ["version", "bundle", "python"])
        self._version = version
        self._streams: set[str] = set()
        self._lock = threading.Lock()  # what is still said of a removed stream must not bring back its series
        self._classes: Sequence[str] = ()
        self.model(bundle, classes)
        for stream in streams:
            self.add(stream)

    def model(self, bundle: str, classes: Sequence[str]) -> None:
        """The daemon has this model now; counts of classes that only the one before had stay."""
        self._build.clear()
        self._build.labels(self._version, bundle, platform.python_version()).set(1)
        self._classes = tuple(classes)
        for stream in self._streams:
            for label in self._classes:
                self._events.labels(stream, label)
        for message in MESSAGE_KINDS:
            self._lost.labels(message)

    def add(self, stream: str) -> None:
        """One stream more: it has its series from now on, at zero."""
        self._streams.add(stream)
        counted = (self._abandoned, self._audio, self._frames, self._cells, self._corrupt, self._overlap, self._stray)
        for one in (*counted, self._lag, self._coverage, self._latency):
            one.labels(stream)
        self.unheard(stream)
        for one in (self._stride, self._stretch):
            one.labels(stream).set(1)
        for state in STATES:
            self._state.labels(stream, state).set(0)
        for reason in sorted(LOST_REASONS):
            self._reconnects.labels(stream, reason)
        for reason in sorted(DROP_REASONS):
            self._dropped.labels(stream, reason)
        for label in self._classes:
            self._events.labels(stream, label)

    def remove(self, stream: str) -> None:
        """The stream is no more, and neither are its series."""
        with self._lock:
            self._streams.discard(stream)
            self._listened.pop(stream, None)
            for one in self._by_stream:
                one.remove_by_labels({"stream": stream})

    def reloaded(self, result: ReloadResult) -> None:
        """The config was read anew."""
        self._reloads.labels(result).inc()
        self._reload_applied.set(result == "applied")

    def state(self, stream: str, state: State) -> None:
        """The stream is now in `state`."""
        for one in STATES:
            self._state.labels(stream, one).set(one == state)

    def reconnect(self, stream: str, reason: str) -> None:
        """A connection was lost or could not be opened."""
        self._reconnects.labels(stream, reason if reason in LOST_REASONS else "other").inc()

    def abandoned(self, stream: str) -> None:
        """A reader thread hung and was abandoned."""
        self._abandoned.labels(stream).inc()

    def decoded(self, stream: str, audio_s: float, frames: int) -> None:
        """The decoder returned this much media."""
        with self._lock:
            if stream in self._streams:
                self._audio.labels(stream).inc(audio_s)
                self._frames.labels(stream).inc(frames)

    def listening(self, stream: str, audio: AudioInput | None) -> None:
        """A connection was opened with this audio; None: without."""
        self._unlisten(stream)
        if audio is not None:
            self._listened[stream] = labels = (stream, *(str(getattr(audio, name)) for name in _AUDIO_LABELS))
            self._listening.labels(*labels).set(1)

    def heard(self, stream: str, level: Level, state: InputState) -> None:
        """Level of the latest second, and the state of the input."""
        self._rms.labels(stream).set(level.rms_dbfs)
        self._peak.labels(stream).set(level.peak_dbfs)
        for one in INPUT_STATES:
            self._input.labels(stream, one).set(one == state)

    def unheard(self, stream: str) -> None:
        """There is no connection: remove the level instead of showing an old one."""
        for level in (self._rms, self._peak):
            with suppress(KeyError):
                level.remove(stream)
        self._unlisten(stream)
        for one in INPUT_STATES:
            self._input.labels(stream, one).set(one == "unknown")

    def _unlisten(self, stream: str) -> None:
        labels = self._listened.pop(stream, None)
        if labels is not None:
            self._listening.remove(*labels)

    def damaged(self, stream: str, corrupt_packets: int, overlap_samples: int, stray_pictures: int) -> None:
        """This much more of the media could not be used."""
        self._corrupt.labels(stream).inc(corrupt_packets)
        self._overlap.labels(stream).inc(overlap_samples)
        self._stray.labels(stream).inc(stray_pictures)

    def dropped(self, stream: str, reason: str, count: int = 1) -> None:
        """`count` chunks or pictures were dropped."""
        with self._lock:
            if stream in self._streams:
                self._dropped.labels(stream, reason if reason in DROP_REASONS else "other").inc(count)

    def progress(self, stream: str, lag_s: float, coverage: float, stride: int, stretch: int) -> None:
        """The stream's lag, coverage (0 to 1), picture stride and factor on the hop now."""
        self._lag.labels(stream).set(lag_s)
        self._coverage.labels(stream).set(coverage)
        self._stride.labels(stream).set(stride)
        self._stretch.labels(stream).set(stretch)

    def scored(self, stream: str, cells: int) -> None:
        """`cells` more cells were scored."""
        self._cells.labels(stream).inc(cells)

    def missed(self, stream: str, modality: str, masked: int, late: int) -> None:
        """A modality lacked `masked` more cells; `late` more arrived after their cells had been scored without them."""
        self._masked.labels(stream, modality).inc(masked)
        self._late.labels(stream, modality).inc(late)

    def overflowed(self, count: int) -> None:
        """Subscribers' queues ran full `count` more times; only those subscribers missed messages."""
        self._overflows.inc(count)

    def onset(self, stream: str, label: str, latency_s: float | None) -> None:
        """An onset was published, `latency_s` after the sound began; None: the source is not live."""
        with self._lock:
            if stream in self._streams:
                self._events.labels(stream, label).inc()
                if latency_s is not None:
                    self._latency.labels(stream).observe(latency_s)

    def stage(self, stage: str, seconds: float) -> None:
        """One step of `stage` (`decode`, a modality, `detect`, `publish`) took `seconds`."""
        self._stage.labels(stage).observe(seconds)

    def batch(self, windows: int) -> None:
        """`windows` windows were scored in one batch."""
        self._batch.observe(windows)

    def message_dropped(self, kind: str) -> None:
        """The outbox was full and dropped a message of type `kind`."""
        self._lost.labels(kind if kind in MESSAGE_KINDS else "other").inc()

    def refused(self, socket: Literal["zmq", "http"], reason: str, count: int = 1) -> None:
        """`count` more connections to the ZeroMQ sockets, or to the HTTP port, were refused."""
        self._refused.labels(socket, reason if reason in REFUSED_REASONS[socket] else "other").inc(count)

    def sink_error(self, sink: str) -> None:
        """The sink of that name lost a message."""
        self._sink_errors.labels(sink).inc()

    def store(self, works: bool, waiting: int, content: Content | None) -> None:
        """The state of the store. Without `content`, which means that it can't be read, the last numbers are kept."""
        self._store_up.set(works)
        self._store_waiting.set(waiting)
        if content is not None:
            self._store_messages.set(content.messages)
            self._store_bytes.set(content.bytes)
            self._store_limit.set(content.limit_bytes)
            self._store_free.set(content.free_bytes)
            self._store_oldest.set(content.oldest_utc_s or 0.0)

    def store_failed(self, why: str) -> None:
        """An operation of the store failed; `why` is the reason of the `StoreError`."""
        self._store_failures.labels(why if why in REASONS else "other").inc()

    def store_removed(self, limit: str, count: int) -> None:
        """`count` messages were removed from the store because of the limit on `age` or `size`."""
        self._store_removed.labels(limit).inc(count)

    def caught_up(self, result: str, count: int) -> None:
        """`count` more requests for missed messages had this result."""
        self._requests.labels(result).inc(count)

    def caught_up_messages(self, count: int) -> None:
        """`count` more messages were sent in answers."""
        self._caught_up.inc(count)
