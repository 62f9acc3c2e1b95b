"""The wire format: messages survive a round trip, errors say what is wrong, schema and documentation are current."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings

from streamer.errors import WireError
from streamer.sinks.wire import SCHEMA, TYPES, Message, UnknownTypeError, decode, encode, json_schema, kind, topic
from tests import messages as make

DOCS = Path(__file__).parents[2] / "docs"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


@given(make.any_message())
def test_a_message_survives_a_round_trip_and_fits_the_schema(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert b"\n" not in data
    VALIDATOR.validate(json.loads(data))


@settings(max_examples=50)
@given(make.any_message())
def test_every_field_is_sent_and_required(message: Message) -> None:
    sent = json.loads(encode(message))
    component = json_schema()["$defs"][type(message).__name__]
    assert set(component["required"]) == set(component["properties"]) == set(sent)
    assert sent["type"] == kind(message)


def test_fields_of_a_later_version_are_ignored() -> None:
    sent = json.loads(encode(make.numberer().number(make.onset())))
    sent["loudness_db"] = -12.5
    assert decode(json.dumps(sent).encode()).seq == 1
    VALIDATOR.validate(sent)


def test_a_newer_schema_is_refused_before_anything_else_is_checked() -> None:
    with pytest.raises(WireError, match=rf"schema {SCHEMA + 1}.*reads up to {SCHEMA}: update it") as raised:
        decode(json.dumps({"schema": SCHEMA + 1, "type": "onset", "onset_s": "now in words"}).encode())
    assert not isinstance(raised.value, UnknownTypeError)


def test_an_unknown_type_can_be_told_from_rubbish() -> None:
    with pytest.raises(UnknownTypeError, match="'clip'") as raised:
        decode(b'{"schema":1,"type":"clip","publisher":"p","run":"r","seq":7,"topic_seq":1,"url":"x"}')
    assert raised.value.head.seq == 7


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"schema":1}',
        b'{"type":"onset"}',
        b'{"schema":1,"type":"\xff"}',
        b'{"schema":1,"type":"onset"}',
        b'{"schema":"1","type":"onset"}',
    ],
)
def test_rubbish_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(WireError, match=r"not a message: .*is this the endpoint of an earwitness") as raised:
        decode(data)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("missing", ["publisher", "run", "seq", "topic_seq", "stream", "epoch", "class", "score"])
def test_a_message_without_a_field_is_refused(missing: str) -> None:
    sent = json.loads(encode(make.numberer().number(make.onset())))
    del sent[missing]
    with pytest.raises(WireError):
        decode(json.dumps(sent).encode())
    assert not VALIDATOR.is_valid(sent)


def test_a_message_without_a_number_is_not_sent() -> None:
    with pytest.raises(WireError):
        encode(make.onset())


@pytest.mark.parametrize("stream", ["", "a/b", "cam\n", "cam ", "ümlaut", "x" * 65, "*"])
def test_names_that_would_break_topics_are_refused(stream: str) -> None:
    with pytest.raises(WireError, match="1 to 64 letters"):
        topic(make.status(stream))
    sent = json.loads(encode(make.numberer().number(make.status())))
    with pytest.raises(WireError):
        decode(json.dumps({**sent, "stream": stream}).encode())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused_wherever_they_stand(bad: float) -> None:
    numberer = make.numberer()
    for message in (
        msgspec.structs.replace(make.onset(), score=bad),
        msgspec.structs.replace(make.tags(), tags={"Dog": bad}),
        msgspec.structs.replace(make.scores(), scores=[[0.0, bad, 0.0]]),
    ):
        with pytest.raises(WireError, match="not a finite number"):
            numberer.number(message)
    assert numberer.number(make.onset()).seq == 1  # none was used up


def test_topics() -> None:
    assert topic(make.onset()) == topic(make.offset()) == "event/cam/Dog/"
    assert topic(make.onset(label="Male speech, 1/2 ü")) == "event/cam/Male%20speech%2C%201%2F2%20%C3%BC/"
    assert topic(make.tags()) == "tags/cam/"
    assert topic(make.scores()) == "scores/cam/"
    assert topic(make.status()) == "status/cam/"
    assert topic(make.heartbeat()) == "heartbeat/"


@settings(max_examples=50)
@given(make.any_message())
def test_no_topic_is_a_prefix_of_another(message: Message) -> None:
    its_topic = topic(message)
    assert its_topic.endswith("/")
    assert its_topic.count("/") == (1 if kind(message) == "heartbeat" else 3 if its_topic.startswith("event/") else 2)


def test_the_schema_file_is_current() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "streamer.sinks.wire"], capture_output=True, text=True, check=True, cwd=DOCS.parent
    )
    assert (DOCS / "messages.schema.json").read_text() == printed.stdout, "run `make schema`"
    jsonschema.Draft202012Validator.check_schema(json.loads(printed.stdout))


def test_every_field_of_every_message_is_documented() -> None:
    sections = (DOCS / "messages.md").read_text().split("\n## ")
    for component in json_schema()["$defs"].values():
        if component["title"] == "AudioStatus":
            section = next(text for text in sections if text.startswith("`status`"))
            (row,) = (line for line in section.splitlines() if line.startswith("| `audio` |"))
            for field in component["properties"]:
                assert f"`{field}`" in row, f"docs/messages.md says nothing of status.audio.{field}"
            continue
        name = component["properties"]["type"]["enum"][0]
        section = next(text for text in sections if text.startswith(f"`{name}`"))
        common = next(text for text in sections if text.startswith("In every message"))
        for field in component["properties"]:
            assert f"| `{field}` |" in section + common, f"docs/messages.md says nothing of {name}.{field}"


def test_the_examples_in_the_documentation_are_messages() -> None:
    blocks = (DOCS / "messages.md").read_text().split("```json\n")[1:]
    found = [decode(block.split("```")[0].encode()) for block in blocks]
    assert {type(message) for message in found} == set(TYPES)
