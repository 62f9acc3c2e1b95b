"""YAML errors: reported with file and line, and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.config.loading import load_config
from streamer.errors import ConfigError
from tests.canary import CANARY


def fault(tmp_path: Path, text: str) -> str:
    path = tmp_path / "daemon.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("name", "read_as"),
    [
        ("1", "a number"),
        ("0x1F", "a number"),
        ("1_000", "a number"),
        ("1.5", "a number"),
        (".5", "a number"),
        ("1.0e+3", "a number"),
        (".inf", "a number"),
        ("on", "a yes or no"),
        ("off", "a yes or no"),
        ("yes", "a yes or no"),
        ("No", "a yes or no"),
        ("TRUE", "a yes or no"),
        ("null", "null"),
        ("~", "null"),
        ("2024-01-01", "a date"),
        ("2024-13-45", "a date"),
        ("=", "a default value"),
    ],
)
def test_a_stream_whose_name_yaml_does_not_read_as_text(tmp_path: Path, name: str, read_as: str) -> None:
    expected = f'config FILE:3: YAML reads the name {name} as {read_as}; write it in quotes: "{name}"'
    assert fault(tmp_path, f"streams:\n  door: {{source: x}}\n  {name}: {{source: y}}\n") == expected


@pytest.mark.parametrize("name", ["1", "on", "null", "1.5", "2024-01-01", "y"])
def test_in_quotes_it_is_a_name(tmp_path: Path, name: str) -> None:
    for quote in ('"', "'"):
        path = tmp_path / "daemon.yaml"
        path.write_text(f"streams:\n  {quote}{name}{quote}: {{source: y}}\n")
        assert list(load_config(path, {}).streams) == [name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("publisher: 1\n", 'config FILE:1: publisher: YAML reads 1 as a number; write it in quotes: "1"'),
        ("publisher: on\n", 'config FILE:1: publisher: YAML reads on as a yes or no; write it in quotes: "on"'),
        (
            "publisher: 2024-13-45\n",
            "config FILE:1: publisher: YAML reads it as a date, but not a valid one; writ",
        ),
        ("model: 2024-01-01\n", 'config FILE:1: model: YAML reads 2024-01-01 as a date; write it in quotes: "2024-01'),
        (
            "publish: {zmq: 5557}\n",
            "config FILE:1: publish.zmq: 5557 is not an address; write one like tcp://127.0.0.1:555",
        ),
        ("metrics: 9464\n", "config FILE:1: metrics: 9464 is not an address; write one like 127.0.0.1:9464"),
        ("publish: {jsonl: 1}\n", 'publish.jsonl: YAML reads 1 as a number; write it in quotes: "1"'),
        ("log: {level: off}\n", "config FILE:1: log.level: input should be 'debug', 'info', 'warning' or 'error'"),
        ("streams: {a: {source: x, transport: off}}\n", "streams.a.transport: input should be 'tcp' or 'udp'"),
        (
            "streams: {a: {source: x, format: 1}}\n",
            'streams.a.format: YAML reads 1 as a number; write it in quotes: "1"',
        ),
        ("streams: {a: {source: x, ffmpeg: {1: a}}}\n", 'YAML reads the name 1 as a number; write it in quotes: "1"'),
        (
            "windows:\n  hop_cells: 010\n",
            "FILE:2: windows.hop_cells: YAML reads it as 8; write the number in plain digits",
        ),
        (
            "windows: {max_event_s: 1:30}\n",
            "FILE:1: windows.max_event_s: YAML reads it as 90; write the number in pl",
        ),
        ("streams: {a: {source: }}\n", "config FILE:1: streams.a.source is missing"),
        ("streams: {a: {source: ''}}\n", "config FILE:1: streams.a.source: names no source; write a URL, a file or a"),
        ("streams: {a: {source: [x]}}\n", "config FILE:1: streams.a.source must be text"),
        ("streams: &x {a: *x}\n", "config FILE: not valid YAML: it is nested too deeply, or contains itself"),
        ("[" * 5000, "config FILE: not valid YAML: it is nested too deeply, or contains itself"),
        ("streams: {[a]: {source: x}}\n", "config FILE:1: a name must be text"),
    ],
)
def test_values_that_yaml_reads_as_something_else(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in fault(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "streams: {a: {source: 1234567}}",
        "streams: {a: {source: x, ffmpeg: {password: 1234567}}}",
        f"streams: {{a: {{source: x, ffmpeg: {{headers: *{CANARY}}}}}}}",
        f"streams: {{a: {{source: !{CANARY} x}}}}",
        f"streams: {{a: {{source: !{CANARY}!y x}}}}",
        f"streams: {{a: {{source: &{CANARY} x, b: &{CANARY} y}}}}",
        f"streams: {{a: {{source: %{CANARY}}}}}",
        f'streams: {{a: {{source: "\\q{CANARY}"}}}}',
        f"streams: {{rtsp://u:{CANARY}@h/x: {{source: x}}}}",
        f"streams: {{a: {{rtsp://u:{CANARY}@h/x: 1}}}}",
        f"streams: {{a: rtsp://u:{CANARY}@h/x}}",
        f"streams: [rtsp://u:{CANARY}@h/x]",
        f"rtsp://u:{CANARY}@h/x",
        f"rtsp://u:{CANARY}@h/x: 1",
        f"streams: {{rtsp://u:{CANARY}@h/x: 1, rtsp://u:{CANARY}@h/x: 2}}",
        f"log: {{level: rtsp://u:{CANARY}@h/x}}",
        f"windows: {{hop_cells: {CANARY}}}",
    ],
)
def test_no_secret_is_quoted(tmp_path: Path, text: str) -> None:
    error = fault(tmp_path, text)
    assert CANARY not in error
    assert "1234567" not in error
