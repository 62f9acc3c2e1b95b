"""`earwitness-train bench`: measures what a training step costs, each way it can be run."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from streamer.arguments import number_from_1
from streamer.errors import UsageError
from streamer.networks.backends import use_threads
from train import config
from train.commands.options import Subparsers, new_command
from train.data.dataset import Corpus

_BATCH: dict[config.Kind, int] = {"weak": 24, "unlabeled": 24}
"""The clips of a batch in the paper (section 4.3.1)."""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "bench",
        "measure training steps: plain PyTorch against channels-last, bfloat16 and compiled ones, side by side",
        "earwitness-train bench --config configs/train/paper.yaml",
    )
    parser.add_argument("corpus", type=Path, nargs="?", help="folder of the corpus (default: clips of noise)")
    parser.add_argument("features", type=Path, nargs="?", help="folder of its features")
    parser.add_argument("--config", type=Path, help="YAML of `fit` (default: its defaults with the paper's batch)")
    parser.add_argument(
        "--steps", type=number_from_1, default=5, metavar="N", help="steps of each variant (default: %(default)s)"
    )
    parser.add_argument("--threads", type=number_from_1, metavar="N", help="torch threads (default: torch's choice)")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which first takes minutes")
    parser.set_defaults(main=main, one_thread=False)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train import bench
    from train.learning.distributed import joined
    from train.loop import read_parts

    if args.corpus is not None and args.features is None:
        raise UsageError("name the folder of the corpus's features too")
    settings = config.load(args.config, config.FitConfig)
    if args.config is None:
        settings = settings.model_copy(update={"batch": _BATCH})
    torch.set_flush_denormal(True)
    if args.threads or settings.threads:
        use_threads(args.threads or settings.threads)
    with joined(settings.device) as group:
        if group.size > 1:
            raise UsageError("bench measures one process: start it without torchrun")
        if args.corpus is None:
            with bench.made_up(settings) as data:
                found = bench.measure(data, settings, group, args.steps, compiled=args.compile)
        else:
            data = read_parts(Corpus.read(args.corpus), args.features, settings.modalities, settings)
            found = bench.measure(data, settings, group, args.steps, compiled=args.compile)
    print(found.table(settings, torch.get_num_threads()))  # noqa: T201
    return 0
