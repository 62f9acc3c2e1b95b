"""The `earwitness` command: parses the arguments, runs one of `streamer.commands`, and prints errors in one line.

As little as possible is imported here: until `main` handles the signals, Ctrl-C prints a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from streamer.starting import EndsAtOnce, not_loaded

COMMANDS = ("run", "reload", "replay", "listen", "events", "explain", "keys", "weights", "doctor", "health", "demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 only on success."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        with EndsAtOnce("earwitness"):
            from streamer.commands.known import KnownSecrets
            from streamer.commands.parser import MisuseError, make_parser
            from streamer.errors import EarwitnessError
            from streamer.escapes import escape_what_can_not_be_encoded, printable
    except ImportError as error:
        return not_loaded("earwitness", error)

    escape_what_can_not_be_encoded(sys.stdout, sys.stderr)
    known = KnownSecrets()
    known.learn_arguments(argv)

    def failed(text: str, code: int, prog: str = "earwitness", *, trace: bool = True) -> int:
        """Print the error's line, and with --debug its traceback."""
        if trace and "--debug" in argv:
            import traceback

            sys.stderr.write(known.hide(traceback.format_exc()))
        sys.stderr.write(f"{prog}: error: {printable(known.hide(' '.join(text.split())))}\n")
        return code

    try:
        with EndsAtOnce("earwitness"):
            # Only the requested command is imported: torch alone takes seconds, and `listen` does not need it.
            named = [word for word in argv if not word.startswith("-")][:1]
            args = make_parser(named if named and named[0] in COMMANDS else COMMANDS).parse_args(argv)
        args.argv, args.known = list(argv), known
        code: int = args.main(args)
        sys.stdout.flush()
    except MisuseError as error:
        return failed(f"{error}; see {error.prog} --help", 2, error.prog, trace=False)
    except EarwitnessError as error:
        return failed(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output is gone. Python must not try to flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return failed("interrupted", 130, trace=False)
    except ImportError as error:
        if "--debug" in argv:
            failed("a package can't be loaded", 1)
        return not_loaded("earwitness", error)
    except Exception as error:
        debug = "--debug" in argv
        hint = "please report it" if debug else "run it with `earwitness --debug ...` for details, and report it"
        return failed(f"this should not happen: {type(error).__name__}: {error}; {hint}", 1)
    return code


if __name__ == "__main__":
    sys.exit(main())
