"""Reads a YAML file: its values, the line of each, and which values YAML does not read as text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from streamer.address import Address
from streamer.errors import ConfigError

Loc = tuple[str, ...]
"""The path of a value: the names that lead to it."""

_KINDS = {
    "bool": "a yes or no",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
    "null": "null",
    "binary": "bytes",
    "value": "a default value",
}
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file whose top level is a mapping."""

    path: Path
    data: dict[str, Any]
    lines: dict[Loc, int] = field(default_factory=dict)
    written: dict[Loc, tuple[str, str]] = field(default_factory=dict)
    """What YAML reads a value as, and how it is written: only values that it does not read as text."""

    def place(self, loc: Loc) -> str:
        """File and line of the value at `loc`, or of the innermost section around it that exists."""
        for length in range(len(loc), 0, -1):
            if loc[:length] in self.lines:
                return f"config {self.path}:{self.lines[loc[:length]]}"
        return f"config {self.path}"


def read_document(path: Path) -> Document:
    """Read the YAML file `path`.

    Raises:
        ConfigError: it can't be read; the text names the line, but never quotes a value, which may be a password.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path}: not UTF-8 text; is this the YAML file?") from None
    document = Document(path, {})
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _note(node, (), document)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"config {path}{line}: not valid YAML: {_problem(error)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"config {path}: not valid YAML: it is nested too deeply, or contains itself") from None
    if data is None:
        return document
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(f"config {path}: must be fields with values (`streams:` ...), not {kind}")
    document.data.update(data)
    return document


def shown_loc(loc: Loc) -> str:
    """`loc` with dots, fit to be shown: a URL that was written in place of a name has its secrets removed."""
    return ".".join(Address.parse(part).shown for part in loc)


def _note(node: yaml.Node, loc: Loc, document: Document) -> None:
    """Record the lines of all values. Names that are not text are errors; so are duplicates, which YAML accepts."""
    if isinstance(node, yaml.ScalarNode):
        kind = node.tag.rpartition(":")[2]
        if kind in ("timestamp", "int", "float", "bool"):
            _check(node, kind, loc, document)
        if kind in _KINDS and not node.style:
            document.written[loc] = (_KINDS[kind], node.value)
    if isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _note(value, (*loc, str(number)), document)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = (*loc, str(key.value))
        line = key.start_mark.line + 1
        where = f"config {document.path}:{line}"
        read_as = _KINDS.get(key.tag.rpartition(":")[2])
        if isinstance(key, yaml.ScalarNode) and read_as is not None:
            raise ConfigError(
                f'{where}: YAML reads the name {key.value or "(empty)"} as {read_as}; write it in quotes: "{key.value}"'
            )
        if key.tag not in (_TEXT, _MERGE):
            raise ConfigError(f"{where}: a name must be text")
        if name in document.lines and key.tag != _MERGE:
            raise ConfigError(f"{where}: {shown_loc(name)} is given twice, first in line {document.lines[name]}")
        document.lines[name] = line
        _note(value, name, document)


def _check(node: yaml.ScalarNode, kind: str, loc: Loc, document: Document) -> None:
    """Raise `ConfigError` for an impossible date (2024-13-45) and a number that YAML 1.1 misreads (010: 8)."""
    where = f"config {document.path}:{node.start_mark.line + 1}: {shown_loc(loc)}"
    try:
        value = SafeConstructor().construct_object(node)
    except (ValueError, KeyError, OverflowError):
        problem = f"YAML reads it as {_KINDS[kind]}, but not a valid one; write it in quotes"
        raise ConfigError(f"{where}: {problem}") from None
    if kind in ("int", "float") and re.match(r"[-+]?0[0-9_]+$|.*:", node.value):
        raise ConfigError(f"{where}: YAML reads it as {value}; write the number in plain digits, or put text in quotes")


def _problem(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's error text, without its quotes from the file."""
    text = " ".join((error.problem or error.context or "").split())
    hint = "" if not re.search("alias|anchor|tag|cannot start", text) else "; write the value in quotes"
    return re.sub(r"""(['"])(?!<)[^'"]{2,}\1""", "'***'", text) + hint
