"""`earwitness replay`: recorded clips through the same core as live streams, and how right it was."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from streamer.bundle import Bundle, default_bundle_path
from streamer.errors import SourceError, TruthError, UsageError, redacted
from streamer.networks.weights import WeightsStore, default_weights_folder
from streamer.pipeline import TimedOutput
from streamer.replay.clips import clips_of
from streamer.replay.replayer import ClipResult, Replayer, clip_name
from streamer.replay.report import ReplayReport, make_folder, write_report
from streamer.replay.scoring import ClipPrediction, Report, evaluate
from streamer.replay.truth import STRONG_HEADER, Truth, read_truth, strong_tsv
from streamer.sinks.base import Numberer
from streamer.sinks.compose import offset_message, onset_message, scores_message, tags_message
from streamer.sinks.wire import Message, encode
from streamer.types import CellScores, Offset, Onset


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `replay` to the command line."""
    parser = subparsers.add_parser(
        "replay",
        help="put recorded clips through the same core as live streams, and score them",
        description="Put recorded clips through the same core as live streams. Prints the events as DCASE's "
        "tab-separated lines, and with --truth a table of F1 scores by class.",
        epilog="example: earwitness replay clips/ --truth clips.tsv --mode clip --report results",
    )
    parser.add_argument(
        "clips",
        nargs="+",
        metavar="CLIP",
        help="a file, a folder, or a .tsv/.csv/.txt that lists files (./ in front of a -)",
    )
    parser.add_argument("--truth", type=Path, metavar="TSV", help="annotations in DCASE's form; scores the clips")
    parser.add_argument(
        "--mode",
        choices=["stream", "clip"],
        default="stream",
        help="stream: windows as for a live stream; clip: each clip in one window (default: %(default)s)",
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="write events, tags, scores and tables here")
    parser.add_argument("--scores", action="store_true", help="write every cell's scores too (DIR/scores.npz)")
    parser.add_argument(
        "--format",
        choices=["tsv", "jsonl"],
        default="tsv",
        help="of what is printed; jsonl: the messages that a live stream would send (default: %(default)s)",
    )
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="folder of the model (default: the shipped one)")
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="folder of pretrained weights (default: the user's cache)"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Replay the clips; 1 if one of them was broken.

    Raises:
        UsageError: the arguments make no sense, or the report can't be written.
        BundleError: the model can't be read.
        WeightsError: a pretrained network is missing.
        TruthError: the truth can't be read, or speaks of none of the clips.

    """
    if args.scores and args.report is None:
        raise UsageError("--scores goes into the report: name its folder with --report DIR")
    clips = clips_of(args.clips)
    bundle = Bundle.load(args.model or default_bundle_path())
    truth = _truth(args.truth, bundle.classes, clips) if args.truth else None
    if args.report is not None:
        make_folder(args.report)
    weights = WeightsStore(args.weights or default_weights_folder(os.environ), {})
    replayer = Replayer.of(bundle, weights, args.mode)
    printer = _JsonPrinter(bundle.classes) if args.format == "jsonl" else _TsvPrinter()
    results, broken = _replay_all(replayer, clips, printer)
    report = _scored(truth, results, bundle.classes) if truth else None
    if args.report is not None:
        command = redacted(shlex.join(["earwitness", *args.argv]))
        done = ReplayReport(
            command, args.mode, bundle.name, bundle.classes, results, broken, str(args.truth) if truth else None, report
        )
        write_report(args.report, done, scores=args.scores)
    if report is not None:
        print(f"\n{report.table()}", file=sys.stderr if args.format == "jsonl" else sys.stdout)
    return 1 if broken else 0


def _replay_all(
    replayer: Replayer, clips: Sequence[str], printer: _TsvPrinter | _JsonPrinter
) -> tuple[list[ClipResult], list[str]]:
    """What was found in each clip that could be played, and a line for each that could not."""
    results: list[ClipResult] = []
    broken: list[str] = []
    with tqdm(clips, desc=replayer.mode, unit="clip", disable=True if len(clips) == 1 else None) as bar:
        for clip in bar:
            try:
                results.append(replayer.replay(clip, printer.output))
                printer.clip(results[-1])
            except SourceError as error:
                broken.append(str(error))
                tqdm.write(f"earwitness: error: {error}", file=sys.stderr)
    return results, broken


class _TsvPrinter:
    """Prints a clip's events when it is through, as a truth file would have them."""

    def __init__(self) -> None:
        tqdm.write("\t".join(STRONG_HEADER), file=sys.stdout)

    def output(self, timed: TimedOutput) -> None:
        """Nothing yet."""

    def clip(self, result: ClipResult) -> None:
        """The clip's rows."""
        _, _, rows = strong_tsv({result.name: result.events}).partition("\n")
        tqdm.write(rows.rstrip("\n"), file=sys.stdout)


class _JsonPrinter:
    """Prints each output as the message that a live stream's would be, when it comes."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._numberer = Numberer("replay", uuid.uuid4().hex, time.time)

    def output(self, timed: TimedOutput) -> None:
        """The output's messages."""
        output, timeline = timed.output, timed.timeline
        messages: list[Message]
        match output:
            case Onset():
                messages = [onset_message(output, timeline)]
            case Offset():
                messages = [offset_message(output, timeline)]
            case CellScores():
                messages = [
                    tags_message(output, self._classes, timeline),
                    scores_message(output, self._classes, timeline),
                ]
        for message in messages:
            tqdm.write(encode(self._numberer.number(message)).decode(), file=sys.stdout)

    def clip(self, result: ClipResult) -> None:
        """Nothing more."""


def _truth(path: Path, classes: Sequence[str], clips: Sequence[str]) -> Truth:
    """The truth, if it speaks of any of the clips; says of how many it does not, and the other way round."""
    truth = read_truth(path)
    truth.check_classes(classes)
    rows = [truth.name_of(clip_name(clip)) for clip in clips]
    known = {row for row in rows if row is not None}
    if not known:
        raise TruthError(
            f"{path}: speaks of none of the clips; its file names are like {next(iter(truth.tags), 'none')}"
        )
    unknown = [clip for clip, row in zip(clips, rows, strict=True) if row is None]
    if unknown:
        _note(
            f"{len(unknown)} of {len(clips)} clips are not in {path} and not scored, {redacted(unknown[0])} the first"
        )
    if len(known) < len(truth.tags):
        _note(f"{len(truth.tags) - len(known)} of {len(truth.tags)} clips in {path} are not replayed")
    return truth


def _scored(truth: Truth, results: Sequence[ClipResult], classes: Sequence[str]) -> Report:
    by_row = {row: result for result in results if (row := truth.name_of(result.name)) is not None}
    return evaluate(
        truth,
        {row: ClipPrediction(result.events, result.tags) for row, result in by_row.items()},
        classes,
        {row: result.duration_s for row, result in by_row.items()},
    )


def _note(text: str) -> None:
    print(f"earwitness: {text}", file=sys.stderr)  # noqa: T201
