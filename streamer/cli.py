"""The `earwitness` command: parses, hands over to one of `streamer.commands`, and says in one line what went wrong."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from streamer.errors import EarwitnessError, redacted
from streamer.escapes import escape_what_can_not_be_encoded, printable

COMMANDS = ("run", "replay", "listen", "weights", "doctor", "demo")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with 2."""
        self.exit(2, f"{self.prog}: error: {printable(redacted(message))}; see {self.prog} --help\n")


def make_parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    """The parser that knows `commands`; their modules are imported for it."""
    parser = Parser(
        prog="earwitness",
        description="Listens to and watches live streams, and tells other programs what it heard, when it began and "
        "when it ended.",
        epilog="example: earwitness run door=rtsp://user:pass@camera/stream",
    )
    parser.add_argument("--debug", action="store_true", help="show where in the program an error comes from")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in commands:
        importlib.import_module(f"streamer.commands.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code: 0 only on success."""
    argv = sys.argv[1:] if argv is None else argv
    escape_what_can_not_be_encoded(sys.stdout, sys.stderr)
    # Only what is asked for is imported: torch alone takes seconds, and `listen` needs none of it.
    named = [word for word in argv if not word.startswith("-")][:1]
    args = make_parser(named if named and named[0] in COMMANDS else COMMANDS).parse_args(argv)
    args.argv = list(argv)
    try:
        code: int = args.main(args)
        sys.stdout.flush()
    except EarwitnessError as error:
        return _failed(redacted(" ".join(str(error).split())), error.exit_code, args.debug)
    except BrokenPipeError:
        # Whoever read our output has gone: nobody is left to tell. Python must not try to flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _failed("interrupted", 130, debug=False)
    except Exception as error:
        hint = "please report it" if args.debug else "run it with `earwitness --debug ...` to see where, and report it"
        text = redacted(" ".join(str(error).split()))
        return _failed(f"this should not happen: {type(error).__name__}: {text}; {hint}", 1, args.debug)
    return code


def _failed(text: str, code: int, debug: bool) -> int:
    if debug:
        sys.stderr.write(redacted(traceback.format_exc()))
    sys.stderr.write(f"earwitness: error: {printable(text)}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
