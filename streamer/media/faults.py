"""Explains what went wrong with a source, in one line that says what to do. FFmpeg's own text is never passed on: it
may contain the URL with its password.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import av

from streamer.address import Address
from streamer.errors import SourceError
from streamer.media.liveness import Carrier, descriptor_of
from streamer.media.trust import TLS_PORTS

_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL}
_BROKEN = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


def check_address(address: Address) -> None:
    """Raises `SourceError` for a malformed URL, which FFmpeg would misread."""
    if address.fault:
        raise SourceError("protocol", f"{address}: {address.fault}")


def opening_failed(
    error: Exception, address: Address, carrier: Carrier, *, timed_out: bool, timeout_s: float
) -> SourceError:
    """The `SourceError` for an exception raised while opening `address`."""
    failure = _opening_failed(error, address, carrier, timed_out, timeout_s)
    return SourceError(failure.reason, f"{failure}; {address.doubt}") if address.doubt else failure


def _opening_failed(
    error: Exception, address: Address, carrier: Carrier, timed_out: bool, timeout_s: float
) -> SourceError:
    if carrier == "device":
        return _device_failed(error, address)
    if carrier == "pipe":
        return _pipe_failed(error, address)
    if carrier == "file":
        return _file_failed(error, address)
    if timed_out:
        text = f"{address}: no answer within {timeout_s:g} s: check host, port and network"
        return SourceError("timeout", text)
    return _network_failed(error, address)


def reading_failed(
    error: Exception, address: Address, carrier: Carrier, *, live: bool, timed_out: bool, timeout_s: float
) -> SourceError:
    """The `SourceError` for an exception raised while reading an open source."""
    name = address.shown
    if timed_out or isinstance(error, av.error.ExitError | TimeoutError):
        return SourceError("timeout", f"{name}: no data for {timeout_s:g} s")
    if isinstance(error, av.error.InvalidDataError):
        return SourceError("invalid_data", f"{name}: the data can no longer be read as media")
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return SourceError("auth", f"{name}: the server no longer accepts the user or password: check them")
    if carrier == "device":
        return SourceError("device", f"{name}: the device is gone ({_plain(error)}): is it still plugged in?")
    if isinstance(error, _BROKEN) or (isinstance(error, OSError) and error.errno == errno.EIO):
        return SourceError("eof", f"{name}: {_broken_off(carrier, live=live)}")
    return SourceError("other", f"{name}: reading failed ({_plain(error)})")


def _broken_off(carrier: Carrier, *, live: bool) -> str:
    if carrier == "network":
        if live:
            return "the connection broke"
        return "the connection broke before the recording's end: check the network and the server, and try again"
    if carrier == "pipe":
        return "the pipe broke: check the program that writes to it"
    return "reading failed: check the file and the disk"


def stream_ended(address: Address, carrier: Carrier) -> SourceError:
    """The `SourceError` for a live source that ended cleanly."""
    if carrier == "device":
        return SourceError("eof", f"{address}: the device stopped delivering: is it still plugged in?")
    return SourceError("eof", f"{address}: the server ended the stream")


def nothing_in(address: Address, carrier: Carrier) -> SourceError:
    """The `SourceError` for a source that was opened but ended without any media."""
    if carrier == "network":
        return SourceError("empty", f"{address}: the server sent no audio and no video: check the path")
    if carrier == "pipe":
        return SourceError("empty", f"{address}: nothing decodable was written to it")
    return SourceError("empty", f"{address}: it contains no audio and no video: copy or record it again")


def not_media(address: Address, carrier: Carrier, found: str) -> SourceError:
    """The `SourceError` for bytes that are not media; `found` says what they are."""
    if carrier == "network":
        return SourceError("invalid_data", f"{address}: the server does not send media ({found}): check the path")
    if carrier == "pipe":
        return SourceError("invalid_data", f"{address}: what is written to it is not audio or video ({found})")
    return SourceError("invalid_data", f"{address}: not an audio or video file ({found}): name a recording")


def _network_failed(error: Exception, address: Address) -> SourceError:
    name = address.shown
    if isinstance(error, av.error.HTTPUnauthorizedError):
        if address.has_login:
            who = "the camera" if address.scheme in ("rtsp", "rtsps") else "the server"
            return SourceError("auth", f"{who} refused the user or password of {name}: check them")
        return SourceError(
            "auth", f"{name} requires a user and a password: write them as {address.scheme}://USER:PASSWORD@HOST"
        )
    if isinstance(error, av.error.HTTPForbiddenError):
        return SourceError("auth", f"{name}: access is forbidden: check user, password and that user's permissions")
    if isinstance(error, av.error.HTTPNotFoundError):
        return SourceError("not_found", f"{name}: the server has nothing there: check the path")
    if isinstance(error, av.error.HTTPClientError | av.error.HTTPError):
        return SourceError("protocol", f"{name}: the server answered with an error ({_plain(error)})")
    if isinstance(error, ConnectionRefusedError):
        return SourceError(
            "refused", f"{name}: nothing is listening there: check host and port, and that the server runs"
        )
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return SourceError("unreachable", f"{name}: the host can't be reached from here: check address and network")
    if isinstance(error, _BROKEN):
        return SourceError("protocol", f"{name}: the server closed the connection at once: check scheme, port and path")
    if isinstance(error, TimeoutError | av.error.ExitError):
        return SourceError("timeout", f"{name}: no answer in time: check host, port and network")
    if isinstance(error, av.error.ProtocolNotFoundError):
        return SourceError(
            "protocol", f"{name}: this FFmpeg does not support '{address.scheme}': use rtsp, rtmp, http(s) or a file"
        )
    if isinstance(error, OSError) and error.errno == errno.EIO:
        # FFmpeg says the same for an unknown host name and for a failed TLS handshake.
        return _name_or_tls(address)
    if isinstance(error, FileNotFoundError):
        return SourceError("not_found", f"{name}: not found: check the path")
    if isinstance(error, av.error.InvalidDataError | PermissionError):
        text = f"{name}: the server does not send media that FFmpeg can read: check scheme, port and path"
        return SourceError("invalid_data", text)
    if isinstance(error, ValueError | av.error.ArgumentError):
        return SourceError("protocol", f"{name}: the URL or an FFmpeg option's value is not valid ({_plain(error)})")
    return SourceError("other", f"{name}: can't be opened ({_plain(error)})")


def _name_or_tls(address: Address) -> SourceError:
    name = address.shown
    if address.host:
        try:
            socket.getaddrinfo(address.host, None)
        except (OSError, UnicodeError):
            return SourceError("unreachable", f"{name}: the host name {address.host} can't be resolved: check it")
    if address.scheme in TLS_PORTS:
        text = f"{name}: the TLS handshake failed: check that this port uses TLS, and the certificate if you verify it"
        return SourceError("tls", text)
    return SourceError("unreachable", f"{name}: the connection failed: check host, port and network")


def _file_failed(error: Exception, path: Address) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return SourceError("not_found", f"{path}: no such file: check the path")
    if isinstance(error, PermissionError):
        return SourceError("other", f"{path}: permission denied: check the file's permissions")
    if isinstance(error, av.error.ArgumentError):
        return SourceError("protocol", f"{path}: an FFmpeg option's value is not valid")
    if isinstance(error, ValueError) and not isinstance(error, av.FFmpegError):
        return SourceError("protocol", f"{path}: can't be opened ({_plain(error)})")
    if isinstance(error, av.error.InvalidDataError):
        return _what_file(path)
    return SourceError("other", f"{path}: can't be opened ({_plain(error)})")


def _what_file(path: Address) -> SourceError:
    try:
        descriptor = descriptor_of(path)
        with Path(path.path if descriptor is None else f"/dev/fd/{descriptor}").open("rb") as file:
            head = file.read(4096)
    except OSError:
        head = b""
    if head[4:8] == b"ftyp":
        text = f"{path}: the file is cut short (an MP4 whose index is missing): copy or record it again"
        return SourceError("invalid_data", text)
    kind = (
        "a text file" if head and not set(head) & set(range(9)) and b"\n" in head else "no format that FFmpeg can read"
    )
    return not_media(path, "file", kind)


def _pipe_failed(error: Exception, name: Address) -> SourceError:
    if isinstance(error, av.error.InvalidDataError | EOFError):
        return not_media(name, "pipe", "or it needs a file: to pipe an MP4, put its index first")
    return SourceError("other", f"{name}: can't be read ({_plain(error)})")


def _device_failed(error: Exception, name: Address) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return SourceError("device", f"{name}: no such device: is it plugged in?")
    if isinstance(error, PermissionError):
        return SourceError("device", f"{name}: permission denied: add this user to the group `video` or `audio`")
    if isinstance(error, ValueError) and not isinstance(error, av.FFmpegError):
        return SourceError("device", f"{name}: this FFmpeg has no such device format: use alsa or v4l2")
    return SourceError(
        "device", f"{name}: can't be opened ({_plain(error)}): check its name, and that nothing else uses it"
    )


def _plain(error: Exception) -> str:
    """FFmpeg's text for an error number; never the exception's own text, which may contain the URL."""
    if isinstance(error, av.FFmpegError):
        return (error.strerror or type(error).__name__).splitlines()[0]
    return type(error).__name__
