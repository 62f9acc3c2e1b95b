"""`earwitness-train experiment`: trains many runs, and prints the table that compares them."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.options import Subparsers, add_weights, add_workers, new_command


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "experiment",
        "train every row of an experiment with several seeds, and compare them; an interrupted experiment is resumed",
        "earwitness-train experiment configs/train/table3.yaml --corpus data/corpus --out runs/table3",
    )
    parser.add_argument("config", type=Path, help="YAML; its fields are in train/experiment/config.py")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="overrides the configuration's")
    parser.add_argument("--features", type=Path, metavar="FOLDER", help="overrides the configuration's")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="overrides the configuration's")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--table", action="store_true", help="only print the table of the runs that are finished")
    what.add_argument(
        "--estimate",
        action="store_true",
        help="only train a few steps of each row, and print how long this experiment and the paper's full size take",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="PAGE", help="also write the table into this page, between its markers"
    )
    add_weights(parser)
    add_workers(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns 1 if a run failed."""
    from train.experiment import campaign, comparison, duration, page, plan, spreadsheet, table
    from train.experiment.executor import Processes
    from train.files import replace

    planned = plan.read(args.config, args.corpus, args.features, args.out)
    if args.estimate:
        campaign.prepare(planned, args.weights, args.workers)
        paces = duration.measure(planned)
        print(duration.planned(planned, paces, args.workers))  # noqa: T201
        print(duration.full_size(paces, args.workers))  # noqa: T201
        return 0
    if args.table:
        standing = campaign.take_stock(planned, args.workers)
    else:
        standing = campaign.carry_out(planned, args.weights, args.workers, Processes(args.workers))
    comparisons = [comparison.compare(standing, mode) for mode in planned.config.scoring.modes]
    time = table.time_of(planned.config, duration.paces(standing), args.workers)
    text = table.markdown(standing, comparisons, time)
    print(text, end="")  # noqa: T201
    if standing.finished:
        replace(planned.out / "table.md", text)
        replace(planned.out / "table.tsv", spreadsheet.tables_tsv(standing, comparisons))
        replace(planned.out / "runs.tsv", spreadsheet.runs_tsv(standing))
    if args.markdown is not None:
        page.update(args.markdown, planned.name, text)
    return 1 if standing.failed else 0
