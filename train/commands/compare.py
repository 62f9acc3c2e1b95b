"""`earwitness-train compare`: whether one report is better than another, by the paired bootstrap."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.options import Subparsers, add_draws, new_command


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "compare",
        "compare two reports over the same clips, with intervals of the differences",
        "earwitness-train compare results-a results-b",
    )
    for name in ("REPORT_A", "REPORT_B"):
        parser.add_argument(
            name.lower(),
            type=Path,
            metavar=name,
            help="folder of `earwitness-train evaluate --report` or of `earwitness replay --truth TSV --report`",
        )
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="TSV",
        help="the recordings behind the clips, such as a corpus's metadata/sources.tsv (default: as the reports say)",
    )
    add_draws(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train.evaluation.compare import compare

    found = compare(args.report_a, args.report_b, args.groups, draws=args.draws)
    print("\n\n".join([f"A: {args.report_a}   B: {args.report_b}", *(one.text() for one in found)]))  # noqa: T201
    return 0
