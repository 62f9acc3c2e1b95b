"""How commands of `earwitness-train` and the options that they share are added to the command line."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from streamer.arguments import number_from_1
from streamer.features import EXTRACTORS
from streamer.models import bundle_path, model_help
from streamer.networks.weights import default_weights_folder
from train.evaluation.bootstrap import DRAWS

Subparsers = argparse._SubParsersAction
"""What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""


def new_command(
    subparsers: Subparsers[argparse.ArgumentParser], name: str, help: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with its help and an example of its use."""
    return subparsers.add_parser(name, help=help, description=help, epilog=f"example: {example}")


def add_data(parser: argparse.ArgumentParser) -> None:
    """The folders of a corpus and of its features."""
    parser.add_argument("corpus", type=Path, help="folder of the corpus")
    parser.add_argument("features", type=Path, help="folder of its features")


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--model`."""
    parser.add_argument("--model", type=bundle_path, required=True, metavar="NAME|BUNDLE", help=model_help(None))


def add_modalities(parser: argparse.ArgumentParser) -> None:
    """`--modalities`."""
    parser.add_argument("--modalities", nargs="+", choices=list(EXTRACTORS), help="overrides the configuration's")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """`--weights`."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FOLDER",
        default=default_weights_folder(os.environ),
        help="folder of pretrained weights (default: the user's cache)",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """`--workers`."""
    parser.add_argument(
        "--workers",
        type=number_from_1,
        metavar="N",
        default=os.cpu_count() or 1,
        help="worker processes (default: %(default)s)",
    )


def add_draws(parser: argparse.ArgumentParser) -> None:
    """`--draws`."""
    parser.add_argument(
        "--draws", type=number_from_1, metavar="N", default=DRAWS, help="of the bootstrap (default: %(default)s)"
    )
