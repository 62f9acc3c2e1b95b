"""How a YAML file, the environment and command-line sources become a config."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError

from streamer.config.schema import NAME, DaemonConfig, StreamConfig
from streamer.errors import ConfigError, redacted

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def load_config(path: Path, environ: Mapping[str, str]) -> DaemonConfig:
    """Read a YAML file; `${NAME}` in a stream's source is taken from `environ`.

    Raises:
        ConfigError: it can't be read, is not YAML, or has a wrong or unknown field: says which, and in what line.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path}: is not UTF-8 text; is this the YAML file?") from None
    lines: dict[tuple[str, ...], int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _note_lines(node, (), lines, path)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"config {path}{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"config {path}: must be fields and values (`streams:` ...), not {_kind(data)}")

    def place(loc: tuple[str, ...]) -> str:
        for length in range(len(loc), 0, -1):
            if loc[:length] in lines:
                return f"config {path}:{lines[loc[:length]]}"
        return f"config {path}"

    return _parsed(_substituted(data, environ, place), place)


def with_changes(config: DaemonConfig, changes: Mapping[str, Any]) -> DaemonConfig:
    """`config` with the values that command-line options set, by dotted field name.

    Raises:
        ConfigError: a value does not fit its field.

    """
    data = config.model_dump()
    for name, value in changes.items():
        *sections, last = name.split(".")
        target = data
        for section in sections:
            target = target[section]
        target[last] = value
    return _parsed(data, lambda _: "command line")


def with_sources(config: DaemonConfig, sources: Sequence[str]) -> DaemonConfig:
    """`config` with the command line's sources (`NAME=SOURCE` or `SOURCE`) added to its streams.

    A source without a name is called after its host or its file. A name that is already there is refused if it was
    given, and counted up if it was made.

    Raises:
        ConfigError: a name is not one, or is taken.

    """
    streams: dict[str, Any] = config.model_dump()["streams"]
    for text in sources:
        name, url = split_source(text)
        if name is None:
            made = _made_name(url)
            name = made
            for number in range(2, len(streams) + 2):
                if name not in streams:
                    break
                name = f"{made[:60]}-{number}"
        elif name in streams:
            raise ConfigError(f"two streams are named {name!r}; give each its own name: NAME=SOURCE")
        streams[name] = {"source": url}
    return with_changes(config, {"streams": streams})


def split_source(text: str) -> tuple[str | None, str]:
    """`NAME=SOURCE` or `SOURCE` as name (None without one) and source.

    Raises:
        ConfigError: there is no source, or what stands before a URL is no name.

    """
    name, equals, rest = text.partition("=")
    if equals and not NAME.fullmatch(name) and _URL.match(rest) and not re.search(r"[/:]", name):
        raise ConfigError(
            f"{name!r} can't be a stream's name: names are 1 to 64 letters, digits, '_', '.' and '-', e.g. door"
        )
    if not equals or not NAME.fullmatch(name):
        name, rest = "", text
    if not rest:
        raise ConfigError(f"{redacted(text)!r} names no source; write NAME=SOURCE, e.g. door=rtsp://host/stream")
    return name or None, rest


def _made_name(url: str) -> str:
    parts = urlsplit(url) if "://" in url else None
    if parts is not None and parts.scheme != "file":
        try:
            name = parts.hostname or parts.scheme
        except ValueError:
            name = parts.scheme
    else:
        name = Path(url).stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")[:60] or "stream"


_T = TypeVar("_T")


def _substituted(data: dict[str, Any], environ: Mapping[str, str], place: Any) -> dict[str, Any]:
    """`data` with the variables in its streams' sources replaced."""
    streams = data.get("streams")
    if not isinstance(streams, dict):
        return data
    changed: dict[Any, Any] = {}
    for name, stream in streams.items():
        if isinstance(stream, dict) and isinstance(stream.get("source"), str):
            source = stream["source"]
            missing = [variable for variable in _VARIABLE.findall(source) if variable not in environ]
            if missing:
                where = place(("streams", str(name), "source"))
                raise ConfigError(f"{where}: streams.{name}.source: the environment has no {missing[0]}; set it")
            stream = {**stream, "source": _VARIABLE.sub(lambda match: environ[match[1]], source)}
        changed[name] = stream
    return {**data, "streams": changed}


def _parsed(data: Mapping[str, Any], place: Any) -> DaemonConfig:
    try:
        return DaemonConfig.model_validate(data)
    except ValidationError as error:
        # The input is left out: it may hold a password.
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        # A misspelt name often makes another one missing: the misspelling is what to mend.
        first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
        loc = tuple(str(part) for part in first["loc"] if part != "[key]")
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ConfigError(f"{place(loc)}: {_told(first['type'], loc, first['msg'])}{more}") from None


def _told(kind: str, loc: tuple[str, ...], message: str) -> str:
    path = ".".join(loc)
    if kind == "extra_forbidden":
        names = _fields_at(loc[:-1])
        near = difflib.get_close_matches(loc[-1], names, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"
        return f"unknown field {path!r}; {hint}"
    if kind == "missing":
        return f"{path} is missing"
    if kind == "string_pattern_mismatch":
        return f"{path}: names are 1 to 64 letters, digits, '_', '.' and '-'"
    if kind in ("model_type", "dict_type"):
        return f"{path or 'the config'} must hold fields (`name: value`, indented)"
    return f"{path}: {message[0].lower()}{message[1:]}"


def _fields_at(loc: tuple[str, ...]) -> list[str]:
    """The field names that may stand in the section at `loc`."""
    if not loc:
        return list(DaemonConfig.model_fields)
    if loc[0] == "streams":
        return list(StreamConfig.model_fields)
    section = DaemonConfig.model_fields[loc[0]].annotation
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _note_lines(node: yaml.Node, loc: tuple[str, ...], lines: dict[tuple[str, ...], int], path: Path) -> None:
    """Fill `lines` with the line of every field; a field that is there twice is an error, which YAML hides."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = (*loc, str(key.value))
            line = key.start_mark.line + 1
            if name in lines:
                raise ConfigError(f"config {path}:{line}: {'.'.join(name)} is there twice, first in line {lines[name]}")
            lines[name] = line
            _note_lines(value, name, lines, path)


def _kind(data: object) -> str:
    return "a list" if isinstance(data, list) else "a single value"
