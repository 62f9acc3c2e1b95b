"""`earwitness keys`: who may subscribe from other machines."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from streamer.errors import KeysError
from streamer.sinks.keys import KeyFolder, default_key_folder


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "keys",
        help="who may subscribe: make, list and revoke keys",
        description="Make, list and revoke the keys of subscribers. A running daemon notices at once.",
        epilog="example: earwitness keys new kitchen",
    )
    commands = parser.add_subparsers(metavar="new|list|revoke", required=True)
    new = commands.add_parser(
        "new",
        help="let a subscriber in, and write its key file",
        description="Let a subscriber in, and write the key file that it needs. The first time, the daemon's own key "
        "is made too.",
        epilog="example: earwitness keys new kitchen --to /media/stick/kitchen.key",
    )
    new.add_argument("name", metavar="NAME", help="what to call the subscriber: letters, digits, '_', '.' and '-'")
    made = new.add_mutually_exclusive_group()
    made.add_argument("--to", type=Path, metavar="FILE", help="where its key file goes (default: NAME.key here)")
    made.add_argument("--public", metavar="KEY", help="it has a pair of keys of its own, with this public key (Z85)")
    new.set_defaults(main=_new)
    show = commands.add_parser(
        "list",
        help="print who may subscribe",
        description="Print the daemon's public key, then who may subscribe and who may not any more.",
        epilog="example: earwitness keys list",
    )
    show.set_defaults(main=_list)
    revoke = commands.add_parser(
        "revoke",
        help="let a subscriber in no more",
        description="Let a subscriber in no more. A running daemon cuts its connections off.",
        epilog="example: earwitness keys revoke kitchen",
    )
    revoke.add_argument("name", metavar="NAME", help="the subscriber, as `earwitness keys list` calls it")
    revoke.set_defaults(main=_revoke)
    default = default_key_folder(os.environ)
    for one in (new, show, revoke):
        one.add_argument("--keys", type=Path, metavar="FOLDER", default=default, help=f"default: {default}")


def _new(args: argparse.Namespace) -> int:
    folder = KeyFolder(args.keys)
    to: Path = args.to or Path(f"{args.name}.key")
    made = folder.new(args.name, to, args.public)
    if made:
        _say(f"made the daemon's own key; start it with --keys {args.keys.absolute()} (publish.keys in a config)")
    if args.public is not None:
        _say(f"{args.name} may subscribe; the daemon's public key, which it needs: {folder.server().public}")
        return 0
    _say(f"{args.name} may subscribe with the key in {to}: move it there, for whoever has it can read all messages")
    _say(f"there: earwitness listen --key {to.name} tcp://HOST:5557")
    return 0


def _list(args: argparse.Namespace) -> int:
    folder = KeyFolder(args.keys)
    _say(f"{folder.server().public}  the daemon, at {args.keys}")
    found = folder.allow_list()
    for state, keys in (("may subscribe", found.allowed), ("revoked", found.revoked)):
        for key, name in sorted(keys.items(), key=lambda item: item[1]):
            _say(f"{key}  {name}: {state}")
    if found.faults:
        raise KeysError("; ".join(found.faults))
    return 0


def _revoke(args: argparse.Namespace) -> int:
    KeyFolder(args.keys).revoke(args.name)
    _say(f"{args.name} may subscribe no more")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
