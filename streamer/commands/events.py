"""`earwitness events`: lists or exports the events in the event store."""

from __future__ import annotations

import argparse
import csv
import re
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from streamer.commands.options import add_store_options, store_path
from streamer.escapes import escaped, printable
from streamer.replay.truth import STRONG_HEADER
from streamer.sinks.store.history import EventFilter, History
from streamer.sinks.wire import OffsetMessage, OnsetMessage, encode

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_AGE = re.compile(r"(?P<count>\d+(?:\.\d+)?)(?P<unit>[smhdw])")
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
_COLUMNS = (
    *("event_id", "stream", "class", "onset_utc", "offset_utc", "duration_s", "confidence", "peak", "end_reason"),
    *("clock", "level_dbfs", "over_background_db", "onset_s", "offset_s", "publisher", "run", "epoch", "stored_seq"),
)
"""The columns of the CSV format: fields of the messages."""

Event = OnsetMessage | OffsetMessage


def add_parser(subparsers: _SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "events",
        help="list or export the events in the event store",
        description="Lists the events in the event store; the daemon may be running. An open event has no offset yet.",
        epilog="example: earwitness events --stream door --class Dog --since 1d --format csv > dogs.csv",
    )
    parser.add_argument("--stream", action="append", metavar="NAME", help="only events of this stream; can be repeated")
    parser.add_argument(
        "--class", action="append", dest="label", metavar="CLASS", help="only events of this class; can be repeated"
    )
    parser.add_argument(
        "--since", type=_moment, metavar="TIME", help=f"only events that began at this time or later: {_TIMES}"
    )
    parser.add_argument("--until", type=_moment, metavar="TIME", help="only events that began before this time")
    parser.add_argument(
        "--min-confidence", type=_share, metavar="P", help="only events with at least this confidence, 0 to 1"
    )
    parser.add_argument(
        "--format",
        choices=tuple(_WRITERS),
        default="text",
        help="readable lines, the messages as JSON lines, CSV, or DCASE's tab-separated format (default: text)",
    )
    add_store_options(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the events; 0, or an `EarwitnessError`."""
    chosen = EventFilter(
        streams=tuple(args.stream or ()),
        classes=tuple(args.label or ()),
        since_utc_s=args.since,
        until_utc_s=args.until,
        min_confidence=args.min_confidence,
    )
    with closing(History(store_path(args))) as history:
        _WRITERS[args.format](history.events(chosen))
    return 0


def _text(events: Iterable[Event]) -> None:
    for event in events:
        when = f"{event.onset_s:10.2f} s" if event.onset_utc is None else _clock(event.onset_utc)
        if isinstance(event, OffsetMessage):
            rest = f"{event.duration_s:7.2f} s  confidence {event.confidence:.2f}"
            rest += "" if event.end_reason == "silence" else f"  ({event.end_reason})"
        else:
            rest = f"   open    score {event.score:.2f}"
        sys.stdout.write(printable(f"{when}  {event.stream}  {event.label}  {rest}") + "\n")


def _json(events: Iterable[Event]) -> None:
    for event in events:
        sys.stdout.write(encode(event).decode() + "\n")


def _csv(events: Iterable[Event]) -> None:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for event in events:
        if_open = {} if isinstance(event, OffsetMessage) else {"confidence": event.score}
        rows.writerow([if_open.get(name, getattr(event, _FIELDS.get(name, name), None)) for name in _COLUMNS])


def _dcase(events: Iterable[Event]) -> None:
    """Media seconds count from the start of an epoch, so each epoch of each run gets its own file name."""
    sys.stdout.write("\t".join(STRONG_HEADER) + "\n")
    omitted = 0
    for event in events:
        if isinstance(event, OffsetMessage):
            name = escaped(f"{event.stream}-{event.run}-{event.epoch}")
            sys.stdout.write(f"{name}\t{event.onset_s:.3f}\t{event.offset_s:.3f}\t{escaped(event.label)}\n")
        else:
            omitted += 1
    if omitted:
        sys.stderr.write(f"earwitness: open events omitted: {omitted}\n")


_FIELDS = {"class": "label"}
_WRITERS = {"text": _text, "json": _json, "csv": _csv, "dcase": _dcase}
_TIMES = "a date, a date and time (RFC 3339; UTC without an offset), or an age: 30m, 12h, 7d"


def _clock(onset_utc: str) -> str:
    """An RFC 3339 text as date and time, to a tenth of a second."""
    return f"{onset_utc[:10]} {onset_utc[11:21]}Z"


def _moment(text: str) -> float:
    """The argument type of a time, as Unix seconds."""
    age = _AGE.fullmatch(text)
    if age is not None:
        return time.time() - float(age["count"]) * _UNITS_S[age["unit"]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write {_TIMES}") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _share(text: str) -> float:
    """The argument type of a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value
