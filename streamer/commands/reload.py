"""`earwitness reload`: has a running daemon read its config anew."""

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
        help="have a running daemon read its config again",
        description="Has the daemon that runs as this user read its config file again, and prints what changed, or why "
        "the new config is refused; then the old one stays. Streams that stay are not interrupted.",
        epilog="example: earwitness reload",
    )
    parser.add_argument("--pid", type=int, metavar="PID", help="the daemon's process, if several run")
    parser.add_argument("--publisher", metavar="NAME", help="the daemon's `publisher`, if several run")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Reload one daemon; 0 if it took its config."""
    found = list(running(folders(os.environ, os.geteuid())))
    fit = [one for one in found if args.pid in (None, one.pid) and args.publisher in (None, one.publisher)]
    names = ", ".join(f"--pid {one.pid} (publisher {one.publisher})" for one in found)
    if not found:
        raise UsageError(
            "no daemon of this user answers: start one with `earwitness run`, or run this as the user that it runs as"
        )
    if not fit:
        raise UsageError(f"no such daemon; there is {names}")
    if len(fit) > 1:
        raise UsageError(f"several daemons run: name one: {names}")
    outcome = reload(fit[0])
    if not outcome.taken:
        raise UsageError(f"refused, and the old config stays: {outcome.text}")
    sys.stdout.write(f"reloaded: {outcome.text}\n")
    return 0
