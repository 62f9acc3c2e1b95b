"""`earwitness-train card`: adds measured scores to a bundle, and writes its model card."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamer.bundle import Bundle
from streamer.models import bundle_path, model_help
from train.commands.options import Subparsers, new_command


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "card",
        "add the scores that were measured to a bundle, and write its model card",
        "earwitness-train card model results-clip results-stream",
    )
    parser.add_argument("bundle", type=bundle_path, metavar="NAME|BUNDLE", help=model_help(None))
    parser.add_argument(
        "reports",
        type=Path,
        nargs="*",
        help="folders written by `earwitness replay --truth TSV --report` or `earwitness-train evaluate --report`",
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train import card

    bundle = Bundle.load(args.bundle)
    bundle = card.with_scores(bundle, dict(card.measured(report, bundle) for report in args.reports))
    bundle.save(args.bundle)
    (args.bundle / card.CARD).write_text(card.card(bundle))
    return 0
