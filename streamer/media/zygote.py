"""The process from which all reading processes are forked, so that each starts in milliseconds and shares memory.

It has PyAV loaded, opens no source itself, has a single thread, and ends with the daemon; so do its children.

The daemon runs `python -m streamer.media.zygote DESCRIPTOR`, where DESCRIPTOR is a Unix socket for its requests:
`fork`, sent with a socket for the new process and answered with its process id, and `kill PID`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import select
import signal
import socket
import sys
import time

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.pace import Arrival
from streamer.media.source import Media, MediaOptions, open_media
from streamer.media.transfer import Ended, Measurements, Opened, failure, send, send_item
from streamer.types import Want

_REAP_S = 1.0
_PR_SET_PDEATHSIG = 1
# A terminal and systemd send these to all processes at once; the daemon handles them and ends this process itself.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(descriptor: int) -> None:
    """Fork and kill processes at the daemon's request, until the daemon ends."""
    for one in _IGNORED:
        signal.signal(one, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # so that the memory loaded so far stays shared
    children: set[int] = set()
    with socket.socket(fileno=descriptor) as control:
        while True:
            if select.select([control], [], [], _REAP_S)[0]:
                request, descriptors, _, _ = socket.recv_fds(control, 64, 1)
                if not request:
                    break
                word, _, number = request.partition(b" ")
                if word == b"fork":
                    _fork(control, descriptors[0], children)
                elif int(number) in children:  # never a later process that was given the same id
                    os.kill(int(number), signal.SIGKILL)
            children -= {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]}
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _fork(control: socket.socket, descriptor: int, children: set[int]) -> None:
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        control.send(f"can't start a process: {error.strerror}".encode())
        os.close(descriptor)
        return
    if pid == 0:
        try:
            control.close()
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:  # else the parent died before prctl took effect
                with socket.socket(fileno=descriptor) as connection:
                    serve(connection)
        finally:
            os._exit(0)
    os.close(descriptor)
    children.add(pid)
    control.send(str(pid).encode())


def serve(connection: socket.socket) -> None:
    """Read the source named on `connection` and send its media back, until it ends or the daemon disconnects."""
    with connection.makefile("rb") as requests:
        address, want, options = pickle.load(requests)  # from the daemon, which is trusted
    media: Media | None = None
    spent = _Spent()
    try:
        with open_media(address, want, options) as media:
            send(connection, _opened(media))
            for item in media:
                send_item(connection, item, _measurements(media, spent))
            send(connection, Ended("", "", _measurements(media, spent)))
    except SourceError as error:
        _report_end(connection, failure(error, _measurements(media, spent) if media else None))
    except OSError:
        return  # the daemon has closed the connection
    except Exception as error:
        text = " ".join(address.hide(str(error)).split())
        _report_end(
            connection,
            Ended("other", f"{address}: reading it failed unexpectedly: {type(error).__name__}: {text}", None),
        )


def request(address: Address, want: Want, options: MediaOptions) -> bytes:
    """The first bytes that `serve` reads: what to open, and how."""
    return pickle.dumps((address, want, options))


class _Spent:
    """Measures processor time between calls."""

    def __init__(self) -> None:
        self._until_s = time.process_time()

    def seconds(self) -> float:
        before_s, self._until_s = self._until_s, time.process_time()
        return self._until_s - before_s


def _report_end(connection: socket.socket, report: Ended) -> None:
    try:
        send(connection, report)
    except OSError:
        return


def _opened(media: Media) -> Opened:
    return Opened(media.live, media.rewinds, media.has_audio, media.has_video, media.audio, media.clock_fault)


def _measurements(media: Media, spent: _Spent) -> Measurements:
    arrival: Arrival = media.arrival
    return Measurements(
        arrival,
        media.ear.take_levels(),
        media.corrupt_packets,
        media.overlap_samples,
        media.stray_pictures,
        media.clock_fault,
        spent.seconds(),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
