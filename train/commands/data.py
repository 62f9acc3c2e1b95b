"""`earwitness-train data check`: checks the annotations and media of DCASE 2018 task 4 or DESED."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands.options import Subparsers, add_workers, new_command


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    commands = new_command(
        subparsers, "data", "look after real data", "earwitness-train data check DCASE --report findings.tsv"
    ).add_subparsers(required=True, metavar="COMMAND")
    check = new_command(
        commands,
        "check",
        "check the annotations and media of DCASE 2018 task 4 or DESED",
        "earwitness-train data check DCASE --report findings.tsv",
    )
    check.add_argument("root", type=Path, help="folder with `metadata` and, in any folders, the clips")
    check.add_argument("--rows-only", action="store_true", help="only look whether media are there; do not open them")
    check.add_argument("--report", type=Path, metavar="FILE", help="write all findings into this file, tab-separated")
    add_workers(check)
    check.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command; returns 1 if something is wrong."""
    from train.data import check, check_report

    found = check.check(args.root, args.workers, rows_only=args.rows_only)
    if args.report is not None:
        check_report.write(args.report, found)
    print(check_report.text(args.root, found, args.report))  # noqa: T201
    return 0 if found.well else 1
