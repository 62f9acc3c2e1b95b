"""`earwitness reload`: makes a running daemon reload its config."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from streamer.errors import UsageError
from streamer.runtime.control import folders, reload, running

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `reload`."""
    parser = subparsers.add_parser(
        "reload",
        help="make a running daemon reload its config",
        description="Makes this user's running daemon reload its config file, and prints what changed. If the new "
        "config is refused, prints why, and the old one stays in effect. Unchanged streams are not interrupted.",
        epilog="example: earwitness reload",
    )
    parser.add_argument("--pid", type=int, metavar="PID", help="process id of the daemon, if several run")
    parser.add_argument("--publisher", metavar="NAME", help="`publisher` of the daemon, if several run")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Reload one daemon; returns 0 if the new config is in effect."""
    found = list(running(folders(os.environ, os.geteuid())))
    fit = [one for one in found if args.pid in (None, one.pid) and args.publisher in (None, one.publisher)]
    names = ", ".join(f"--pid {one.pid} (publisher {one.publisher})" for one in found)
    if not found:
        raise UsageError(
            "no daemon of this user answers: start one with `earwitness run`, or run this command as the daemon's user"
        )
    if not fit:
        raise UsageError(f"no such daemon; running: {names}")
    if len(fit) > 1:
        raise UsageError(f"several daemons are running; choose one of: {names}")
    outcome = reload(fit[0])
    if not outcome.applied:
        raise UsageError(f"the new config is refused, the old one stays in effect: {outcome.text}")
    sys.stdout.write(f"reloaded: {outcome.text}\n")
    return 0
