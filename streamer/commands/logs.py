"""The daemon's log on standard error: one line per record, without secrets or tracebacks."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from streamer.commands.known import KnownSecrets
from streamer.escapes import printable


class _Text(logging.Formatter):
    def __init__(self, known: KnownSecrets) -> None:
        super().__init__()
        self._known = known

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{when} {record.levelname:<7} {_message(record, self._known)}"


class _Json(logging.Formatter):
    def __init__(self, known: KnownSecrets) -> None:
        super().__init__()
        self._known = known

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "utc_s": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record, self._known),
        }
        return json.dumps(entry, ensure_ascii=False)


def set_up(level: str, form: str, known: KnownSecrets) -> None:
    """Log our own records from `level` up, and libraries' warnings, as `text` or `json`; replaces earlier handlers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(known) if form == "json" else _Text(known))
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("streamer").setLevel(level.upper())
    logging.raiseExceptions = False  # a broken standard error must not break the daemon


def _message(record: logging.LogRecord, known: KnownSecrets) -> str:
    return printable(known.hide(" ".join(record.getMessage().split())))
