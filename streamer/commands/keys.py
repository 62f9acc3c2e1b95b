"""`earwitness keys`: manages the keys of subscribers."""

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
        help="create, list and revoke the keys of subscribers",
        description="Create, list and revoke subscribers' keys. A running daemon applies changes at once.",
        epilog="example: earwitness keys new kitchen",
    )
    commands = parser.add_subparsers(metavar="new|list|revoke", required=True)
    new = commands.add_parser(
        "new",
        help="allow a subscriber, and write its key file",
        description="Allow a subscriber, and write the key file that it needs. The first call creates the daemon's key "
        "pair too.",
        epilog="example: earwitness keys new kitchen --to /media/stick/kitchen.key",
    )
    new.add_argument("name", metavar="NAME", help="a name for the subscriber: letters, digits, '_', '.' and '-'")
    made = new.add_mutually_exclusive_group()
    made.add_argument(
        "--to", type=Path, metavar="FILE", help="the key file to write (default: NAME.key in this folder)"
    )
    made.add_argument(
        "--public", metavar="KEY", help="the subscriber's public key (Z85), if it has a key pair of its own"
    )
    new.set_defaults(main=_new)
    show = commands.add_parser(
        "list",
        help="list allowed and revoked subscribers",
        description="Print the public keys of the daemon, and of allowed and revoked subscribers.",
        epilog="example: earwitness keys list",
    )
    show.set_defaults(main=_list)
    revoke = commands.add_parser(
        "revoke",
        help="revoke a subscriber's key",
        description="Revoke a subscriber's key. A running daemon disconnects it at once.",
        epilog="example: earwitness keys revoke kitchen",
    )
    revoke.add_argument("name", metavar="NAME", help="the subscriber's name in `earwitness keys list`")
    revoke.set_defaults(main=_revoke)
    default = default_key_folder(os.environ)
    for one in (new, show, revoke):
        one.add_argument(
            "--keys", type=Path, metavar="FOLDER", default=default, help=f"the key folder (default: {default})"
        )


def _new(args: argparse.Namespace) -> int:
    folder = KeyFolder(args.keys)
    to: Path = args.to or Path(f"{args.name}.key")
    made = folder.new(args.name, to, args.public)
    if made:
        _print(f"created the daemon's key pair; run it with --keys {args.keys.absolute()} (publish.keys in a config)")
    if args.public is not None:
        _print(f"{args.name} is allowed; it also needs the daemon's public key: {folder.server().public}")
        return 0
    _print(f"{args.name} is allowed; move {to} to its machine: anyone who has this file can read all messages")
    _print(f"on that machine: earwitness listen --key {to.name} tcp://HOST:5557")
    return 0


def _list(args: argparse.Namespace) -> int:
    folder = KeyFolder(args.keys)
    _print(f"{folder.server().public}  the daemon ({args.keys})")
    found = folder.allow_list()
    for state, keys in (("allowed", found.allowed), ("revoked", found.revoked)):
        for key, name in sorted(keys.items(), key=lambda item: item[1]):
            _print(f"{key}  {name}: {state}")
    if found.faults:
        raise KeysError("; ".join(found.faults))
    return 0


def _revoke(args: argparse.Namespace) -> int:
    KeyFolder(args.keys).revoke(args.name)
    _print(f"revoked {args.name}")
    return 0


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
