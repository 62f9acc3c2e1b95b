"""The daemon's config: its fields and their defaults.

`configs/daemon/example.yaml` shows every field, with its description from here as the comment. The settings of a model
(classes, thresholds, the window's length) are in its bundle and can't be set here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, SecretStr
from pydantic_core import PydanticCustomError

from streamer.address import Address
from streamer.sinks.wire import NAME
from streamer.windows import DEFAULT_PRESET, PRESETS, Preset, StreamSettings

_WINDOWS = StreamSettings()  # the core's defaults, which replay uses too
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# YAML 1.1 reads a bare `off` as false.
OrOff = BeforeValidator(
    lambda value: None if value is False or value == "off" else value,
    json_schema_input_type=str | Literal[False] | None,
)


def _address(value: object) -> object:
    if value == "":
        raise PydanticCustomError("empty", "names no source; write a URL, a file or a device")
    return Address.parse(value) if isinstance(value, str) else value


Place = Annotated[
    InstanceOf[Address], BeforeValidator(_address, json_schema_input_type=Annotated[str, Field(min_length=1)])
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamConfig(_Section):
    """One source."""

    source: Place = Field(
        description="An RTSP(S), RTMP, HTTP(S), HLS or UDP URL, a file, a pipe (`-`: standard input), or a device. "
        "`${NAME}` is replaced by the environment variable NAME, or by the content of the file that the variable "
        "NAME_FILE names (as secrets are passed to containers), so that this file need not contain a password. It is "
        "percent-encoded, so a password may contain any character. A variable at the start of the source, or one that "
        "is the host, is used unchanged: `${CAMERA_URL}`.",
    )
    transport: Literal["tcp", "udp"] = Field(
        default="tcp", description="Transport of RTSP media: tcp or udp; tcp loses no packets."
    )
    format: str | None = Field(
        default=None,
        description="FFmpeg's name of the input format, if FFmpeg can't detect it: alsa, v4l2, mpegts, ...",
    )
    ffmpeg: dict[str, SecretStr] = Field(
        default={},
        description="More FFmpeg options for this input, e.g. `{rtsp_flags: prefer_tcp}` or "
        "`{headers: 'Authorization: Bearer ${TOKEN}'}`. `${NAME}` is replaced as in `source`, but not encoded. The "
        "values are never shown; an unknown option is an error.",
    )
    audio_track: Annotated[int, Field(ge=1)] | Annotated[str, Field(min_length=2)] | None = Field(
        default=None,
        description="The audio track to listen to: its number, from 1, or its language (deu); null: the best one.",
    )
    channel: Annotated[int, Field(ge=1)] | Literal["mix", "left", "right"] = Field(
        default="mix",
        description="The channel to listen to: mix (the mean of all), left, right, or a number from 1.",
    )
    verify: bool = Field(
        default=True,
        description="Verify the server's certificate (RTSPS, HTTPS, RTMPS); false accepts any certificate.",
    )
    ca_file: Path | None = Field(
        default=None,
        description="File of trusted CA certificates, or of the server's own (PEM); null: the CAs that this machine "
        "trusts.",
    )
    open_timeout_s: Positive = Field(default=10.0, description="Longest time to open the source, in seconds.")
    read_timeout_s: Positive = Field(
        default=10.0,
        description="Seconds without media before the connection is dropped; extended by the pauses between bursts "
        "(HLS).",
    )
    hole_limit_s: Positive = Field(
        default=2.0, description="A longer hole in the media ends the epoch; a shorter one is masked and reported."
    )
    stall_s: Positive = Field(
        default=5.0,
        description="When a live stream's media is overdue by this many seconds, its open events are closed with "
        "`gap`.",
    )
    watchdog_s: Positive = Field(
        default=20.0,
        description="Reconnect when the last stage has produced nothing for this many seconds; extended like "
        "`read_timeout_s`.",
    )
    queue_s: Positive = Field(
        default=5.0,
        description="Seconds of media that may wait for the model; a live stream that falls further behind drops its "
        "oldest media.",
    )
    realtime: bool = Field(default=False, description="Read a file at its own speed, as if it were live.")
    loop: bool = Field(
        default=False, description="Restart a recording when it ends; one that comes through a pipe can't be restarted."
    )
    reconnect: bool = Field(
        default=True, description="Reconnect to a live source when it is lost; a recording is never reopened."
    )


class PublishConfig(_Section):
    """What is published, and where."""

    zmq: Annotated[str | None, OrOff] = Field(
        default="tcp://127.0.0.1:5557", description="Endpoint that ZeroMQ subscribers connect to; off: none."
    )
    catch_up: Annotated[str | None, OrOff] = Field(
        default="auto",
        description="Endpoint from which subscribers request missed messages; `auto`: that of `zmq`, at the next port; "
        "`off`: none.",
    )
    keys: Path | None = Field(
        default=None,
        description="Key folder (`earwitness keys new NAME`): only subscribers with a key in it can connect, and all "
        "messages are encrypted; null: no keys, which is allowed on this machine only.",
    )
    jsonl: Annotated[str | None, OrOff] = Field(
        default=None,
        description="File to which each message is appended as a line of JSON; `-`: standard output; null or off: "
        "none.",
    )
    tags: bool = Field(default=True, description="Publish the clip-level tags of every window.")
    scores: bool = Field(
        default=False, description="Publish the scores of every cell: about 15 rows per second per stream."
    )
    queue_messages: int = Field(
        default=10_000,
        ge=100,
        description="Messages that may wait to be sent; when the queue is full, tags and scores are dropped first.",
    )


class StoreConfig(_Section):
    """Keeps every onset, offset and status, so that subscribers can request missed ones."""

    path: Annotated[Path | Literal["off"] | None, BeforeValidator(lambda value: "off" if value is False else value)] = (
        Field(
            default=None,
            description="SQLite file; null: ~/.local/state/earwitness/PUBLISHER.sqlite3; off: no store.",
        )
    )
    keep_days: Positive = Field(default=30.0, description="Maximum age in days; older messages are removed.")
    keep_mb: int = Field(
        default=500, ge=1, description="Maximum size in megabytes; above it the oldest messages are removed."
    )


class ReconnectConfig(_Section):
    """The wait before each reconnect: exponential backoff with full jitter."""

    first_s: Positive = Field(default=1.0, description="Limit of the first wait, in seconds.")
    last_s: Positive = Field(default=60.0, description="Highest limit, in seconds.")
    reset_s: Positive = Field(
        default=30.0, description="A connection that lasted this many seconds resets the limit to `first_s`."
    )
    refused_first_s: Positive = Field(
        default=60.0,
        description="First wait after a rejected user or password, in seconds; it doubles each time, because cameras "
        "lock accounts.",
    )
    refused_last_s: Positive = Field(
        default=900.0, description="Longest wait after a rejected user or password, in seconds."
    )


class WindowsConfig(_Section):
    """How often the model runs, in cells of 66.24 ms."""

    preset: Preset = Field(
        default=DEFAULT_PRESET, description="How soon events are published: fast, balanced or accurate."
    )
    hop_cells: int | None = Field(
        default=None, ge=1, le=128, description="Cells from one window to the next, 8 are 0.53 s; null: the preset's."
    )
    lookahead_cells: int | None = Field(
        default=None,
        ge=0,
        le=75,
        description="Cells that must follow a cell before its score is final, 15 are 1 s; null: the preset's.",
    )
    early_threshold: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="An event is published early, before its scores are final, if five scores in a row reach this; "
        "lower: sooner, with more false alarms; 1: never early; null: the preset's.",
    )
    skew_cells: int = Field(
        default=_WINDOWS.skew_cells,
        ge=0,
        le=75,
        description="A modality that lags by more cells than this is masked, so that it does not delay the others.",
    )
    max_event_s: Positive = Field(
        default=_WINDOWS.max_event_s,
        description="An event longer than this is closed with `max_duration`, and a new one begins.",
    )

    @property
    def settings(self) -> StreamSettings:
        """The same for the core, with the preset's hop and lookahead where none is set."""
        preset = PRESETS[self.preset]
        return StreamSettings(
            preset.hop_cells if self.hop_cells is None else self.hop_cells,
            preset.lookahead_cells if self.lookahead_cells is None else self.lookahead_cells,
            self.skew_cells,
            self.max_event_s,
            preset.early_threshold if self.early_threshold is None else self.early_threshold,
        )


class LoadConfig(_Section):
    """How much of the machine the model may use."""

    threads: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Threads of the model; more speed up pictures but slow down decoding.",
    )
    picture_budget: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of the model's time for pictures; if they need more, fewer pictures are processed.",
    )


class LogConfig(_Section):
    """What is logged to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged: debug, info, warning or error."
    )
    format: Literal["text", "json"] = Field(
        default="text", description="Text: readable lines; json: one object per line."
    )


class HttpConfig(_Section):
    """Access to /metrics, /healthz and /readyz."""

    token: Path | None = Field(
        default=None,
        description="File with a token that every request must contain (`Authorization: Bearer TOKEN`); required if "
        "`metrics` reaches beyond this machine.",
    )
    cert: Path | None = Field(default=None, description="TLS certificate (PEM), for https instead of http.")
    key: Path | None = Field(default=None, description="Its private key (PEM).")


class DaemonConfig(_Section):
    """The whole config."""

    publisher: str = Field(
        default="earwitness",
        pattern=f"^{NAME.pattern}$",
        description="This daemon's name in its messages; give each daemon a different one.",
    )
    model: Path | None = Field(
        default=None, description="A shipped model's name, or a bundle's folder; null: spectral."
    )
    weights: Path | None = Field(
        default=None,
        description="Folder of pretrained networks' weights (`earwitness weights`); null: ~/.cache/earwitness/weights.",
    )
    metrics: Annotated[str | None, OrOff] = Field(
        default="127.0.0.1:9464", description="HOST:PORT of /metrics, /healthz and /readyz; off: none."
    )
    streams: dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], StreamConfig] = Field(
        default={},
        description="The sources by name: 1 to 64 letters, digits, `_`, `.` and `-`.",
        json_schema_extra={"additionalProperties": False},  # the pattern of names alone refuses nothing
    )
    publish: PublishConfig = Field(default_factory=PublishConfig, description="What is published, and where.")
    store: StoreConfig = Field(
        default_factory=StoreConfig,
        description="Keeps every onset, offset and status, so that subscribers can request missed ones.",
    )
    http: HttpConfig = Field(default_factory=HttpConfig, description="Access to /metrics, /healthz and /readyz.")
    windows: WindowsConfig = Field(
        default_factory=WindowsConfig, description="How often the model runs, in cells of 66.24 ms."
    )
    reconnect: ReconnectConfig = Field(
        default_factory=ReconnectConfig,
        description="The wait before each reconnect is random, below a limit that doubles with each failure.",
    )
    load: LoadConfig = Field(default_factory=LoadConfig, description="How much of the machine the model may use.")
    log: LogConfig = Field(default_factory=LogConfig, description="What is logged to standard error.")


def json_schema() -> str:
    """`configs/daemon/schema.json`: with it an editor checks and completes a config."""
    made = DaemonConfig.model_json_schema(mode="validation")
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "Earwitness: the daemon's config",
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(json_schema())
