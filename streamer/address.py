"""The address of a source, parsed once into a part that may be shown and a part that may not.

Cameras expect secrets in every part of a URL: before the host (`rtsp://user:password@host`), in the path
(`/user=admin_password=x_channel=1.sdp`, or a path that is itself the key), in the query (`?token=x`). No list of secret
names can cover that, so only what can't be a secret is shown, and everything else is `***`. In a malformed URL a secret
may be anywhere, so only its scheme is shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote

from pydantic import SecretStr

HIDDEN = "***"
"""Replaces what is not shown."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]*)(?::(?P<port>[0-9]{0,5}))?")
# Ordinary words of stream paths and names. Of a URL's path only these, short pieces and short numbers are shown.
_WORD_LIST = """
aac amp api app audio av avstream axis back backyard bcs bin cam camera cams cctv cgi ch chan channel clip command
default demo door driveway entrance entry ffmpeg file flv folder frame front garage garden gate get hall hevc high hls
home http https id index indoor inside ipc ipcam kitchen left live local low main manifest master media mic microphone
mjpeg mjpg mobile model monitor mono mov mp mpd mpeg mpegts normal office onvif opus original outdoor output outside
pcm pcma pcmu play playback playlist porch preview primary profile radio real realmonitor record recording right room
root rtmp rtp rtsp sdp second secondary segment server smart smil sound src stereo stream streaming street sub
substream subtype test track trackid ts tv unicast user video vod wav weights yard"""
_PLAIN_FIELD_LIST = """
acodec audio camera ch chan channel channelid codec fps format id profile proto quality res resolution size stream
streamtype subtype track trackid transport unicast vcodec video videocodec"""
_FILE_SUFFIX_LIST = """
.3gp .aac .ac3 .aif .aiff .amr .avi .caf .flac .m2ts .m4a .m4v .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mts .oga .ogg
.ogv .opus .pt .pth .safetensors .tsv .wav .webm .wma .wmv"""
_WORDS = frozenset(_WORD_LIST.split())
_PLAIN_FIELDS = frozenset(_PLAIN_FIELD_LIST.split())
_FILE_SUFFIXES = frozenset(_FILE_SUFFIX_LIST.split())
_SECRET_FIELD = re.compile(r"(?i)(pass|pwd|pw$|psw|user|usr|login|tok|key|auth|sig|secret|cred|sess)")
_USERS = ("admin", "root", "password")
_SHORT = 3
"""The most characters that are too few for a secret."""
_LONGEST_NUMBER = 4
_TO_LEARN = 4
"""Shorter pieces occur in too many words to be searched for."""
_HOW = "in the user and the password write / as %2F, ? as %3F, # as %23, @ as %40 and : as %3A"


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A URL, a path or a device. Its `str`, its `repr` and its errors contain no secret."""

    shown: str
    """The address, with `***` for everything that may be secret."""
    scheme: str
    """The URL's scheme in lower case; "" for a path or a device."""
    host: str = ""
    """Host name or IP address without brackets; "" if there is none or it can't be determined."""
    port: int | None = None
    has_login: bool = False
    """Whether a user or a password precedes the host."""
    fault: str = ""
    """What is certainly wrong with it, and what to do; "" if nothing."""
    doubt: str = ""
    """What may be wrong with it, to be reported if it can't be opened; "" if nothing."""
    _text: SecretStr = field(default=SecretStr(""))

    @classmethod
    def parse(cls, text: str, hide: Collection[str] = ()) -> Address:
        """Parse `text`; the pieces in `hide` are secret wherever they occur. Never fails."""
        match = _SCHEME.fullmatch(text)
        if match is None:
            return _local(text, hide)
        scheme, rest = match[1].lower(), match[2]
        if scheme == "file" and rest.startswith("/"):
            return cls(text, scheme, _text=SecretStr(text))
        return _network(text, scheme, rest, hide)

    @classmethod
    def public(cls, text: str) -> Address:
        """Parse `text`, all of which may be shown: for addresses that this program contains."""
        parsed = cls.parse(text)
        return cls(text, parsed.scheme, parsed.host, parsed.port, _text=SecretStr(text))

    def reveal(self) -> str:
        """The whole text with its secrets, for connecting to it. Never print it or put it in an error."""
        return self._text.get_secret_value()

    @property
    def is_local(self) -> bool:
        """Whether it is a path, a device or a `file:` URL."""
        return self.scheme in ("", "file")

    @property
    def path(self) -> str:
        """The path of a local file or of the URL. The latter may contain secrets: never print it."""
        if self.is_local:
            return self.reveal().removeprefix("file://") if self.scheme else self.reveal()
        rest = self.reveal().partition("://")[2]
        return re.split(r"[?#]", rest.partition("/")[2], maxsplit=1)[0]

    def secrets(self) -> list[str]:
        """Its secret pieces, longest first, as written and decoded; [] if all of it is shown.

        For removing them from text that others wrote, such as a traceback. Pieces under 4 characters and ordinary words
        are left out, because they would match everywhere.
        """
        text = self.reveal()
        if text == self.shown:
            return []
        rest = text.partition("://")[2]
        pieces = {text, rest}
        for one in (text, unquote(text)):  # an encoded password may contain delimiters
            pieces.update(re.split(r"[/?#@:&=;]", one), re.split(r"[/?#@:&=;_]", one))
        pieces.update(
            re.findall(r"^(.*)@", rest), re.findall(r"^[^:]*:(.*)@", rest)
        )  # login and password, if not encoded
        pieces.update({unquote(piece) for piece in pieces})
        pieces.update({repr(piece)[1:-1] for piece in pieces}, {ascii(piece)[1:-1] for piece in pieces})
        known = {self.host, self.scheme, *re.findall(r"([A-Za-z0-9]+)=", text), *_USERS}
        found = [one for one in pieces - known if len(one) >= _TO_LEARN and one not in self.shown]
        return sorted((one for one in found if not (_is_plain(one) or _is_ip(one))), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """`text` with the secrets of this address replaced."""
        for piece in self.secrets():
            text = text.replace(piece, self.shown if piece == self.reveal() else HIDDEN)
        return text

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def _network(text: str, scheme: str, rest: str, hide: Collection[str]) -> Address:
    authority, tail = _split_at(rest, "/?#")
    _, at, place = authority.rpartition("@")
    match = _HOST.fullmatch(place)
    port = int(match["port"]) if match and match["port"] else None
    host = match["host"].strip("[]") if match else ""
    secret = SecretStr(text)
    if match is None or not host or (port or 0) > 65_535:
        what = "has no host" if match and not host else "has an invalid port"
        fault = f"it {what}: write {scheme}://USER:PASSWORD@HOST:PORT/PATH, and {_HOW}"
        return Address(f"{scheme}://{HIDDEN}", scheme, fault=fault, _text=secret)
    if "@" in tail:
        # Either the password has a raw / ? or #, or the path has an @: then the host looks like one.
        doubt = f"there is an @ after its first / ? or #: {_HOW}"
        behind = _HOST.match(tail.rpartition("@")[2].partition("/")[0])
        meant = (":" in authority and not at) or (behind is not None and _surely_host(behind["host"].strip("[]")))
        fault = doubt if meant and not _surely_host(host) else ""
        return Address(f"{scheme}://{HIDDEN}", scheme, has_login=bool(at), fault=fault, doubt=doubt, _text=secret)
    shown = f"{scheme}://{f'{HIDDEN}@' if at else ''}{place}{_shown_tail(scheme, tail, hide)}"
    return Address(shown, scheme, host, port, bool(at), _text=secret)


def _local(text: str, hide: Collection[str]) -> Address:
    """Parse a path or a device. If it looks like a URL with a damaged scheme, none of it is shown."""
    damaged = "://" in text or text.startswith("//") or bool(re.match(r"[^/.~][^@]*:.*@", text, re.DOTALL))
    if damaged or any(piece in text for piece in hide):
        doubt = "if it is a URL, it must begin with a scheme, e.g. rtsp://" if damaged else ""
        return Address(HIDDEN, "", doubt=doubt, _text=SecretStr(text))
    shown = text if text.startswith(("/", "./", "../")) else _shown_fields(text, path=True)
    return Address(shown, "", _text=SecretStr(text))


def _shown_tail(scheme: str, tail: str, hide: Collection[str]) -> str:
    """Path, query and fragment with their secrets hidden."""
    path, query = _split_at(tail, "?#")
    segments = path.split("/")
    last = len(segments) - 1
    for number, segment in enumerate(segments):
        # In an RTMP URL, the application's name is followed by the stream key.
        is_key = scheme.startswith("rtmp") and number >= 2 and bool(segment)
        is_file = number == last and not is_key and _is_file(segment)
        if is_key or any(piece in segment for piece in hide):
            segments[number] = HIDDEN
        elif not is_file:
            segments[number] = _shown_fields(segment) if "=" in segment else segment if _is_plain(segment) else HIDDEN
    shown = "/".join(segments)
    if query.startswith("?"):
        fields, fragment = _split_at(query[1:], "#")
        parts = [
            HIDDEN if any(piece in one for piece in hide) else _shown_fields(one) if "=" in one else _plain_or(one)
            for one in re.split("[&;]", fields)
        ]
        return f"{shown}?{'&'.join(parts)}{f'#{HIDDEN}' if fragment else ''}"
    return shown + (f"#{HIDDEN}" if query else "")


def _shown_fields(text: str, *, path: bool = False) -> str:
    """`text`, which may consist of `name=value` fields, with values hidden.

    In a URL, only harmless values such as a channel are kept. In a `path`, a file's name, only the values of fields
    with names like `password` are hidden.
    """
    parts = re.split(r"((?:^|(?<=[_&;,?/ ]))[A-Za-z][A-Za-z0-9]*=)", text)
    shown = [parts[0] if path or _is_plain(parts[0]) else HIDDEN]
    for name, value in zip(parts[1::2], parts[2::2], strict=True):
        key = name[:-1].lower()
        if path:
            shown += [name, HIDDEN if _SECRET_FIELD.search(key) else value]
        elif key in _PLAIN_FIELDS and _is_plain(value.rstrip("_,")):
            shown += [name, value]
        else:
            shown.append(HIDDEN)
    return re.sub(r"(\*\*\*)+", HIDDEN, "".join(shown))


def _plain_or(text: str) -> str:
    return text if _is_plain(text) else HIDDEN


def _is_file(segment: str) -> bool:
    """Whether a URL's last segment is the file name of a recording or of weights, by which results refer to it."""
    return PurePosixPath(segment).suffix.lower() in _FILE_SUFFIXES and "=" not in segment


def _is_plain(text: str) -> bool:
    """Whether `text` can't be a secret: it is short, or consists of ordinary words and short numbers."""
    text = unquote(text)
    if not re.fullmatch(r"[A-Za-z0-9_., +-]*", text):
        return False
    if len(text) <= _SHORT or text.lower() in _WORDS:
        return True
    if sum(map(str.isdigit, text.replace("264", "").replace("265", ""))) > _LONGEST_NUMBER:
        return False
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)
    return all(len(word) == 1 or word.lower() in _WORDS or word.lower().rstrip("s") in _WORDS for word in words)


def _surely_host(host: str) -> bool:
    """Whether `host` can't be a user name: an IP address, localhost, or a name with a domain."""
    return host == "localhost" or "." in host or _is_ip(host)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _split_at(text: str, characters: str) -> tuple[str, str]:
    """`text` split before the first of `characters`."""
    match = re.search(f"[{re.escape(characters)}]", text)
    return (text[: match.start()], text[match.start() :]) if match else (text, "")
