"""JSON lines to files, pipes and standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamer.errors import SinkError
from streamer.sinks.base import Numberer
from streamer.sinks.jsonl import JsonLinesSink
from streamer.sinks.wire import decode
from tests import messages as make


def test_each_message_is_a_line_at_once_and_an_existing_file_is_appended_to(tmp_path: Path) -> None:
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


def test_a_line_that_a_crash_cut_short_damages_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"seq":1}\n{"se')
    sink = JsonLinesSink(str(path))
    sink.send(make.numberer().number(make.onset()))
    sink.send(make.numberer().number(make.onset()))
    sink.close()
    lines = path.read_bytes().splitlines()
    assert lines[:2] == [b'{"seq":1}', b'{"se']
    assert [decode(line).seq for line in lines[2:]] == [1, 1]


def test_a_file_that_cannot_be_opened_is_refused_in_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "file"):
        with pytest.raises(SinkError, match=r"can't write messages to .*; choose another file") as raised:
            JsonLinesSink(str(path))
        assert "\n" not in str(raised.value)


def test_a_blocked_reader_is_not_waited_for(tmp_path: Path) -> None:
    """A full pipe loses whole lines, reports it, and works again once there is room."""
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
    assert process.stderr.read() == b"the reader of standard output is gone; it gets no more messages"
    process.stderr.close()


def _seqs(*paths: Path) -> list[int]:
    return [json.loads(line)["seq"] for path in paths for line in path.read_bytes().splitlines()]


def _sent(sink: JsonLinesSink, numberer: Numberer) -> bool:
    try:
        sink.send(numberer.number(make.onset()))
    except SinkError:
        return False
    return True


def test_a_moved_or_removed_file_is_replaced_at_its_path(tmp_path: Path) -> None:
    """logrotate's `nocreate` and `create`; then the old file is compressed and removed."""
    path, old = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    sink, numberer = JsonLinesSink(str(path)), make.numberer()
    assert _sent(sink, numberer)
    path.rename(old)
    assert _sent(sink, numberer)
    assert _seqs(old, path) == [1, 2]
    path.rename(old)
    path.touch()
    assert _sent(sink, numberer)
    assert _seqs(old, path) == [2, 3]
    path.unlink()
    assert _sent(sink, numberer)
    assert _seqs(path) == [4]
    sink.close()


def test_a_truncated_file_is_written_from_its_start(tmp_path: Path) -> None:
    """logrotate's `copytruncate`; without O_APPEND there would be a hole of zeros."""
    path = tmp_path / "events.jsonl"
    sink, numberer = JsonLinesSink(str(path)), make.numberer()
    assert _sent(sink, numberer)
    os.truncate(path, 0)
    assert _sent(sink, numberer)
    assert _seqs(path) == [2]
    sink.close()


def test_a_removed_folder_is_reported_and_used_again_once_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "events.jsonl"
    sink, numberer = JsonLinesSink(str(path)), make.numberer()
    assert _sent(sink, numberer)
    path.unlink()
    folder.rmdir()
    with pytest.raises(SinkError, match=r"message to .*events.jsonl lost: No such file or directory"):
        sink.send(numberer.number(make.onset()))
    assert not _sent(sink, numberer)
    folder.mkdir()
    assert _sent(sink, numberer)
    assert _seqs(path) == [4]
    sink.close()


def test_a_folder_at_the_path_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink, numberer = JsonLinesSink(str(path)), make.numberer()
    path.unlink()
    path.mkdir()
    with pytest.raises(SinkError, match="Is a directory"):
        sink.send(numberer.number(make.onset()))
    path.rmdir()
    assert _sent(sink, numberer)
    assert _seqs(path) == [2]
    sink.close()


def test_a_fifo_without_a_reader_loses_messages_and_says_so(tmp_path: Path) -> None:
    """Otherwise the kernel would silently buffer 64 KiB of them."""
    path = tmp_path / "events.jsonl"
    sink, numberer = JsonLinesSink(str(path)), make.numberer()
    assert _sent(sink, numberer)
    path.unlink()
    os.mkfifo(path)
    for _ in range(2):
        with pytest.raises(SinkError, match="nobody is reading it"):
            sink.send(numberer.number(make.onset()))
    for seq in (4, 6):
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        assert _sent(sink, numberer)
        assert json.loads(_read(reader))["seq"] == seq
        os.close(reader)
        assert not _sent(sink, numberer)
    sink.close()
    late = JsonLinesSink(str(path))  # a reader may start after the daemon
    assert not _sent(late, numberer)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert _sent(late, numberer)
    late.close()
    os.close(reader)


def test_a_disk_that_is_full_and_has_room_again(tmp_path: Path) -> None:
    """In a process whose files are limited to 1000 bytes: writing fails in the middle of a line, as on a full disk."""
    script = """
import resource, sys
from streamer.errors import SinkError
from streamer.sinks.jsonl import JsonLinesSink
from tests import messages as make
sink, numberer, path = JsonLinesSink(sys.argv[1]), make.numberer(), sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for _ in range(10):
    try:
        sink.send(numberer.number(make.onset()))
    except SinkError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink.send(numberer.number(make.onset()))
"""
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    errors = done.stdout.splitlines()
    assert set(errors) == {f"message to {path} lost: File too large"}
    whole = [line for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    assert len(whole) == 11 - len(errors)
    assert json.loads(whole[-1])["seq"] == 11


def test_reopening_recreates_a_file_and_leaves_standard_output_open(tmp_path: Path) -> None:
    path, old = tmp_path / "events.jsonl", tmp_path / "old"
    sink, numberer = JsonLinesSink(str(path)), make.numberer()
    assert _sent(sink, numberer)
    path.rename(old)
    sink.reopen()
    assert path.exists()
    assert _sent(sink, numberer)
    assert _seqs(old, path) == [1, 2]
    path.unlink()
    path.mkdir()
    with pytest.raises(SinkError, match="Is a directory"):
        sink.reopen()
    path.rmdir()
    assert _sent(sink, numberer)
    sink.close()


def test_the_end_of_standard_outputs_reader_is_noticed_without_a_message() -> None:
    script = """
import sys, time
from streamer.errors import SinkGoneError
from streamer.sinks.jsonl import JsonLinesSink
sink = JsonLinesSink("-")
sink.reopen()
try:
    for _ in range(1000):
        sink.poll(0.01)
except SinkGoneError as error:
    sys.stderr.write(str(error))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    process.stdout.close()
    with process.stderr as said:  # type: ignore[union-attr]
        assert process.wait(20) == 0
        assert said.read() == b"the reader of standard output is gone; it gets no more messages"


def test_closed_standard_output_is_refused_in_one_line() -> None:
    script = 'from streamer.sinks.jsonl import JsonLinesSink\nJsonLinesSink("-")'
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -c '{script}' >&-"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert "SinkError: can't write messages to standard output: it is closed" in done.stderr
