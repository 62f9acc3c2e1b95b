"""The command line's parser, and the types of its arguments."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import NoReturn


def number_from_1(text: str) -> int:
    """The type of an argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    """The type of an argument in seconds, above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


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
