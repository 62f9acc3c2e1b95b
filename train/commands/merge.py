"""`earwitness-train merge`: makes one model of several that were trained apart."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.models import bundle_path
from train.commands.options import Subparsers, new_command


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "merge",
        "make one model of several: of different modalities, whose scores it averages, or of the same network",
        "earwitness-train merge audio spectral mn04-alone --shares 0.7 0.3",
    )
    parser.add_argument("out", type=Path, help="folder of the bundle to write")
    parser.add_argument(
        "bundles",
        type=bundle_path,
        nargs="+",
        metavar="NAME|BUNDLE",
        help="models of one form; the first one gives the thresholds; without --average, only it may be spectral",
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        metavar="SHARE",
        help="of each bundle's logits or weights; default: equal ones",
    )
    parser.add_argument(
        "--average",
        action="store_true",
        help="average the weights, of models that were trained on from the same one in different ways",
    )
    parser.add_argument("--name", default="earwitness")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train.merge import Member, averaged, merged

    shares = args.shares or [1 / len(args.bundles)] * len(args.bundles)
    if len(args.bundles) < 2:
        raise EarwitnessError("there is only one bundle: name those to be merged")
    if len(shares) != len(args.bundles):
        raise EarwitnessError(f"--shares: there are {len(shares)} for {len(args.bundles)} bundles")
    members = [Member(Bundle.load(path), share) for path, share in zip(args.bundles, shares, strict=True)]
    (averaged if args.average else merged)(members, args.name).save(args.out)
    return 0
