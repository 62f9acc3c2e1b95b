"""The daemon's own log: one line each on standard error, without secrets and without tracebacks."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from streamer.errors import redacted
from streamer.escapes import printable


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{when} {record.levelname:<7} {_message(record)}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "utc_s": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        return json.dumps(entry, ensure_ascii=False)


def set_up(level: str, form: str) -> None:
    """Log our own lines of `level` and above (and others' warnings) as `text` or `json`; replaces what was set up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("streamer").setLevel(level.upper())
    logging.raiseExceptions = False  # a broken standard error must not break the daemon


def _message(record: logging.LogRecord) -> str:
    return printable(redacted(" ".join(record.getMessage().split())))
