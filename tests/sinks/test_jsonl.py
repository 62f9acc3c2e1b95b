"""Lines of JSON, into files, pipes and standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamer.errors import SinkError
from streamer.sinks.jsonl import JsonLinesSink
from streamer.sinks.wire import decode
from tests import messages as make


def test_each_message_is_a_line_at_once_and_the_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    numberer = make.numberer()
    sent = [numberer.number(message) for message in (make.onset(), make.offset(), make.heartbeat())]
    for part in (sent[:2], sent[2:]):
        sink = JsonLinesSink(str(path))
        for message in part:
            sink.send(message)
            assert path.read_bytes().endswith(b"}\n")
        sink.close()
        sink.close()
    assert [decode(line) for line in path.read_bytes().splitlines()] == sent


def test_a_line_that_a_crash_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq":1}\n{"se')
    sink = JsonLinesSink(str(path))
    sink.send(make.numberer().number(make.onset()))
    sink.send(make.numberer().number(make.onset()))
    sink.close()
    lines = path.read_bytes().splitlines()
    assert lines[:2] == [b'{"seq":1}', b'{"se']
    assert [decode(line).seq for line in lines[2:]] == [1, 1]


def test_a_file_that_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "file"):
        with pytest.raises(SinkError, match=r"can't write messages to .*; choose another file") as raised:
            JsonLinesSink(str(path))
        assert "\n" not in str(raised.value)


def test_a_reader_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    """A full pipe loses lines, whole ones, says so, and goes on when there is room again."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = JsonLinesSink(str(path))
    numberer = make.numberer()
    lost = 0
    began_s = time.monotonic()
    for _ in range(1000):
        try:
            sink.send(numberer.number(make.onset()))
        except SinkError as error:
            assert "too slow" in str(error)  # noqa: PT017
            lost += 1
    assert time.monotonic() - began_s < 3
    assert 0 < lost < 1000
    received = b""
    while len(part := _read(reader)):
        received += part
    sink.send(numberer.number(make.offset()))
    received += _read(reader)
    sink.close()
    os.close(reader)
    kept = [json.loads(line) for line in received.split(b"\n") if line]
    assert len(kept) == 1000 - lost + 1
    assert kept[-1]["seq"] == 1001


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


def test_standard_output_of_a_real_process_and_its_end() -> None:
    script = """
import itertools
from streamer.errors import SinkError
from streamer.sinks.jsonl import JsonLinesSink
from tests import messages as make
import sys
sink, numberer = JsonLinesSink("-"), make.numberer()
for _ in itertools.count():
    try:
        sink.send(numberer.number(make.onset()))
    except SinkError as error:
        if "too slow" in str(error):
            continue
        sys.stderr.write(str(error))
        break
sink.close()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert [json.loads(process.stdout.readline())["seq"] for _ in range(3)] == [1, 2, 3]
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr.read() == b"a message to standard output is lost: Broken pipe"
    process.stderr.close()
