"""`earwitness-train tune`: chooses a bundle's thresholds anew, or compares ways to choose them."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamer.arguments import number_from_0, number_from_1
from streamer.bundle import Bundle
from train.commands.options import Subparsers, add_data, add_model, add_workers, new_command
from train.data.dataset import Corpus
from train.tuning.search import METHODS, TRIALS
from train.tuning.space import MEDIANS


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "tune",
        "choose a bundle's thresholds and median filters on the validation clips; an interrupted search is resumed",
        "earwitness-train tune data/corpus data/features --model model --out tuned --method optuna",
    )
    add_data(parser)
    add_model(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="BUNDLE", help="folder of the tuned bundle to write")
    what.add_argument(
        "--compare",
        type=number_from_1,
        metavar="N",
        help="write nothing: choose on one half of the validation recordings and score on the other, for N random "
        "halvings, and print how the methods do",
    )
    parser.add_argument("--method", choices=METHODS, default="grid", help="default: %(default)s")
    parser.add_argument(
        "--mode",
        choices=["clip", "stream", "both"],
        default="both",
        help="tune on whole clips, on streams, or for both alike (default: %(default)s)",
    )
    parser.add_argument(
        "--longest-filter",
        type=_filter_length,
        metavar="CELLS",
        default=MEDIANS[1],
        help="longest median filter to try, odd; a live event waits for half of it (default: %(default)s)",
    )
    parser.add_argument(
        "--trials", type=number_from_1, metavar="N", default=TRIALS, help="of optuna (default: %(default)s)"
    )
    parser.add_argument("--seed", type=number_from_0, metavar="N", default=0, help="of optuna and of the halvings")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="keeps what was computed, for an interrupted command that is run again (default: beside the model)",
    )
    add_workers(parser)
    parser.set_defaults(main=main)


def _filter_length(text: str) -> int:
    cells = number_from_1(text)
    if cells % 2 == 0 or cells > MEDIANS[1]:
        raise argparse.ArgumentTypeError(f"{cells} is not an odd number up to {MEDIANS[1]}")
    return cells


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train.tuning import bundle, halves

    model, corpus = Bundle.load(args.model), Corpus.read(args.corpus)
    work = args.work or args.model.with_name(args.model.name + "-tuning")
    session = bundle.Session(model, corpus, args.features, work, args.workers)
    modes: tuple[bundle.Mode, ...] = ("clip", "stream") if args.mode == "both" else (args.mode,)
    if args.compare is not None:
        outcomes = session.compare(modes, args.compare, args.trials, args.seed)
        print(halves.table(outcomes))  # noqa: T201
        return 0
    tuned = session.tuned(modes, args.method, args.trials, args.seed, args.longest_filter)
    tuned.save(args.out)
    print(bundle.changes(model, tuned))  # noqa: T201
    return 0
