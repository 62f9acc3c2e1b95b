"""The config's JSON Schema, with which editors check it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from streamer.config.schema import json_schema

CONFIGS = Path(__file__).parents[2] / "configs" / "daemon"
MODELINE = "# yaml-language-server: $schema=schema.json"


def faults(text: str) -> list[Any]:
    validator = jsonschema.Draft202012Validator(json.loads(json_schema()))
    return list(validator.iter_errors(yaml.safe_load(text)))


def test_the_schema_is_generated() -> None:
    assert (CONFIGS / "schema.json").read_text() == json_schema(), "run `make schema`"
    jsonschema.Draft202012Validator.check_schema(json.loads(json_schema()))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_configs_name_it_and_are_valid(path: Path) -> None:
    assert path.read_text().startswith(MODELINE + "\n")
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "metrics: off",
        "metrics: 'off'",
        "publish: {zmq: null, jsonl: '-'}",
        "streams: {a: {source: x, audio_track: 2, channel: left, ffmpeg: {rw_timeout: '1'}}}",
    ],
)
def test_accepted_configs_are_valid(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "metric: off",
        "metrics: 9464",
        "streams: {door: {}}",
        "streams: {door: {source: ''}}",
        "streams: {door: {source: 1}}",
        "streams: {a b: {source: x}}",
        "streams: {door: {source: x, transport: tpc}}",
        "streams: {door: {source: x, queue_s: 0}}",
        "streams: {door: {source: x, ffmpeg: {a: 1}}}",
        "windows: {hop_cells: 0}",
        "publisher: a/b",
        "log: {level: loud}",
        "publish: {queue_messages: 10}",
    ],
)
def test_refused_configs_are_invalid(text: str) -> None:
    assert len(faults(text)) >= 1
