"""Reads sources from a config file or a command line: their variables, names and addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from streamer.address import Address
from streamer.config.schema import DaemonConfig, StreamConfig
from streamer.errors import ConfigError
from streamer.media.liveness import descriptor_of
from streamer.sinks.wire import NAME

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def read_source(text: str, environ: Mapping[str, str]) -> Address:
    """Parse `text` as an address, with each `${NAME}` replaced by the environment variable NAME.

    If there is none, with the content of the file that the variable NAME_FILE names.

    In a URL the value is percent-encoded, so a password may contain any character; in the path, `/` is kept. Two kinds
    are used unchanged: a variable at the beginning, which may be a whole URL or path, and one that is the host. If a
    variable is the whole login, its first `:` separates user and password. A value in the path or query is never shown.

    Raises:
        ConfigError: a variable is not set.

    """
    made, position = "", 0
    hide: list[str] = []
    for variable in _VARIABLE.finditer(text):
        made += text[position : variable.start()]
        position = variable.end()
        value = _value(variable[1], environ)
        head, is_url, rest = made.partition("://")
        if not is_url or not _URL.match(head + is_url):
            made += value
        elif not re.search(r"[/?#]", rest):
            login_follows = "@" in re.split(r"[/?#]", text[position:], maxsplit=1)[0]
            made += _login(value, whole=not rest and text[position] == "@") if login_follows else value
        else:
            encoded = quote(value, safe="" if re.search(r"[?#]", rest) else "/")
            hide += [piece for piece in encoded.split("/") if piece]
            made += encoded
    return Address.parse(made + text[position:], hide)


def substituted(text: str, environ: Mapping[str, str]) -> str:
    """`text` with each `${NAME}` replaced by the environment variable NAME, unchanged. Raises `ConfigError`."""
    return _VARIABLE.sub(lambda variable: _value(variable[1], environ), text)


def with_sources(
    config: DaemonConfig,
    sources: Sequence[str],
    environ: Mapping[str, str],
    fields: Mapping[str, int | str] | None = None,
) -> DaemonConfig:
    """`config` with the command line's sources (`NAME=SOURCE` or `SOURCE`) added to its streams, with these `fields`.

    A source without a name is named after its host or file, with a number added if that name is taken.

    Raises:
        ConfigError: a name is invalid or given twice, or a variable is not set.

    """
    streams = dict(config.streams)
    for text in sources:
        name, source = split_source(text)
        address = read_source(source, environ)
        if name is None:
            made = _made_name(address)
            name = made
            for number in range(2, len(streams) + 2):
                if name not in streams:
                    break
                name = f"{made[:60]}-{number}"
        elif name in streams:
            raise ConfigError(f"two streams are named {name!r}; give each its own name: NAME=SOURCE")
        streams[name] = StreamConfig.model_validate({"source": address, **(fields or {})})
    return config.model_copy(update={"streams": streams})


def split_source(text: str) -> tuple[str | None, str]:
    """Split `NAME=SOURCE` or `SOURCE` into name (None if there is none) and source.

    Raises:
        ConfigError: there is no source, or what precedes a URL is not a valid name.

    """
    name, equals, rest = text.partition("=")
    if equals and not NAME.fullmatch(name) and _URL.match(rest) and not re.search(r"[/:@]", name):
        raise ConfigError(
            f"{name!r} can't be a stream's name: names are 1 to 64 letters, digits, '_', '.' and '-', e.g. door"
        )
    if not equals or not NAME.fullmatch(name):
        name, rest = "", text
    if not rest:
        raise ConfigError(f"{text!r} names no source; write NAME=SOURCE, e.g. door=rtsp://host/stream")
    return name or None, rest


def _value(name: str, environ: Mapping[str, str]) -> str:
    """The variable NAME, or the content of the file that NAME_FILE names, where containers have their secrets."""
    if name in environ:
        return environ[name]
    file = environ.get(f"{name}_FILE")
    if file is None:
        raise ConfigError(
            f"the environment variable {name} is not set, nor {name}_FILE, which may name a file that holds it"
        )
    try:
        return Path(file).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(f"{name}_FILE: {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}_FILE: {file}: is not UTF-8 text") from None


def _login(value: str, *, whole: bool) -> str:
    user, colon, password = value.partition(":")
    if whole and colon:
        return f"{quote(user, safe='')}:{quote(password, safe='')}"
    return quote(value, safe="")


def _made_name(address: Address) -> str:
    if descriptor_of(address) == 0:
        name = "stdin"
    elif address.is_local:
        # What an address does not show must not appear in the name either.
        name = Path(address.path).stem if address.shown == address.reveal() else ""
    else:
        name = address.host or address.scheme
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")[:60] or "stream"
