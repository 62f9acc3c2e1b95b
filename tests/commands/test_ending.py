"""Ctrl-C and SIGTERM while a source is opened or read: PyAV forgets what is raised in FFmpeg's callback."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import pytest

from streamer.commands.ending import EndsSoon


def heeds_signals() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would our child."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_doctor_ends_while_a_server_does_not_answer(number: signal.Signals, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam"
        argv = [sys.executable, "-m", "streamer.cli", "doctor", f"cam={url}", "--publish", "off", "--metrics", "off"]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeds_signals) as doctor:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(1)  # it has asked, and waits
                time.sleep(0.5)
                began_s = time.monotonic()
                doctor.send_signal(number)
                out, error = doctor.communicate(timeout=30)
                took_s = time.monotonic() - began_s
    assert doctor.returncode == code
    assert error == ("earwitness: error: interrupted\n" if number == signal.SIGINT else "")
    assert " cam " not in out
    assert took_s < 4  # and not the 10 s after which it gives up by itself


def test_a_second_signal_ends_the_program_as_usual() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with EndsSoon() as ends:
            first = ends.interrupt()
            assert (first.is_set(), ends.signal) == (False, None)
            signal.raise_signal(signal.SIGINT)
            assert (first.is_set(), ends.signal, ends.exit_code) == (True, signal.SIGINT, 130)
            assert ends.interrupt().is_set()  # nothing is begun any more
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with EndsSoon() as ends:
            signal.raise_signal(signal.SIGINT)
            assert ends.signal is None
    finally:
        signal.signal(signal.SIGINT, before)
