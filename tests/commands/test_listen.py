"""`earwitness listen` in its own process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from tests import messages as make
from tests.client.test_subscriber import sending
from tests.listeners import LISTEN, ROOT, listening, wait_for
from tests.rtsp import free_port


def test_json_lines_are_printed_immediately_until_the_count() -> None:
    with sending() as sender, listening(*LISTEN, sender.endpoint, "--topic", "event/", "--count", "2") as listener:
        sender.publish(make.onset())  # an open event: replayed to the listener when it joins
        wait_for(lambda: len(listener.lines) == 1, lambda: time.sleep(0.02))
        sender.publish(make.tags(), make.offset())
        assert listener.wait() == 0
        assert [json.loads(line)["type"] for line in listener.lines] == ["onset", "offset"]
        assert listener.errors() == ""


def test_readable_lines() -> None:
    with sending() as sender, listening(*LISTEN, sender.endpoint, "--human", "--count", "7") as listener:
        wait_for(lambda: len(listener.lines) == 1, lambda: time.sleep(0.02))
        sender.publish(
            make.onset(), make.offset(), make.tags(), make.scores(), make.heartbeat(), make.status(state="backoff")
        )
        assert listener.wait() == 0
    assert listener.lines[1:] == [
        "14:13:21.5Z  cam  onset   Dog  begins, score 0.80",
        "14:13:22.0Z  cam  offset  Dog  ends after 0.50 s, confidence 0.70",
        "      0.00 s  cam  tags    10.0 s: Dog 0.25, Speech 0.25, Alarm_bell_ringing 0.25",
        "      0.00 s  cam  scores  2 cells of 3 classes",
        "14:13:25.0Z  earwitness  heartbeat  up 12 s, cam streaming",
        "14:13:26.0Z  cam  status  backoff (timeout), uses spectral, coverage 100%, 0.2 s behind",
    ]


def test_timeout() -> None:
    nobody = f"tcp://127.0.0.1:{free_port()}"
    with listening(*LISTEN, nobody, "--timeout", "0.3") as listener:
        assert listener.wait() == 0
        assert (listener.lines, listener.errors()) == ([], "")
    with listening(*LISTEN, nobody, "--timeout", "0.3", "--count", "2") as listener:
        assert listener.wait() == 1
        assert listener.errors() == f"earwitness: error: 0 of 2 messages arrived from {nobody} in 0.3 s\n"


@pytest.mark.parametrize(
    "wrong",
    [["nowhere"], ["--count", "0"], ["--count", "x"], ["--timeout", "-1"], ["--timeout", "nan"], ["--until", "1"]],
)
def test_wrong_arguments_are_one_line(wrong: list[str]) -> None:
    done = subprocess.run([*LISTEN, *wrong], capture_output=True, text=True, cwd=ROOT, timeout=20, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("earwitness")
    assert ": error: " in done.stderr


def test_a_closed_output_pipe_ends_it_without_error() -> None:
    with sending() as sender:
        process = subprocess.Popen(
            [*LISTEN, sender.endpoint], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["type"] == "status"
        process.stdout.close()
        sender.publish(make.onset())
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
        process.stderr.close()


def test_ctrl_c_ends_it_without_a_traceback() -> None:
    with sending() as sender, listening(*LISTEN, sender.endpoint) as listener:
        wait_for(lambda: bool(listener.lines), lambda: time.sleep(0.02))
        listener.process.send_signal(signal.SIGINT)
        assert listener.wait() == 130
        assert "Traceback" not in listener.errors()


WHERE_PYTHON_DROPS_IT = """
import gc, signal, sys
from streamer.cli import main

def collecting(phase, info):
    if armed:
        armed.clear()
        signal.raise_signal(signal.SIGINT)

armed = []
signal.signal(signal.SIGUSR1, lambda number, frame: armed.append(number))
gc.callbacks.append(collecting)
gc.set_threshold(1)
sys.exit(main())
"""


def test_ctrl_c_ends_it_where_python_drops_a_keyboard_interrupt() -> None:
    command = (sys.executable, "-c", WHERE_PYTHON_DROPS_IT, "listen")
    with sending() as sender, listening(*command, sender.endpoint) as listener:
        wait_for(lambda: bool(listener.lines), lambda: time.sleep(0.02))
        listener.process.send_signal(signal.SIGUSR1)
        assert listener.wait(5) == 130
        assert listener.errors() == "earwitness: error: interrupted\n"


def test_signals_end_it_at_any_moment() -> None:
    with sending() as sender:
        for moment, number in enumerate([signal.SIGINT, signal.SIGTERM] * 2):
            with listening(*LISTEN, sender.endpoint) as listener:
                wait_for(lambda: bool(listener.lines), lambda: time.sleep(0.001))
                time.sleep(moment * 0.02)
                listener.process.send_signal(number)
                sender.publish(make.tags())
                assert listener.wait(5) == (130 if number == signal.SIGINT else -number)
                assert all(json.loads(line) for line in listener.lines)
                assert listener.errors() == ("earwitness: error: interrupted\n" if number == signal.SIGINT else "")


def test_help_has_an_example() -> None:
    done = subprocess.run([*LISTEN, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=20, check=True)
    assert "example: earwitness listen" in done.stdout
