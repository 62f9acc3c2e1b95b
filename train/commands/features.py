"""`earwitness-train features`: computes a corpus's features once."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from train import config
from train.commands.options import Subparsers, add_modalities, add_weights, add_workers, new_command
from train.data import cache
from train.data.dataset import Corpus
from train.learning.distillation import modalities_of

_log = logging.getLogger(__name__)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "features",
        "compute a corpus's features once",
        "earwitness-train features data/corpus data/features",
    )
    parser.add_argument("corpus", type=Path, help="folder of the corpus")
    parser.add_argument("out", type=Path, help="folder for features; missing ones are added")
    parser.add_argument("--config", type=Path, help="YAML of `fit`: the modalities that it needs, and their specs")
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what it will take, in time and on the disk, and write nothing"
    )
    add_modalities(parser)
    add_weights(parser)
    add_workers(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    corpus = Corpus.read(args.corpus)
    if not args.dry_run:
        args.out.mkdir(parents=True, exist_ok=True)  # it also remembers the hashes of the media
    media = corpus.media(args.out)
    settings = config.load(args.config, config.FitConfig)
    modalities = args.modalities or modalities_of(settings)
    computed = cache.add(
        args.out,
        media,
        modalities,
        args.weights,
        args.workers,
        settings.features,
        tolerant=corpus.partial,
        dry_run=args.dry_run,
    )
    if not args.dry_run:
        _log.info("%s: computed %d of %d clips", args.out, computed, len(media))
    return 0
