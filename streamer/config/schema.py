"""The daemon's config: its fields and their defaults.

`configs/daemon/example.yaml` shows every field. What belongs to a model (classes, thresholds, windows) is
in its bundle and can't be set here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, SecretStr
from pydantic_core import PydanticCustomError

from streamer.address import Address
from streamer.sinks.wire import NAME
from streamer.windows import StreamSettings

_WINDOWS = StreamSettings()  # the core's defaults, which replay has too
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# YAML 1.1 reads a bare `off` as false.
OrOff = BeforeValidator(lambda value: None if value is False or value == "off" else value)


def _address(value: object) -> object:
    if value == "":
        raise PydanticCustomError("empty", "names no source: write a URL, a file or a device")
    return Address.parse(value) if isinstance(value, str) else value


Place = Annotated[InstanceOf[Address], BeforeValidator(_address)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamConfig(_Section):
    """One source."""

    source: Place = Field(
        description="An RTSP(S), RTMP, HTTP(S), HLS or UDP URL, a file, a pipe (`-`: standard input), or a device. "
        "`${NAME}` is replaced by the "
        "environment variable NAME, or by the content of the file that NAME_FILE names, and percent-encoded, so that a "
        "password need not stand in the config.",
    )
    transport: Literal["tcp", "udp"] = Field(
        default="tcp", description="How RTSP carries media: tcp loses nothing on the way."
    )
    format: str | None = Field(
        default=None,
        description="FFmpeg's name of the input format, where it can't be guessed: alsa, v4l2, mpegts, ...",
    )
    ffmpeg: dict[str, SecretStr] = Field(
        default={},
        description="More FFmpeg options for this input, with `${NAME}` as in `source` but not encoded; their values "
        "are never shown, and an unknown option is an error.",
    )
    audio_track: Annotated[int, Field(ge=1)] | Annotated[str, Field(min_length=2)] | None = Field(
        default=None,
        description="Which audio track is listened to: its number, from 1, or its language (`deu`); null: the best.",
    )
    channel: Annotated[int, Field(ge=1)] | Literal["mix", "left", "right"] = Field(
        default="mix",
        description="What of it: the mean of all channels (`mix`), `left`, `right`, or a channel's number, from 1.",
    )
    open_timeout_s: Positive = Field(default=10.0, description="Seconds that opening may take.")
    read_timeout_s: Positive = Field(
        default=10.0,
        description="Seconds without media after which the connection is given up; "
        "more where media comes in bursts (HLS), by the length of their pauses. That is logged.",
    )
    hole_limit_s: Positive = Field(
        default=2.0, description="A longer hole in the media ends the epoch; a shorter one is masked and reported."
    )
    stall_s: Positive = Field(
        default=5.0,
        description="A live stream that brings nothing for so long has its open events closed with `gap`; "
        "with bursts, counted from where their pause should have ended.",
    )
    watchdog_s: Positive = Field(
        default=20.0,
        description="A connection of which nothing comes out at the last stage for so long is cut and made anew; with "
        "bursts, counted from where their pause should have ended.",
    )
    queue_s: Positive = Field(
        default=5.0,
        description="Seconds of media that may wait for the model; a live stream later than that drops its oldest.",
    )
    realtime: bool = Field(default=False, description="Read a file at its own speed, as if it were a live source.")
    loop: bool = Field(
        default=False,
        description="Begin a recording again at its end; what comes through a pipe has no beginning to go back to.",
    )
    reconnect: bool = Field(
        default=True,
        description="Try a live source again when it is lost. A recording is never tried again.",
    )


class PublishConfig(_Section):
    """Where messages go, and which."""

    zmq: Annotated[str | None, OrOff] = Field(
        default="tcp://127.0.0.1:5557", description="ZeroMQ endpoint that subscribers connect to; `off`: none."
    )
    keys: Path | None = Field(
        default=None,
        description="Folder of keys (`earwitness keys`): only subscribers whose key is in it may connect, and all is "
        "encrypted; null: anybody may, which is refused beyond this machine.",
    )
    jsonl: Annotated[str | None, OrOff] = Field(
        default=None,
        description="File to which each message is appended as a line of JSON; `-`: standard output; `off`: none.",
    )
    tags: bool = Field(default=True, description="Publish the clip-level tags of every window.")
    scores: bool = Field(default=False, description="Publish every cell's scores: about 15 rows a second and stream.")
    queue_messages: int = Field(
        default=10_000, ge=100, description="Messages that may wait to be sent; then tags and scores are dropped first."
    )


class StoreConfig(_Section):
    """Where messages are kept, so that nobody misses one."""

    path: Annotated[Path | Literal["off"] | None, BeforeValidator(lambda value: "off" if value is False else value)] = (
        Field(
            default=None,
            description="The event store's file; null: PUBLISHER.sqlite3 in the user's state folder; `off`: none.",
        )
    )
    keep_days: Positive = Field(default=30.0, description="Older messages are removed.")
    keep_mb: int = Field(default=500, ge=1, description="Megabytes; beyond, the oldest messages are removed.")


class ReconnectConfig(_Section):
    """How soon a lost source is tried again: exponential backoff with full jitter."""

    first_s: Positive = Field(default=1.0, description="Upper limit of the first wait.")
    last_s: Positive = Field(default=60.0, description="Upper limit of every wait.")
    reset_s: Positive = Field(
        default=30.0, description="A connection that was well for so long begins at `first_s` again."
    )
    refused_first_s: Positive = Field(
        default=60.0,
        description="The first wait after a refused user or password, which doubles each time: cameras lock accounts.",
    )
    refused_last_s: Positive = Field(default=900.0, description="That wait never grows beyond this.")


class WindowsConfig(_Section):
    """How often the model looks, in cells of 66.24 ms."""

    hop_cells: int = Field(
        default=_WINDOWS.hop_cells, ge=1, le=128, description="Cells between two windows (8: 0.53 s)."
    )
    lookahead_cells: int = Field(
        default=_WINDOWS.lookahead_cells,
        ge=0,
        le=75,
        description="Cells that must be known behind a cell before it is scored (45: 3 s).",
    )
    skew_cells: int = Field(
        default=_WINDOWS.skew_cells,
        ge=0,
        le=75,
        description="A modality that is further behind than this is masked and holds nothing up.",
    )
    max_event_s: Positive = Field(
        default=_WINDOWS.max_event_s, description="A longer event is closed with `max_duration`, and a new one begins."
    )


class LoadConfig(_Section):
    """How much of the machine the model may use."""

    threads: int = Field(
        default=1, ge=1, le=64, description="Threads of the model. More help pictures, and disturb decoding."
    )
    picture_budget: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of the model's time that pictures may take; beyond it fewer are looked at.",
    )


class LogConfig(_Section):
    """What is said on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is logged.")
    format: Literal["text", "json"] = Field(default="text", description="A line for people, or one JSON object a line.")


class DaemonConfig(_Section):
    """The whole config."""

    publisher: str = Field(
        default="earwitness",
        pattern=f"^{NAME.pattern}$",
        description="This daemon's name in its messages; give each its own.",
    )
    model: Path | None = Field(
        default=None, description="Folder of the model bundle; by default the one that is shipped."
    )
    weights: Path | None = Field(
        default=None,
        description="Folder of pretrained networks' weights (`earwitness weights`); by default the user's cache.",
    )
    streams: dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], StreamConfig] = Field(
        default={}, description="The sources, by name. Names are letters, digits, `_`, `.` and `-`, at most 64 of them."
    )
    publish: PublishConfig = Field(default_factory=PublishConfig, description="Where messages go, and which.")
    store: StoreConfig = Field(
        default_factory=StoreConfig, description="Where messages are kept, so that nobody misses one."
    )
    metrics: Annotated[str | None, OrOff] = Field(
        default="127.0.0.1:9464", description="HOST:PORT of /metrics, /healthz and /readyz; `off`: none."
    )
    windows: WindowsConfig = Field(default_factory=WindowsConfig, description="How often the model looks.")
    reconnect: ReconnectConfig = Field(
        default_factory=ReconnectConfig, description="How soon a lost source is tried again."
    )
    load: LoadConfig = Field(default_factory=LoadConfig, description="How much of the machine the model may use.")
    log: LogConfig = Field(default_factory=LogConfig, description="What is said on standard error.")
