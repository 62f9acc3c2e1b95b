"""Where a source is: parsed once from text into what may be shown and what may not.

Cameras want secrets in every part of a URL: before the host (`rtsp://user:password@host`), in the path
(`/user=admin_password=x_channel=1.sdp`, or a path that is itself the key), in the query (`?token=x`). No list of names
covers that, so it is the other way round: what is shown is what can't be a secret, and everything else is `***`. What a
malformed URL hides where can't be told: of it nothing is shown but its scheme.
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
"""Stands for what is not shown."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]*)(?::(?P<port>[0-9]{0,5}))?")
# Ordinary words of stream paths and names. In a path only these, short pieces and numbers are shown.
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
"""Characters that are too few for a secret."""
_LONGEST_NUMBER = 4
_TO_LEARN = 4
"""Shorter pieces are in too many words to be looked for."""
_HOW = "in the user and the password write / as %2F, ? as %3F, # as %23, @ as %40 and : as %3A"


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A source's place: a URL, a path or a device. `str` and `repr` of it, and its errors, hold no secret."""

    shown: str
    """The whole, with `***` for all that may be secret."""
    scheme: str
    """In lower case; "" for a path or a device."""
    host: str = ""
    """Host name or IP address without brackets; "" where there is none, or none can be told."""
    port: int | None = None
    has_login: bool = False
    """Whether a user or a password stands before the host."""
    fault: str = ""
    """Why it can't be what was meant, and what to do; "" if nothing is wrong with it."""
    doubt: str = ""
    """What may be wrong with it, to be said if it can't be opened; "" if nothing."""
    _text: SecretStr = field(default=SecretStr(""))

    @classmethod
    def parse(cls, text: str, hide: Collection[str] = ()) -> Address:
        """The address that `text` is; `hide` are pieces of it that are secret wherever they stand. Never fails."""
        match = _SCHEME.fullmatch(text)
        if match is None:
            return _local(text, hide)
        scheme, rest = match[1].lower(), match[2]
        if scheme == "file" and rest.startswith("/"):
            return cls(text, scheme, _text=SecretStr(text))
        return _network(text, scheme, rest, hide)

    @classmethod
    def public(cls, text: str) -> Address:
        """The address that `text` is, all of it fit to show: one that this program brings along."""
        parsed = cls.parse(text)
        return cls(text, parsed.scheme, parsed.host, parsed.port, _text=SecretStr(text))

    def reveal(self) -> str:
        """The whole text with its secrets, for what connects to it. Never print it or put it in an error."""
        return self._text.get_secret_value()

    @property
    def is_local(self) -> bool:
        """Whether it is a path, a device or a file: URL."""
        return self.scheme in ("", "file")

    @property
    def path(self) -> str:
        """The path of a local file, else that of the URL, which may hold secrets: for looking, not for printing."""
        if self.is_local:
            return self.reveal().removeprefix("file://") if self.scheme else self.reveal()
        rest = self.reveal().partition("://")[2]
        return re.split(r"[?#]", rest.partition("/")[2], maxsplit=1)[0]

    def secrets(self) -> list[str]:
        """The pieces of it that must not be seen, longest first, as written and decoded; [] if all of it is shown.

        For the last check of what others wrote: an exception's text, a traceback. Pieces under 4 characters and
        ordinary words are left out, as they would be found everywhere; the whole text holds them.
        """
        text = self.reveal()
        if text == self.shown:
            return []
        rest = text.partition("://")[2]
        pieces = {text, rest}
        for one in (text, unquote(text)):  # an encoded password has delimiters of its own
            pieces.update(re.split(r"[/?#@:&=;]", one), re.split(r"[/?#@:&=;_]", one))
        pieces.update(re.findall(r"^(.*)@", rest), re.findall(r"^[^:]*:(.*)@", rest))  # login and password, if raw
        pieces.update({unquote(piece) for piece in pieces})
        pieces.update({repr(piece)[1:-1] for piece in pieces}, {ascii(piece)[1:-1] for piece in pieces})
        known = {self.host, self.scheme, *re.findall(r"([A-Za-z0-9]+)=", text), *_USERS}
        found = [one for one in pieces - known if len(one) >= _TO_LEARN and one not in self.shown]
        return sorted((one for one in found if not (_is_plain(one) or _is_ip(one))), key=len, reverse=True)

    def hide(self, text: str) -> str:
        """`text` with the secrets of this address taken out."""
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
        what = "has no host" if match and not host else "has something else than a number for its port"
        fault = f"it {what}: write {scheme}://USER:PASSWORD@HOST:PORT/PATH, and {_HOW}"
        return Address(f"{scheme}://{HIDDEN}", scheme, fault=fault, _text=secret)
    if "@" in tail:
        # Either a password with a raw / ? or #, or a path with an @: then what stands for the host looks like one.
        doubt = f"there is an @ behind its first / ? or #: {_HOW}"
        behind = _HOST.match(tail.rpartition("@")[2].partition("/")[0])
        meant = (":" in authority and not at) or (behind is not None and _surely_host(behind["host"].strip("[]")))
        fault = doubt if meant and not _surely_host(host) else ""
        return Address(f"{scheme}://{HIDDEN}", scheme, has_login=bool(at), fault=fault, doubt=doubt, _text=secret)
    shown = f"{scheme}://{f'{HIDDEN}@' if at else ''}{place}{_shown_tail(scheme, tail, hide)}"
    return Address(shown, scheme, host, port, bool(at), _text=secret)


def _local(text: str, hide: Collection[str]) -> Address:
    """A path or a device, unless it looks like a URL whose scheme is damaged: then nothing of it is shown."""
    damaged = "://" in text or text.startswith("//") or bool(re.match(r"[^/.~][^@]*:.*@", text, re.DOTALL))
    if damaged or any(piece in text for piece in hide):
        doubt = "if it is a URL, it must begin with a scheme, e.g. rtsp://" if damaged else ""
        return Address(HIDDEN, "", doubt=doubt, _text=SecretStr(text))
    shown = text if text.startswith(("/", "./", "../")) else _shown_fields(text, path=True)
    return Address(shown, "", _text=SecretStr(text))


def _shown_tail(scheme: str, tail: str, hide: Collection[str]) -> str:
    """Path, query and fragment as they may be shown."""
    path, query = _split_at(tail, "?#")
    segments = path.split("/")
    last = len(segments) - 1
    for number, segment in enumerate(segments):
        # What stands behind the application's name of an RTMP URL is a stream's key.
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
    """`text`, which may be made of `name=value`, with the values hidden.

    Of a URL only values that say which channel or the like are kept; of a `path`, which is a file's name,
    all are but those of fields that are called like a secret.
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
    """Whether a URL's last segment is the name of a recording or of weights, by which results call it."""
    return PurePosixPath(segment).suffix.lower() in _FILE_SUFFIXES and "=" not in segment


def _is_plain(text: str) -> bool:
    """Whether `text` can't be a secret: it is short, or made of ordinary words and short numbers."""
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
    """Whether `host` is no user's name: an IP address, localhost, or a name with a domain."""
    return host == "localhost" or "." in host or _is_ip(host)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _split_at(text: str, characters: str) -> tuple[str, str]:
    """`text` before the first of `characters`, and the rest from there on."""
    match = re.search(f"[{re.escape(characters)}]", text)
    return (text[: match.start()], text[match.start() :]) if match else (text, "")
