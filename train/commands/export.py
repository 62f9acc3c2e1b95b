"""`earwitness-train export`: tunes thresholds, measures, and writes a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from streamer.bundle import Bundle
from streamer.models import bundle_path
from train import config
from train.commands.options import Subparsers, add_data, add_weights, add_workers, new_command
from train.data.dataset import Corpus


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "export",
        "tune thresholds on validation, measure on test, write a bundle",
        "earwitness-train export data/corpus data/features runs/one model",
    )
    add_data(parser)
    parser.add_argument("fit", type=Path, help="folder of `fit`")
    parser.add_argument("out", type=Path, help="folder of the bundle to write")
    parser.add_argument("--name", default="earwitness")
    thresholds = parser.add_mutually_exclusive_group()
    thresholds.add_argument(
        "--decoding", type=bundle_path, metavar="NAME|BUNDLE", help="use this model's thresholds instead of tuning"
    )
    thresholds.add_argument(
        "--tune",
        action=argparse.BooleanOptionalAction,
        help="tune thresholds, or keep one threshold and one median filter for all classes; default: as the run's "
        "settings say",
    )
    parser.add_argument(
        "--network",
        choices=get_args(config.NetworkName),
        help="whose weights to export; default: as the run's settings say",
    )
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="WHICH",
        help="best, last, the step of one of the run's checkpoints, or a file (default: %(default)s, which the run's "
        "`keep` decides)",
    )
    add_weights(parser)
    add_workers(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train import export

    tuned = None if args.decoding is None else Bundle.load(args.decoding)
    corpus = Corpus.read(args.corpus)
    report = export.make(
        corpus, args.features, args.fit, args.out, args.name, args.weights, args.workers, tuned, args.network,
        args.tune, args.checkpoint,
    )  # fmt: skip
    print(f"{report.table()}\n{report.subset()}")  # noqa: T201
    return 0
