"""The daemon's config: its fields, their defaults, and how a YAML file and command-line sources become one.

`configs/daemon/example.yaml` shows every field. What belongs to a model (classes, thresholds, windows) is
in its bundle and can't be set here.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from streamer.errors import ConfigError, redacted

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""A stream's name: it is part of topics and metric labels."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# YAML 1.1 reads a bare `off` as false.
OrOff = BeforeValidator(lambda value: None if value is False or value == "off" else value)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamConfig(_Section):
    """One source."""

    source: str = Field(
        min_length=1,
        description="An RTSP(S), RTMP, HTTP(S), HLS or UDP URL, a file, or a device. "
        "`${NAME}` is replaced by the environment variable NAME, so that a password need not stand in the file.",
    )
    transport: Literal["tcp", "udp"] = Field(
        default="tcp", description="How RTSP carries media: tcp loses nothing on the way."
    )
    format: str | None = Field(
        default=None,
        description="FFmpeg's name of the input format, where it can't be guessed: alsa, v4l2, mpegts, ...",
    )
    ffmpeg: dict[str, str] = Field(
        default={}, description="More FFmpeg options for this input; an unknown one is an error."
    )
    open_timeout_s: Positive = Field(default=10.0, description="Seconds that opening may take.")
    read_timeout_s: Positive = Field(
        default=10.0, description="Seconds without media after which the connection is given up."
    )
    hole_limit_s: Positive = Field(
        default=2.0, description="A longer hole in the media ends the epoch; a shorter one is masked and reported."
    )
    stall_s: Positive = Field(
        default=5.0, description="A live stream that brings nothing for so long has its open events closed with `gap`."
    )
    watchdog_s: Positive = Field(
        default=20.0,
        description="A connection of which nothing comes out at the last stage for so long is cut and made anew.",
    )
    queue_s: Positive = Field(
        default=5.0, description="Seconds of media that may wait for the model; a live stream then drops its oldest."
    )
    realtime: bool = Field(default=False, description="Read a file at its own speed, as if it were a live source.")
    loop: bool = Field(default=False, description="Begin a file again at its end.")
    reconnect: bool = Field(
        default=True, description="Try a live source again when it is lost. A file is never tried again."
    )


class PublishConfig(_Section):
    """Where messages go, and which."""

    zmq: Annotated[str | None, OrOff] = Field(
        default="tcp://127.0.0.1:5557", description="ZeroMQ endpoint that subscribers connect to; `off`: none."
    )
    jsonl: Annotated[str | None, OrOff] = Field(
        default=None,
        description="File to which each message is appended as a line of JSON; `-`: standard output; `off`: none.",
    )
    tags: bool = Field(default=True, description="Publish the clip-level tags of every window.")
    scores: bool = Field(default=False, description="Publish every cell's scores: about 15 rows a second and stream.")
    queue_messages: int = Field(
        default=10_000, ge=100, description="Messages that may wait to be sent; then tags and scores are dropped first."
    )


class ReconnectConfig(_Section):
    """How soon a lost source is tried again: exponential backoff with full jitter."""

    first_s: Positive = Field(default=1.0, description="Upper limit of the first wait.")
    last_s: Positive = Field(default=60.0, description="Upper limit of every wait.")
    reset_s: Positive = Field(
        default=30.0, description="A connection that was well for so long begins at `first_s` again."
    )


class WindowsConfig(_Section):
    """How often the model looks, in cells of 66.24 ms."""

    hop_cells: int = Field(default=8, ge=1, le=128, description="Cells between two windows (8: 0.53 s).")
    lookahead_cells: int = Field(
        default=45, ge=0, le=75, description="Cells that must be known behind a cell before it is scored (45: 3 s)."
    )
    skew_cells: int = Field(
        default=30,
        ge=0,
        le=75,
        description="A modality that is further behind than this is masked and holds nothing up.",
    )
    max_event_s: Positive = Field(
        default=600.0, description="A longer event is closed with `max_duration`, and a new one begins."
    )


class LoadConfig(_Section):
    """How much of the machine the model may use."""

    threads: int = Field(
        default=1, ge=1, le=64, description="Threads of the model. More help pictures, and disturb decoding."
    )
    picture_budget: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of the model's time that pictures may take; beyond it fewer are looked at.",
    )


class LogConfig(_Section):
    """What is said on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is logged.")
    format: Literal["text", "json"] = Field(default="text", description="A line for people, or one JSON object a line.")


class DaemonConfig(_Section):
    """The whole config."""

    publisher: str = Field(
        default="earwitness",
        pattern=f"^{NAME.pattern}$",
        description="This daemon's name in its messages; give each its own.",
    )
    model: Path | None = Field(
        default=None, description="Folder of the model bundle; by default the one that is shipped."
    )
    weights: Path | None = Field(
        default=None,
        description="Folder of pretrained networks' weights (`earwitness weights`); by default the user's cache.",
    )
    streams: dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$")], StreamConfig] = Field(
        default={}, description="The sources, by name. Names are letters, digits, `_`, `.` and `-`, at most 64 of them."
    )
    publish: PublishConfig = Field(default_factory=PublishConfig, description="Where messages go, and which.")
    metrics: Annotated[str | None, OrOff] = Field(
        default="127.0.0.1:9464", description="HOST:PORT of /metrics, /healthz and /readyz; `off`: none."
    )
    windows: WindowsConfig = Field(default_factory=WindowsConfig, description="How often the model looks.")
    reconnect: ReconnectConfig = Field(
        default_factory=ReconnectConfig, description="How soon a lost source is tried again."
    )
    load: LoadConfig = Field(default_factory=LoadConfig, description="How much of the machine the model may use.")
    log: LogConfig = Field(default_factory=LogConfig, description="What is said on standard error.")


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


def default_weights_folder(environ: Mapping[str, str]) -> Path:
    """Where weights are kept unless the config says otherwise: the user's cache folder."""
    return Path(environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "earwitness" / "weights"
