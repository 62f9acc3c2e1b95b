"""`earwitness-train evaluate`: scores a bundle on a part of a corpus, and writes a report of all that can be said."""

from __future__ import annotations

import argparse
import logging
import shlex
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from streamer.arguments import number_from_0, number_from_1
from streamer.bundle import Bundle
from streamer.errors import UsageError
from streamer.escapes import printable
from train.commands.options import Subparsers, add_data, add_draws, add_model, add_workers, new_command
from train.data import cache
from train.data.dataset import Corpus, PartData

_log = logging.getLogger(__name__)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "evaluate",
        "score a bundle on a part of a corpus",
        "earwitness-train evaluate data/corpus data/features --model mymodel --report results",
    )
    add_data(parser)
    add_model(parser)
    parser.add_argument("--part", default="test", choices=["validation", "test"])
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FOLDER",
        help="also as a live stream, and with intervals: write report.html, evaluation.json and tables here",
    )
    parser.add_argument(
        "--curve",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure latency against accuracy for the report, at presets and over hops and lookaheads (default: yes)",
    )
    parser.add_argument(
        "--hops",
        type=number_from_1,
        nargs="+",
        metavar="CELLS",
        help="of the curve; a cell is 66 ms, and multiples of the smallest cost nothing more (default: 8 16 32)",
    )
    parser.add_argument(
        "--lookaheads",
        type=number_from_0,
        nargs="+",
        metavar="CELLS",
        help="of the curve (default: 0 8 15 23 30 45 60, from the shortest on that the model can use)",
    )
    add_draws(parser)
    add_workers(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train.evaluation import stored
    from train.provenance import known_of
    from train.split import check_split

    if args.report is not None and args.report.exists() and not args.report.is_dir():
        raise UsageError(f"--report {args.report}: is not a folder")
    bundle, corpus = Bundle.load(args.model), Corpus.read(args.corpus)
    check_split(known_of(bundle), corpus.summary, (args.part,))
    part = corpus.part(args.part, args.features, bundle.modalities)
    cache.check_specs(part.features, bundle.feature_specs, f"bundle {bundle.name}")
    if args.report is not None:
        _report(args, corpus, bundle, part)
        return 0
    clips = stored.posteriors(bundle.network(), part, progress=True)
    assert part.truth is not None
    report = stored.score(clips, part.truth, bundle.decoding)
    print(f"{report.table()}\n{report.subset()}")  # noqa: T201
    return 0


def _report(args: argparse.Namespace, corpus: Corpus, bundle: Bundle, part: PartData) -> None:
    from train.evaluation import groups, measuring
    from train.report import files
    from train.report.page import Made

    with_psds = find_spec("sed_scores_eval") is not None
    if not with_psds:
        _log.warning("sed_scores_eval is not installed, so PSDS is left out: pip install 'earwitness[psds]'")
    plan = measuring.Plan(
        hops=tuple(args.hops or measuring.HOPS),
        lookaheads=tuple(args.lookaheads or measuring.lookaheads_of(bundle)),
        curve=args.curve,
        with_psds=with_psds,
        draws=args.draws,
        workers=args.workers,
    )
    found = measuring.measure(args.model, part, groups.of_corpus(corpus, part, bundle.classes), plan)
    made = Made(
        command=printable(shlex.join(["earwitness-train", *args.argv])),
        corpus=printable(str(args.corpus)),
        version=version("earwitness"),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    files.write(args.report, found, made)
    offline, streaming = found.offline.report, found.streaming.report
    print(f"offline:\n{offline.table()}\n\nas a live stream:\n{streaming.table()}\n{offline.subset()}")  # noqa: T201
    _log.info("%s: open it in a browser", args.report / files.PAGE)
