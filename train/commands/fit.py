"""`earwitness-train fit`: trains."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamer.arguments import number_from_1
from streamer.bundle import Bundle
from streamer.models import bundle_path
from train import config
from train.commands.options import Subparsers, add_data, add_modalities, new_command
from train.data.dataset import Corpus


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "fit",
        "train",
        "earwitness-train fit data/corpus data/features runs/one --config configs/train/fit-spectral-1.yaml",
    )
    add_data(parser)
    parser.add_argument("out", type=Path, help="folder for checkpoints and logs; an existing run is resumed")
    parser.add_argument("--config", type=Path, help="YAML; its fields are in train/config.py")
    parser.add_argument(
        "--from",
        type=bundle_path,
        dest="begin",
        metavar="NAME|BUNDLE",
        help="start a new run from this model's network and step count; no group of recordings may have changed parts",
    )
    add_modalities(parser)
    parser.add_argument(
        "--threads", type=number_from_1, metavar="N", help="torch threads; overrides the configuration's"
    )
    parser.set_defaults(main=main, one_thread=False)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train import loop

    options = {"threads": args.threads, "modalities": args.modalities}
    given = {name: value for name, value in options.items() if value is not None}
    settings = config.load(args.config, config.FitConfig, given)
    begin = None if args.begin is None else Bundle.load(args.begin)
    loop.fit(Corpus.read(args.corpus), args.features, args.out, settings, begin)
    return 0
