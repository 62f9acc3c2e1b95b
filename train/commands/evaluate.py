"""`earwitness-train evaluate`: scores a bundle on a part of a corpus."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamer.bundle import Bundle
from train.commands.options import Subparsers, add_data, new_command
from train.data import cache
from train.data.dataset import Corpus


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "evaluate",
        "score a bundle on a part of a corpus",
        "earwitness-train evaluate data/corpus data/features --part test",
    )
    add_data(parser)
    parser.add_argument("--model", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--part", default="test", choices=["validation", "test"])
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train import evaluate
    from train.provenance import known_of
    from train.split import check_split

    bundle, corpus = Bundle.load(args.model), Corpus.read(args.corpus)
    check_split(known_of(bundle), corpus.summary)
    part = corpus.part(args.part, args.features, bundle.modalities)
    cache.check_specs(part.features, bundle.feature_specs, f"bundle {bundle.name}")
    clips = evaluate.posteriors(bundle.network(), part, progress=True)
    assert part.truth is not None
    report = evaluate.score(clips, part.truth, bundle.decoding)
    print(f"{report.table()}\n{report.subset()}")  # noqa: T201
    return 0
