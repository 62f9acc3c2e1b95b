"""Runs one command of `earwitness-train`, and turns its errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from streamer.errors import EarwitnessError
from streamer.networks.backends import use_threads
from streamer.starting import not_loaded

COMMANDS = (
    *("corpus", "features", "data", "teach", "guide", "fit", "bench", "evaluate", "compare"),
    *("experiment", "tune", "export", "merge", "card"),
)
"""In the order of `--help`: that of use."""
_EXTRA = ("soundfile", "tensorboard", "PIL", "matplotlib", "optuna")
"""Packages of the extra `train`. Each is imported only by the commands that need it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 on success."""
    logging.basicConfig(format="earwitness-train: %(message)s", level=logging.INFO)
    args = _make_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else list(argv)
    try:
        if args.one_thread:
            use_threads(1)
        result: int = args.main(args)
        return result
    except EarwitnessError as error:
        return _failed(" ".join(str(error).split()), error.exit_code)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]  # the name is matplotlib.axes where all of it is missing
        if package not in _EXTRA:
            return not_loaded("earwitness-train", error)
        return _failed(f"{package} is not installed: pip install 'earwitness[train]'", 1)
    except OSError as error:
        return _failed(f"{error.filename or 'a file'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _failed("interrupted; finished work is kept", 130)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="earwitness-train", description="Trains models for earwitness.")
    parser.set_defaults(one_thread=True)  # a command with a setting of its own changes that
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"train.commands.{name}").add_parser(subparsers)
    return parser


def _failed(text: str, code: int) -> int:
    print(f"earwitness-train: error: {text}", file=sys.stderr)  # noqa: T201
    return code
