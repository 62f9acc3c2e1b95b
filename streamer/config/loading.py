"""Makes the config from a YAML file, the environment and command-line options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from streamer.config.document import Document, Loc, read_document, shown_loc
from streamer.config.schema import DaemonConfig, StreamConfig
from streamer.config.sources import read_source, substituted
from streamer.errors import ConfigError

_WANT_TEXT = ("string_type", "path_type", "is_instance_of")
"""Pydantic's error types for a value that should be text and is not."""
_LIKE = {"metrics": DaemonConfig().metrics, "publish.zmq": DaemonConfig().publish.zmq}


def load_config(path: Path, environ: Mapping[str, str]) -> DaemonConfig:
    """Read a YAML file; `${NAME}` in a stream's source and FFmpeg options is replaced from `environ`.

    Raises:
        ConfigError: it can't be read, is not YAML, or has a wrong or unknown field; names the field and its line.

    """
    document = read_document(path)
    return _parsed(_substituted(document, environ), document)


def with_changes(config: DaemonConfig, changes: Mapping[str, Any]) -> DaemonConfig:
    """`config` with the values that command-line options set, by dotted field name.

    Raises:
        ConfigError: a value does not fit its field.

    """
    data = dict(config)
    for name, value in changes.items():
        section, dot, last = name.partition(".")
        if dot:
            fields = data[section]  # a dict once it was changed; `dict(model)` would take a field `keys` for the method
            data[section] = {**(fields if isinstance(fields, dict) else dict(iter(fields))), last: value}
        else:
            data[section] = value
    return _parsed(data, None)


def _substituted(document: Document, environ: Mapping[str, str]) -> dict[str, Any]:
    """The document's data with the variables in its streams' sources and FFmpeg options replaced."""
    streams = document.data.get("streams")
    if not isinstance(streams, dict):
        return document.data
    changed: dict[Any, Any] = {}
    for name, stream in streams.items():
        fields = dict(stream) if isinstance(stream, dict) else stream
        if isinstance(fields, dict):
            loc = ("streams", str(name), "source")
            try:
                if isinstance(fields.get("source"), str) and fields["source"]:
                    fields["source"] = read_source(fields["source"], environ)
                if isinstance(fields.get("ffmpeg"), dict):
                    loc = ("streams", str(name), "ffmpeg")
                    fields["ffmpeg"] = {
                        option: substituted(value, environ) if isinstance(value, str) else value
                        for option, value in fields["ffmpeg"].items()
                    }
            except ConfigError as error:
                raise ConfigError(f"{document.place(loc)}: {shown_loc(loc)}: {error}") from None
        changed[name] = fields
    return {**document.data, "streams": changed}


def _parsed(data: Mapping[str, Any], document: Document | None) -> DaemonConfig:
    """`data` as a config; it comes from `document`, or from the command line if that is None."""
    try:
        return DaemonConfig.model_validate(data)
    except ValidationError as error:
        # The input is left out: it may contain a password.
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        # A misspelt name often causes a second error, that the right one is missing: report the misspelling.
        first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
        loc = tuple(str(part) for part in first["loc"] if part != "[key]")
        place = document.place(loc) if document else "command line"
        written = document.written.get(loc) if document else None
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ConfigError(f"{place}: {_explained(first['type'], loc, first['msg'], written)}{more}") from None


def _explained(kind: str, loc: Loc, message: str, written: tuple[str, str] | None) -> str:
    path = shown_loc(loc)
    if kind == "extra_forbidden":
        names = _fields_at(loc[:-1])
        near = difflib.get_close_matches(loc[-1], names, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"fields here: {', '.join(names)}"
        return f"unknown field {path!r}; {hint}"
    if kind == "missing":
        return f"{path} is missing"
    if kind == "string_pattern_mismatch":
        return f"{path}: names are 1 to 64 letters, digits, '_', '.' and '-'"
    if kind in ("model_type", "dict_type"):
        return f"{path or 'the config'} must contain fields (`name: value`, indented)"
    if kind in _WANT_TEXT:
        return _explained_text(path, loc, written)
    return f"{path}: {message[0].lower()}{message[1:]}"


def _explained_text(path: str, loc: Loc, written: tuple[str, str] | None) -> str:
    if written is None:
        return f"{path} must be text"
    read_as, text = written
    if read_as == "null":
        return f"{path} is missing"
    if path in _LIKE:
        return f"{path}: {text} is not an address; write one like {_LIKE[path]}"
    if loc[-1] == "source" or "ffmpeg" in loc:  # it may be a password
        return f"{path}: YAML reads it as {read_as}; write it in quotes"
    return f'{path}: YAML reads {text} as {read_as}; write it in quotes: "{text}"'


def _fields_at(loc: Loc) -> list[str]:
    """The names of the fields in the section at `loc`."""
    if not loc:
        return list(DaemonConfig.model_fields)
    if loc[0] == "streams":
        return list(StreamConfig.model_fields)
    section = DaemonConfig.model_fields[loc[0]].annotation
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
