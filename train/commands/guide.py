"""`earwitness-train guide`: stores what teachers and models say of a corpus's clips, for `fit` to learn from."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from streamer.bundle import Bundle
from streamer.models import bundle_path
from train.commands.options import Subparsers, add_data, new_command
from train.data import cache
from train.data.dataset import Corpus

_log = logging.getLogger(__name__)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "guide",
        "store the mean posteriors of teachers and models of a corpus's clips, beside its features",
        "earwitness-train guide data/corpus data/features runs/teacher --beside spectral",
    )
    add_data(parser)
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="folders of `earwitness-train teach`")
    parser.add_argument(
        "--beside",
        type=bundle_path,
        nargs="+",
        default=[],
        metavar="NAME|BUNDLE",
        help="models whose log-odds are averaged with the teachers'; their features must be stored",
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train.teacher import guide
    from train.teacher.record import Teacher

    corpus = Corpus.read(args.corpus)
    teachers = [Teacher.load(run) for run in args.runs]
    bundles = [Bundle.load(path) for path in args.beside]
    computed = guide.add(corpus, args.features, teachers, bundles)
    _log.info("%s: computed %d clips", args.features / cache.GUIDE, computed)
    return 0
