"""The process from which those that read sources are forked, so that each begins in milliseconds and shares memory.

It has loaded PyAV, opens nothing itself, has one thread, and ends with the daemon, as do its children.

`python -m streamer.media.zygote DESCRIPTOR`, with a Unix socket on which the daemon asks: `fork`, with a socket for the
new process, which is answered by its number; `kill NUMBER`.
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
from streamer.media.transfer import Beside, Ended, Opened, failure, send, send_item
from streamer.types import Want

_REAP_S = 1.0
_PR_SET_PDEATHSIG = 1
# They are the daemon's to follow: a terminal and systemd send them to all processes at once.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(descriptor: int) -> None:
    """Fork and end processes as the daemon asks for it, until it is gone."""
    for one in _IGNORED:
        signal.signal(one, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # what is loaded stays shared
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
                elif int(number) in children:  # so it is a child of ours, and not a later process of that number
                    os.kill(int(number), signal.SIGKILL)
            children -= {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0]}
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _fork(control: socket.socket, descriptor: int, children: set[int]) -> None:
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        control.send(f"can't begin a process: {error.strerror}".encode())
        os.close(descriptor)
        return
    if pid == 0:
        try:
            control.close()
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:  # else it died before it could have been noticed
                with socket.socket(fileno=descriptor) as connection:
                    serve(connection)
        finally:
            os._exit(0)
    os.close(descriptor)
    children.add(pid)
    control.send(str(pid).encode())


def serve(connection: socket.socket) -> None:
    """Read the source that `connection` names, and send its media there; returns when it ends, or nobody receives."""
    with connection.makefile("rb") as requests:
        address, want, options = pickle.load(requests)  # from the daemon, which is trusted
    media: Media | None = None
    spent = _Spent()
    try:
        with open_media(address, want, options) as media:
            send(connection, _opened(media))
            for item in media:
                send_item(connection, item, _beside(media, spent))
            send(connection, Ended("", "", _beside(media, spent)))
    except SourceError as error:
        _tell(connection, failure(error, _beside(media, spent) if media else None))
    except OSError:
        return  # the daemon wants no more
    except Exception as error:
        text = " ".join(address.hide(str(error)).split())
        _tell(
            connection,
            Ended("other", f"{address}: reading it failed unexpectedly: {type(error).__name__}: {text}", None),
        )


def request(address: Address, want: Want, options: MediaOptions) -> bytes:
    """What `serve` is sent first."""
    return pickle.dumps((address, want, options))


class _Spent:
    """Processor time since it was last asked for."""

    def __init__(self) -> None:
        self._until_s = time.process_time()

    def seconds(self) -> float:
        before_s, self._until_s = self._until_s, time.process_time()
        return self._until_s - before_s


def _tell(connection: socket.socket, said: Ended) -> None:
    try:
        send(connection, said)
    except OSError:
        return


def _opened(media: Media) -> Opened:
    return Opened(media.live, media.rewinds, media.has_audio, media.has_video, media.audio, media.clock_fault)


def _beside(media: Media, spent: _Spent) -> Beside:
    arrival: Arrival = media.arrival
    return Beside(
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
