"""The messages that leave the daemon: what is in them, their topics, and how they become bytes and come back.

`docs/messages.md` tells subscribers about them; `python -m streamer.sinks.wire` prints their JSON Schema.

A message goes out as two frames: its topic, and one JSON object. Within schema 1 fields and types may be
added, so a reader ignores fields it does not know; a higher schema is one that it can't read.
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
from streamer.types import ClockSource, EndReason

SCHEMA = 1
"""Rises when a reader of the old messages would misread the new ones."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Names of streams and publishers: nothing that could end or widen a topic."""

StreamState: TypeAlias = Literal["connecting", "streaming", "stalled", "backoff", "ended", "failed", "stopped"]
"""Opening, or open without a scored cell yet; scored; open but nothing comes; waiting to try again;
at its end; given up; the daemon was shut down."""

# `re.search` and JSON Schema both take a pattern as unanchored.
Name: TypeAlias = Annotated[str, Meta(pattern=f"^{NAME.pattern}$")]
Share: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Length: TypeAlias = Annotated[float, Meta(ge=0.0)]


class _Header(Struct, kw_only=True, frozen=True, tag_field="type"):
    """What every message has. `Numberer` fills it in; a message without it can't be encoded."""

    schema: Annotated[int, Meta(ge=1, description="Version of this format.")] = SCHEMA
    publisher: Annotated[Name, Meta(description="Name of the daemon, from its config.")] = ""
    run: Annotated[Name, Meta(description="New at each start of the daemon; `seq` begins again with it.")] = ""
    seq: Annotated[int, Meta(ge=1, description="Number of the message in its run: 1, 2, 3, ...")] = 0
    topic_seq: Annotated[int, Meta(ge=1, description="Number of the message among those of its topic, from 1.")] = 0
    sent_utc_s: Annotated[float, Meta(description="Unix seconds at which it was first sent.")] = 0.0
    replay: Annotated[bool, Meta(description="Sent once more, unchanged, for a subscriber that came later.")] = False


class _StreamHeader(_Header, kw_only=True, frozen=True):
    """What every message about a stream has."""

    stream: Annotated[Name, Meta(description="Name of the stream, from the config.")]
    epoch: Annotated[Count, Meta(description="Which unbroken connection of the stream; media seconds begin in it.")]


class OnsetMessage(_StreamHeader, kw_only=True, frozen=True, tag="onset"):
    """A sound has begun, for certain. An `offset` with the same `event_id` follows."""

    event_id: Annotated[str, Meta(min_length=1, description="The same in the onset and the offset, else unique.")]
    label: Annotated[str, Meta(min_length=1, description="What was heard, in the model's words.")] = msgspec.field(
        name="class"
    )
    onset_s: Annotated[Length, Meta(description="When it began: media seconds in the epoch.")]
    onset_utc_s: Annotated[float | None, Meta(description="When it began: Unix seconds; null: not known.")]
    onset_utc: Annotated[str | None, Meta(description="The same as RFC 3339 text in UTC.")]
    clock: Annotated[ClockSource | None, Meta(description="Where UTC comes from; null: it is not known.")]
    score: Annotated[Share, Meta(description="Filtered score of the cell that crossed the threshold.")]


class OffsetMessage(_StreamHeader, kw_only=True, frozen=True, tag="offset"):
    """The sound has ended; all its times are final."""

    event_id: Annotated[str, Meta(min_length=1, description="That of its onset.")]
    label: Annotated[str, Meta(min_length=1, description="What was heard, in the model's words.")] = msgspec.field(
        name="class"
    )
    onset_s: Annotated[Length, Meta(description="When it began: media seconds in the epoch.")]
    onset_utc_s: Annotated[float | None, Meta(description="When it began: Unix seconds; null: not known.")]
    onset_utc: Annotated[str | None, Meta(description="The same as RFC 3339 text in UTC.")]
    offset_s: Annotated[Length, Meta(description="When it ended: media seconds in the epoch.")]
    offset_utc_s: Annotated[float | None, Meta(description="When it ended: Unix seconds; null: not known.")]
    offset_utc: Annotated[str | None, Meta(description="The same as RFC 3339 text in UTC.")]
    duration_s: Annotated[Length, Meta(description="Seconds from onset to offset.")]
    clock: Annotated[ClockSource | None, Meta(description="Where UTC comes from; null: it is not known.")]
    confidence: Annotated[Share, Meta(description="Mean score of the event's cells.")]
    peak: Annotated[Share, Meta(description="Highest score of the event's cells.")]
    end_reason: Annotated[EndReason, Meta(description="Why it ended.")]


class TagsMessage(_StreamHeader, kw_only=True, frozen=True, tag="tags"):
    """How likely each class is somewhere in the newest window."""

    start_s: Annotated[Length, Meta(description="Where the window begins: media seconds in the epoch.")]
    end_s: Annotated[Length, Meta(description="Where it ends.")]
    start_utc_s: Annotated[float | None, Meta(description="Where it begins: Unix seconds; null: not known.")]
    clock: Annotated[ClockSource | None, Meta(description="Where UTC comes from; null: it is not known.")]
    tags: Annotated[dict[str, Share], Meta(description="Class to score.")]


class ScoresMessage(_StreamHeader, kw_only=True, frozen=True, tag="scores"):
    """The scores of consecutive cells, as the events are made of. Each cell of an epoch comes once."""

    start_s: Annotated[Length, Meta(description="Where the first cell begins: media seconds in the epoch.")]
    step_s: Annotated[Length, Meta(description="Seconds of a cell.")]
    start_utc_s: Annotated[float | None, Meta(description="Where it begins: Unix seconds; null: not known.")]
    clock: Annotated[ClockSource | None, Meta(description="Where UTC comes from; null: it is not known.")]
    classes: Annotated[list[str], Meta(description="The columns of `scores`.")]
    scores: Annotated[list[list[Share]], Meta(description="A row for each cell, a column for each class.")]
    covered: Annotated[list[bool], Meta(description="For each cell: whether there was media; if not, its row is 0.")]


class StatusMessage(_StreamHeader, kw_only=True, frozen=True, tag="status"):
    """How a stream is: sent when that changes, and now and then."""

    state: Annotated[StreamState, Meta(description="What the stream is doing.")]
    reason: Annotated[str, Meta(description="A fixed word for why it is not streaming; empty if it is.")]
    detail: Annotated[str, Meta(description="One line for people on the same; holds no secrets.")]
    model: Annotated[str, Meta(description="Name of the model bundle.")]
    modalities: Annotated[list[str], Meta(description="What the model gets from this stream.")]
    missing: Annotated[list[str], Meta(description="What it could use but the stream does not have now.")]
    media_lag_s: Annotated[Length, Meta(description="Age of the oldest media that is not processed yet.")]
    coverage: Annotated[Share, Meta(description="Share of the last minute that was heard or seen.")]
    picture_stride: Annotated[
        int | None, Meta(description="One picture in so many cells is looked at; 0: none; null: no pictures wanted.")
    ]
    pictures_hz: Annotated[float | None, Meta(description="The same as pictures a second.")]
    reconnects: Annotated[Count, Meta(description="Lost or failed connections since the start.")]
    clock: Annotated[ClockSource | None, Meta(description="Where UTC comes from now; null: it is not known.")]


class HeartbeatMessage(_Header, kw_only=True, frozen=True, tag="heartbeat"):
    """The daemon lives."""

    interval_s: Annotated[Length, Meta(description="Seconds until the next one.")]
    uptime_s: Annotated[Length, Meta(description="Seconds since the daemon's start.")]
    version: Annotated[str, Meta(description="The daemon's version.")]
    streams: Annotated[dict[Name, StreamState], Meta(description="All streams and their states.")]


StreamMessage: TypeAlias = OnsetMessage | OffsetMessage | TagsMessage | ScoresMessage | StatusMessage
Message: TypeAlias = StreamMessage | HeartbeatMessage

TYPES = (OnsetMessage, OffsetMessage, TagsMessage, ScoresMessage, StatusMessage, HeartbeatMessage)


class Head(Struct, frozen=True):
    """What can be read of a message of any type."""

    schema: int
    type: str
    publisher: str = ""
    run: str = ""
    seq: int = 0
    topic_seq: int = 0
    replay: bool = False


_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_HEAD_DECODER = msgspec.json.Decoder(Head)
_KNOWN = frozenset(str(kind.__struct_config__.tag) for kind in TYPES)


class UnknownTypeError(WireError):
    """A message of a type that came after this version: a reader passes over it."""

    def __init__(self, head: Head) -> None:
        super().__init__(f"message of unknown type {head.type!r}: sent by a newer earwitness?")
        self.head = head


def kind(message: Message) -> str:
    """The message's `type`: `onset`, `offset`, `tags`, `scores`, `status` or `heartbeat`."""
    return str(message.__struct_config__.tag)


def topic(message: Message) -> str:
    """The message's topic. It ends in `/`, so that the whole name of a stream matches no longer name.

    A class is percent-encoded as in a URL: it may hold anything. Raises `WireError` if the stream's name is not one.
    """
    if isinstance(message, HeartbeatMessage):
        return "heartbeat/"
    _check_name("stream", message.stream)
    if isinstance(message, (OnsetMessage, OffsetMessage)):
        return f"event/{message.stream}/{quote(message.label, safe='')}/"
    return f"{kind(message)}/{message.stream}/"


def encode(message: Message) -> bytes:
    """The message as one line of JSON, UTF-8, without the newline. Raises `WireError` if `check` does."""
    check(message)
    return msgspec.json.encode(message)


def decode(data: bytes) -> Message:
    """A message from its JSON. Fields that this version does not know are ignored.

    Raises:
        UnknownTypeError: its type is not known; newer daemons may send such.
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
        raise WireError("not a message: is not UTF-8; is this the endpoint of an earwitness?") from None
    except msgspec.MsgspecError as error:
        raise WireError(f"not a message: {error}; is this the endpoint of an earwitness?") from None
    check(message)
    return message


def check(message: Message) -> None:
    """See that the message can be sent.

    Raises:
        WireError: it was not numbered, a name in it is not one, or a number is not finite (JSON has no such numbers).

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
    """The JSON Schema (2020-12) of one message. Unknown fields are allowed, as readers must allow them."""
    references, components = msgspec.json.schema_components(TYPES, ref_template="#/$defs/{name}")
    for component in components.values():
        # What has a default in Python, so that messages can be made before they are numbered, is always sent.
        component["required"] = list(component["properties"])
        for field in component["properties"].values():
            field.pop("default", None)
        component["properties"]["schema"] = {"const": SCHEMA, "description": "Version of this format."}
        component["description"] = " ".join(str(component.get("description", "")).split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Messages of earwitness, schema {SCHEMA}",
        "oneOf": list(references),
        "$defs": components,
    }


def schema_text() -> str:
    """`json_schema` as it is kept in `docs/messages.schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
