"""The messages that the daemon publishes: their fields, their topics, and how they are encoded and decoded.

`docs/messages.md` documents them for subscribers; `python -m streamer.sinks.wire` prints their JSON Schema.

A message is sent as two ZeroMQ parts: its topic, and one JSON object. Fields and types may be added within
schema 1, so a reader ignores fields that it does not know. It can't read a higher schema.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from streamer.errors import WireError
from streamer.media.level import InputState
from streamer.types import ClockSource, EndReason

SCHEMA = 1
"""Increased when a reader of the old messages would misread the new ones."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Names of streams and publishers: no character that could end a topic or make it match more."""

StreamState: TypeAlias = Literal["connecting", "streaming", "stalled", "backoff", "ended", "failed", "stopped"]
"""In order: opening, or no cell scored yet; cells are being scored; connected, but no media arrives; waiting
before the next attempt; the source reached its end; given up; the daemon was shut down."""

# `re.search` and JSON Schema both take a pattern as unanchored.
Name: TypeAlias = Annotated[str, Meta(pattern=f"^{NAME.pattern}$")]
StoreId: TypeAlias = Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{0,64}$")]
Share: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Length: TypeAlias = Annotated[float, Meta(ge=0.0)]


class _Header(Struct, kw_only=True, frozen=True, tag_field="type"):
    """The fields of every message. `Numberer` fills them in; a message without them can't be encoded."""

    schema: Annotated[int, Meta(ge=1, description="Version of this format.")] = SCHEMA
    publisher: Annotated[Name, Meta(description="Name of the daemon, from its config.")] = ""
    run: Annotated[Name, Meta(description="New at each start of the daemon; `seq` restarts at 1.")] = ""
    seq: Annotated[int, Meta(ge=1, description="Number of the message in its run: 1, 2, 3, ...")] = 0
    topic_seq: Annotated[int, Meta(ge=1, description="Number of the message within its topic, from 1.")] = 0
    sent_utc_s: Annotated[float, Meta(description="Unix seconds when it was first sent.")] = 0.0
    replay: Annotated[bool, Meta(description="Sent again, otherwise unchanged, because a subscriber joined.")] = False
    store: Annotated[StoreId, Meta(description="Id of the event store that assigned `stored_seq`; empty: none.")] = ""
    stored_seq: Annotated[Count, Meta(description="Number of the message in the store, from 1; 0: not stored.")] = 0


class _StreamHeader(_Header, kw_only=True, frozen=True):
    """The fields of every message about a stream."""

    stream: Annotated[Name, Meta(description="Name of the stream, from the config.")]
    epoch: Annotated[Count, Meta(description="Number of the unbroken stretch of media; seconds count from its start.")]


class OnsetMessage(_StreamHeader, kw_only=True, frozen=True, tag="onset"):
    """A sound has begun. An `offset` with the same `event_id` follows."""

    event_id: Annotated[
        str, Meta(min_length=1, description="The same in the onset and the offset, unique to the event.")
    ]
    label: Annotated[str, Meta(min_length=1, description="Class of the sound, as the model names it.")] = msgspec.field(
        name="class"
    )
    onset_s: Annotated[Length, Meta(description="Onset in media seconds of the epoch.")]
    onset_utc_s: Annotated[float | None, Meta(description="Onset in Unix seconds; null: unknown.")]
    onset_utc: Annotated[str | None, Meta(description="Onset as RFC 3339 text in UTC.")]
    clock: Annotated[ClockSource | None, Meta(description="Source of UTC; null: unknown.")]
    score: Annotated[Share, Meta(description="Filtered score of the cell that raised it; if early: the lowest score.")]
    # Fields added within schema 1 have defaults, so that messages of older daemons can be read.
    trigger_s: Annotated[
        float | None,
        Meta(description="Start of that cell in media seconds, never before the onset; null: not said."),
    ] = None
    early: Annotated[bool | None, Meta(description="Raised by scores that were not final yet; null: not said.")] = None
    level_dbfs: Annotated[
        float | None, Meta(description="Level of the sound so far in dB of full scale; null: no sound.")
    ] = None
    over_background_db: Annotated[
        float | None, Meta(description="The level above the background before the onset; null: unknown.")
    ] = None


class OffsetMessage(_StreamHeader, kw_only=True, frozen=True, tag="offset"):
    """The sound has ended. Its times are final."""

    event_id: Annotated[str, Meta(min_length=1, description="The same as in its onset message.")]
    label: Annotated[str, Meta(min_length=1, description="Class of the sound, as the model names it.")] = msgspec.field(
        name="class"
    )
    onset_s: Annotated[Length, Meta(description="Onset in media seconds of the epoch.")]
    onset_utc_s: Annotated[float | None, Meta(description="Onset in Unix seconds; null: unknown.")]
    onset_utc: Annotated[str | None, Meta(description="Onset as RFC 3339 text in UTC.")]
    offset_s: Annotated[Length, Meta(description="Offset in media seconds of the epoch.")]
    offset_utc_s: Annotated[float | None, Meta(description="Offset in Unix seconds; null: unknown.")]
    offset_utc: Annotated[str | None, Meta(description="Offset as RFC 3339 text in UTC.")]
    duration_s: Annotated[Length, Meta(description="Seconds from onset to offset.")]
    clock: Annotated[ClockSource | None, Meta(description="Source of UTC; null: unknown.")]
    confidence: Annotated[Share, Meta(description="Mean score of the event's cells.")]
    peak: Annotated[Share, Meta(description="Highest score of the event's cells.")]
    end_reason: Annotated[EndReason, Meta(description="Why it ended.")]
    # Fields added within schema 1 have defaults, so that messages of older daemons can be read.
    level_dbfs: Annotated[float | None, Meta(description="Level of the sound in dB of full scale; null: no sound.")] = (
        None
    )
    over_background_db: Annotated[
        float | None, Meta(description="The level above the background before the onset; null: unknown.")
    ] = None


class TagsMessage(_StreamHeader, kw_only=True, frozen=True, tag="tags"):
    """The probability that each class occurs anywhere in the latest window."""

    start_s: Annotated[Length, Meta(description="Start of the window in media seconds of the epoch.")]
    end_s: Annotated[Length, Meta(description="End of the window in media seconds of the epoch.")]
    start_utc_s: Annotated[float | None, Meta(description="Start in Unix seconds; null: unknown.")]
    clock: Annotated[ClockSource | None, Meta(description="Source of UTC; null: unknown.")]
    tags: Annotated[dict[str, Share], Meta(description="Maps each class to its score.")]


class ScoresMessage(_StreamHeader, kw_only=True, frozen=True, tag="scores"):
    """The scores of consecutive cells, from which events are decoded. Each cell of an epoch is sent once."""

    start_s: Annotated[Length, Meta(description="Start of the first cell in media seconds of the epoch.")]
    step_s: Annotated[Length, Meta(description="Duration of a cell in seconds.")]
    start_utc_s: Annotated[float | None, Meta(description="Start in Unix seconds; null: unknown.")]
    clock: Annotated[ClockSource | None, Meta(description="Source of UTC; null: unknown.")]
    classes: Annotated[list[str], Meta(description="The columns of `scores`.")]
    scores: Annotated[list[list[Share]], Meta(description="One row per cell, one column per class.")]
    covered: Annotated[list[bool], Meta(description="Whether each cell had media; if not, its row is 0.")]


class AudioStatus(Struct, kw_only=True, frozen=True):
    """The audio in use, and its level."""

    codec: Annotated[str, Meta(description="Codec, as FFmpeg names it.")]
    rate_hz: Annotated[Count, Meta(description="Sample rate of the source in Hz; 0: unknown.")]
    channels: Annotated[Count, Meta(description="Channels of the track; 0: unknown.")]
    channel: Annotated[str, Meta(description="Channel in use, counted from 1, or `mix`: the mean of all.")]
    track: Annotated[int, Meta(ge=1, description="Audio track in use, counted from 1.")]
    tracks: Annotated[int, Meta(ge=1, description="How many audio tracks the source has.")]
    language: Annotated[str, Meta(description="Language of the track, as the source states it; may be empty.")]
    rms_dbfs: Annotated[
        float | None, Meta(description="Level of the newest second in dB of full scale; null: not measured yet.")
    ]
    peak_dbfs: Annotated[float | None, Meta(description="Highest sample of the newest second in dB of full scale.")]


class StatusMessage(_StreamHeader, kw_only=True, frozen=True, tag="status"):
    """The state of a stream: sent when it changes, and at regular intervals."""

    state: Annotated[StreamState, Meta(description="State of the stream.")]
    reason: Annotated[str, Meta(description="Code for why it is not streaming; empty while it is.")]
    detail: Annotated[str, Meta(description="One readable line that explains the reason; never contains secrets.")]
    model: Annotated[str, Meta(description="Name of the model bundle.")]
    modalities: Annotated[list[str], Meta(description="The model's inputs that this stream provides.")]
    missing: Annotated[list[str], Meta(description="The model's inputs that this stream does not provide now.")]
    media_lag_s: Annotated[Length, Meta(description="Age of the oldest unprocessed media in seconds.")]
    coverage: Annotated[Share, Meta(description="Share of the last minute for which media was processed.")]
    picture_stride: Annotated[
        int | None, Meta(description="One picture is processed per this many cells; 0: none; null: not used.")
    ]
    pictures_hz: Annotated[float | None, Meta(description="The same rate in pictures per second.")]
    reconnects: Annotated[Count, Meta(description="Lost or failed connections since the daemon started.")]
    clock: Annotated[ClockSource | None, Meta(description="Current source of UTC; null: unknown.")]
    # Fields added within schema 1 have defaults, so that messages of older daemons can be read.
    audio: Annotated[AudioStatus | None, Meta(description="The audio in use; null: no sound.")] = None
    input: Annotated[InputState, Meta(description="Whether the audio holds any usable sound.")] = "unknown"
    warnings: Annotated[
        list[str], Meta(description="Faults while media arrives, one readable line each; never contain secrets.")
    ] = msgspec.field(default_factory=list)


class HeartbeatMessage(_Header, kw_only=True, frozen=True, tag="heartbeat"):
    """The daemon is running."""

    interval_s: Annotated[Length, Meta(description="Seconds until the next one.")]
    uptime_s: Annotated[Length, Meta(description="Seconds since the daemon started.")]
    version: Annotated[str, Meta(description="The daemon's version.")]
    streams: Annotated[dict[Name, StreamState], Meta(description="All streams and their states.")]
    catch_up: Annotated[str, Meta(description="Endpoint that answers what was missed; empty: none.")] = ""
    stored_through: Annotated[Count, Meta(description="The highest `stored_seq` of the store `store`; 0: none.")] = 0


StreamMessage: TypeAlias = OnsetMessage | OffsetMessage | TagsMessage | ScoresMessage | StatusMessage
Message: TypeAlias = StreamMessage | HeartbeatMessage

TYPES = (OnsetMessage, OffsetMessage, TagsMessage, ScoresMessage, StatusMessage, HeartbeatMessage)


class Head(Struct, frozen=True):
    """The fields that can be read from a message of any type."""

    schema: int
    type: str
    publisher: str = ""
    run: str = ""
    seq: int = 0
    topic_seq: int = 0
    replay: bool = False
    store: str = ""
    stored_seq: int = 0


_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_HEAD_DECODER = msgspec.json.Decoder(Head)
_KNOWN = frozenset(str(kind.__struct_config__.tag) for kind in TYPES)


class UnknownTypeError(WireError):
    """A message of a type that this version does not know; readers skip it."""

    def __init__(self, head: Head) -> None:
        super().__init__(f"message of unknown type {head.type!r}: sent by a newer earwitness?")
        self.head = head


def kind(message: Message) -> str:
    """The message's `type`: `onset`, `offset`, `tags`, `scores`, `status` or `heartbeat`."""
    return str(message.__struct_config__.tag)


def topic(message: Message) -> str:
    """The message's topic. It ends in `/`, so that one stream's name does not match a longer one.

    A class may contain any character, so it is percent-encoded as in a URL. Raises `WireError` if the stream's name
    is invalid.
    """
    if isinstance(message, HeartbeatMessage):
        return "heartbeat/"
    _check_name("stream", message.stream)
    if isinstance(message, (OnsetMessage, OffsetMessage)):
        return f"event/{message.stream}/{quote(message.label, safe='')}/"
    return f"{kind(message)}/{message.stream}/"


def encode(message: Message) -> bytes:
    """The message as one line of UTF-8 JSON, without the newline. Raises `WireError` if `check` does."""
    check(message)
    return msgspec.json.encode(message)


def decode(data: bytes) -> Message:
    """A message from its JSON. Fields that this version does not know are ignored.

    Raises:
        UnknownTypeError: its type is unknown; a newer daemon may have sent it.
        WireError: its schema is newer than this version, or it is not a message.

    """
    try:
        head = _HEAD_DECODER.decode(data)
        if head.schema > SCHEMA:
            raise WireError(f"message of schema {head.schema}, but this earwitness reads up to {SCHEMA}: update it")
        if head.type not in _KNOWN:
            raise UnknownTypeError(head)
        message = _DECODER.decode(data)
    except UnicodeDecodeError:
        raise WireError("not a message: not UTF-8; is this the endpoint of an earwitness?") from None
    except msgspec.MsgspecError as error:
        raise WireError(f"not a message: {error}; is this the endpoint of an earwitness?") from None
    check(message)
    return message


def check(message: Message) -> None:
    """Check that the message can be sent.

    Raises:
        WireError: it was not numbered, a name in it is invalid, or a number is not finite (JSON has no such numbers).

    """
    _check_name("publisher", message.publisher)
    _check_name("run", message.run)
    if message.seq < 1 or message.topic_seq < 1:
        raise WireError(f"{kind(message)} message has no seq or topic_seq: it was never numbered")
    topic(message)
    for name in message.__struct_fields__:
        if not _finite(getattr(message, name)):
            raise WireError(f"{kind(message)} message: {name} is not a finite number; the model or a clock is broken")


def _check_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise WireError(f"{what} {name!r} is not a name: 1 to 64 letters, digits, '_', '.' and '-'")


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return True


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one message. It allows unknown fields, as readers must."""
    references, components = msgspec.json.schema_components(TYPES, ref_template="#/$defs/{name}")
    for component in components.values():
        # Header fields have defaults in Python so that messages can be made before they are numbered. They are always
        # sent.
        component["required"] = list(component["properties"])
        for field in component["properties"].values():
            field.pop("default", None)
        if "type" in component["properties"]:  # a message, not a part of one
            component["properties"]["schema"] = {"const": SCHEMA, "description": "Version of this format."}
        component["description"] = " ".join(str(component.get("description", "")).split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Messages of earwitness, schema {SCHEMA}",
        "oneOf": list(references),
        "$defs": components,
    }


def schema_text() -> str:
    """`json_schema` as text, as stored in `docs/messages.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
