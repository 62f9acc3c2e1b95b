"""The command line's parser."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import NoReturn


class MisuseError(Exception):
    """A command line that can't be parsed; `prog` is the program with the command's name."""

    def __init__(self, prog: str, message: str) -> None:
        super().__init__(message)
        self.prog = prog


class Parser(argparse.ArgumentParser):
    """Leaves printing errors to the caller: argparse quotes arguments, which may contain secrets."""

    def error(self, message: str) -> NoReturn:
        """Raise `MisuseError`."""
        raise MisuseError(self.prog, message)


def make_parser(commands: Sequence[str]) -> Parser:
    """The parser of `commands`, whose modules it imports."""
    parser = Parser(
        prog="earwitness",
        description="Listens to and watches live streams, and publishes which sounds it heard and when each began and "
        "ended.",
        epilog="example: earwitness run 'door=rtsp://user:${CAMERA_PASSWORD}@camera/stream'",
    )
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in commands:
        importlib.import_module(f"streamer.commands.{name}").add_parser(subparsers)
    return parser
