"""`earwitness-train teach`: fine-tunes mn04 on a corpus, as a teacher of smaller models."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamer.arguments import number_from_1
from streamer.networks.weights import WeightsStore
from train import config
from train.commands.options import Subparsers, add_weights, new_command
from train.data.dataset import Corpus
from train.teacher.config import TeachConfig


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    parser = new_command(
        subparsers,
        "teach",
        "fine-tune mn04 on a corpus's part `train`, as a teacher of smaller models",
        "earwitness-train teach data/corpus runs/teacher --config configs/train/teacher.yaml",
    )
    parser.add_argument("corpus", type=Path, help="folder of the corpus")
    parser.add_argument("out", type=Path, metavar="run", help="folder for the teacher; an existing run is resumed")
    parser.add_argument("--config", type=Path, help="YAML; its fields are in train/teacher/config.py")
    parser.add_argument(
        "--frames",
        type=Path,
        metavar="FOLDER",
        help="folder for the clips' log-mel frames, which several teachers can share (default: in the run's folder)",
    )
    parser.add_argument("--steps", type=number_from_1, metavar="N", help="overrides the configuration's")
    parser.add_argument("--seed", type=int, metavar="N", help="overrides the configuration's")
    add_weights(parser)
    parser.set_defaults(main=main, one_thread=False)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from train.teacher.training import teach

    given = {name: value for name, value in {"steps": args.steps, "seed": args.seed}.items() if value is not None}
    settings = config.load(args.config, TeachConfig, given)
    teach(Corpus.read(args.corpus), args.out, settings, WeightsStore(args.weights), args.frames)
    return 0
