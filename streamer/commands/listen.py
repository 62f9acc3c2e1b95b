"""`earwitness listen`: prints what a daemon publishes."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from datetime import UTC, datetime

from streamer.arguments import number_from_0, number_from_1, seconds
from streamer.client import Subscriber
from streamer.commands.ending import EndsSoon
from streamer.config.schema import PublishConfig
from streamer.errors import EarwitnessError
from streamer.sinks.wire import (
    HeartbeatMessage,
    Message,
    OffsetMessage,
    OnsetMessage,
    ScoresMessage,
    StatusMessage,
    TagsMessage,
    encode,
    kind,
)

_SILENCE_S = 15.0
_LOOK_S = 0.25
"""How often a waiting `listen` looks whether a signal has arrived."""
_TAGS_SHOWN = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    default = PublishConfig().zmq
    parser = subparsers.add_parser(
        "listen",
        help="print what a daemon publishes, one JSON object a line",
        description="Print what a daemon publishes, one JSON object a line (docs/messages.md).",
        epilog="example: earwitness listen --topic event/door/ --human",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoint", nargs="?", default=default, help=f"where the daemon publishes (default: {default})")
    parser.add_argument(
        "--topic",
        action="append",
        metavar="PREFIX",
        help="only topics with this prefix, e.g. event/, event/door/, status/; can be repeated (default: all)",
    )
    parser.add_argument("--count", type=number_from_1, metavar="N", help="end after N messages")
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="S",
        help="end after S seconds, with an error if fewer than --count messages arrived",
    )
    parser.add_argument("--key", metavar="FILE", help="key file, from `earwitness keys new` on the daemon's machine")
    parser.add_argument(
        "--since",
        type=number_from_0,
        metavar="SEQ",
        help="begin with the stored messages after this stored_seq; 0: with the oldest one in the daemon's event store",
    )
    parser.add_argument("--human", action="store_true", help="print readable lines instead of JSON")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print messages until --count, --timeout, Ctrl-C or a closed output pipe; returns the exit code."""
    deadline_s = math.inf if args.timeout is None else time.monotonic() + args.timeout
    printed = 0
    with EndsSoon() as ends, _subscribed(args) as messages:
        while (args.count is None or printed < args.count) and not ends.signal:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            message = messages.receive(min(left_s, _LOOK_S))
            if message is None:
                continue
            line = human(message) if args.human else encode(message).decode()
            try:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            except BrokenPipeError:
                # The reader of our output has exited. Python must not try to flush it again at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 0
            printed += 1
    ends.again()
    if args.count is not None and printed < args.count:
        raise EarwitnessError(f"{printed} of {args.count} messages arrived from {args.endpoint} in {args.timeout:g} s")
    return 0


def _subscribed(args: argparse.Namespace) -> Subscriber:
    return Subscriber(
        args.endpoint,
        args.topic or [""],
        lost_after_s=_SILENCE_S,
        on_lost=_report,
        key=args.key,
        since=args.since,
        on_gap=_report,
    )


def human(message: Message) -> str:
    """The message as a readable line."""
    if isinstance(message, HeartbeatMessage):
        streams = ", ".join(f"{name} {state}" for name, state in message.streams.items()) or "no streams"
        return f"{_clock(message.sent_utc_s)}  {message.publisher}  heartbeat  up {message.uptime_s:.0f} s, {streams}"
    if isinstance(message, OnsetMessage):
        when = _when(message.onset_utc_s, message.onset_s)
        text = f"{message.label}  begins, score {message.score:.2f}"
    elif isinstance(message, OffsetMessage):
        when = _when(message.offset_utc_s, message.offset_s)
        text = f"{message.label}  ends after {message.duration_s:.2f} s, confidence {message.confidence:.2f}"
        text += "" if message.end_reason == "silence" else f" ({message.end_reason})"
    elif isinstance(message, TagsMessage):
        when = _when(message.start_utc_s, message.start_s)
        best = sorted(message.tags.items(), key=lambda tag: -tag[1])[:_TAGS_SHOWN]
        text = f"{message.end_s - message.start_s:.1f} s: " + ", ".join(f"{label} {score:.2f}" for label, score in best)
    elif isinstance(message, ScoresMessage):
        when = _when(message.start_utc_s, message.start_s)
        text = f"{len(message.scores)} cells of {len(message.classes)} classes"
    else:
        when = _clock(message.sent_utc_s)
        text = _status(message)
    return f"{when}  {message.stream}  {kind(message):6}  {text}"


def _status(message: StatusMessage) -> str:
    why = ": ".join(word for word in (message.reason, message.detail) if word)
    parts = [f"{message.state} ({why})" if why else message.state]
    parts.append(f"uses {'+'.join(message.modalities) or 'nothing'}")
    if message.missing:
        parts.append(f"without {'+'.join(message.missing)}")
    parts.append(f"coverage {message.coverage:.0%}, {message.media_lag_s:.1f} s behind")
    if message.picture_stride is not None and message.picture_stride != 1:
        parts.append(f"{message.pictures_hz or 0:.1f} pictures/s")
    return ", ".join(parts)


def _when(utc_s: float | None, media_s: float) -> str:
    return f"{media_s:10.2f} s" if utc_s is None else _clock(utc_s)


def _clock(utc_s: float) -> str:
    """Unix seconds as a time of day in UTC, to a tenth of a second."""
    return datetime.fromtimestamp(utc_s, UTC).isoformat(sep=" ", timespec="milliseconds")[11:21] + "Z"


def _report(error: EarwitnessError) -> None:
    sys.stderr.write(f"earwitness: {error} Still listening.\n")
    sys.stderr.flush()
