"""`earwitness-train corpus`: mixes recordings into clips, with pictures if the configuration asks for them."""

from __future__ import annotations

import argparse
from pathlib import Path

from train import config
from train.commands.options import Subparsers, add_workers, new_command


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers, "corpus", "mix recordings into clips", "earwitness-train corpus recordings data/corpus --seed 1"
    )
    parser.add_argument("source", type=Path, help="folder with manifest.tsv and the recordings")
    parser.add_argument("out", type=Path, help="folder to create")
    parser.add_argument("--config", type=Path, help="YAML; see configs/train/corpus.yaml and corpus-audiovisual.yaml")
    parser.add_argument("--seed", type=int, help="overrides the configuration's seed")
    parser.add_argument(
        "--split",
        type=Path,
        metavar="FROM",
        help="a corpus or a bundle: groups of recordings that it knows keep their part; only new groups are assigned",
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="take pictures from here instead of SOURCE, if the configuration has `video`: a folder with manifest.tsv, "
        "or with one folder of photos and videos for each class; may be repeated",
    )
    add_workers(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train.data import corpus
    from train.data.config import CorpusConfig
    from train.split import read_pin

    settings = config.load(args.config, CorpusConfig)
    if args.seed is not None:
        settings = settings.model_copy(update={"seed": args.seed})
    pin = None if args.split is None else read_pin(args.split)
    pin_name = None if args.split is None else args.split.name
    corpus.make(args.source, args.out, settings, args.workers, pin, pin_name, args.pictures)
    return 0
