"""The `earwitness` command: parses the arguments, runs one of `streamer.commands`, and prints errors in one line.

As little as possible is imported here: until `main` handles the signals, Ctrl-C prints a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamer.starting import EndsAtOnce, not_loaded

if TYPE_CHECKING:
    from streamer.commands.known import KnownSecrets

COMMANDS = (
    "run",
    "reload",
    "replay",
    "listen",
    "events",
    "explain",
    "keys",
    "weights",
    "doctor",
    "health",
    "demo",
    "bench",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 only on success."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        # Until the command runs, Ctrl-C ends the process at once, wherever it is: no moment is left for a traceback.
        with EndsAtOnce("earwitness"):
            from streamer.commands.known import KnownSecrets
            from streamer.commands.parser import MisuseError, make_parser
            from streamer.errors import EarwitnessError
            from streamer.escapes import escape_what_can_not_be_encoded

            escape_what_can_not_be_encoded(sys.stdout, sys.stderr)
            known = KnownSecrets()
            known.learn_arguments(argv)
            # Only the requested command is imported: torch alone takes seconds, and `listen` does not need it.
            named = [word for word in argv if not word.startswith("-")][:1]
            args = make_parser(named if named and named[0] in COMMANDS else COMMANDS).parse_args(argv)
            args.argv, args.known = list(argv), known
        code: int = args.main(args)
        sys.stdout.flush()
    except ImportError as error:
        if "--debug" in argv:
            import traceback

            traceback.print_exc()
        return not_loaded("earwitness", error)
    except MisuseError as error:
        return _failed(known, f"{error}; see {error.prog} --help", 2, prog=error.prog)
    except EarwitnessError as error:
        return _failed(known, str(error), error.exit_code, debug="--debug" in argv)
    except BrokenPipeError:
        # The reader of our output is gone. Python must not try to flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _failed(known, "interrupted", 130)
    except Exception as error:
        debug = "--debug" in argv
        hint = "please report it" if debug else "run it with `earwitness --debug ...` for details, and report it"
        return _failed(known, f"this should not happen: {type(error).__name__}: {error}; {hint}", 1, debug=debug)
    return code


def _failed(known: KnownSecrets, text: str, code: int, *, prog: str = "earwitness", debug: bool = False) -> int:
    """Print the error's line, with `debug` after its traceback; returns `code`."""
    from streamer.escapes import printable

    if debug:
        import traceback

        sys.stderr.write(known.hide(traceback.format_exc()))
    sys.stderr.write(f"{prog}: error: {printable(known.hide(' '.join(text.split())))}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
