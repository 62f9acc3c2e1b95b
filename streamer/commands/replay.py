"""`earwitness replay`: recorded clips through the same core as live streams, and how right it was."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from streamer.bundle import Bundle, default_bundle_path
from streamer.errors import SourceError, TruthError, UsageError
from streamer.escapes import printable
from streamer.networks.backends import use_threads
from streamer.networks.weights import WeightsStore, default_weights_folder
from streamer.pipeline import TimedOutput
from streamer.replay.clips import Clip, clips_of
from streamer.replay.names import absolute
from streamer.replay.replayer import ClipResult, Replayer
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
        help="a file, a folder, a .tsv/.csv/.txt that lists files, or - for standard input (./ in front of a -)",
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
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="threads of the model (default: %(default)s)"
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
    if args.threads < 1:
        raise UsageError(f"--threads is {args.threads}, must be 1 or more")
    use_threads(args.threads)
    bundle = Bundle.load(args.model or default_bundle_path())
    truth, row_of = _truth(args.truth, bundle.classes, clips) if args.truth else (None, {})
    if args.report is not None:
        make_folder(args.report)
    weights = WeightsStore(args.weights or default_weights_folder(os.environ), {})
    replayer = Replayer.of(bundle, weights, args.mode)
    printer = _JsonPrinter(bundle.classes) if args.format == "jsonl" else _TsvPrinter()
    results, broken = _replay_all(replayer, clips, printer)
    report = _scored(truth, row_of, results, bundle.classes) if truth else None
    if args.report is not None:
        command = printable(shlex.join(["earwitness", *map(args.known.shown_argument, args.argv)]))
        against = printable(str(args.truth)) if truth else None
        done = ReplayReport(command, args.mode, bundle.name, bundle.classes, results, broken, against, report)
        write_report(args.report, done, scores=args.scores)
    if report is not None:
        print(f"\n{report.table()}", file=sys.stderr if args.format == "jsonl" else sys.stdout)
    return 1 if broken else 0


def _replay_all(
    replayer: Replayer, clips: Sequence[Clip], printer: _TsvPrinter | _JsonPrinter
) -> tuple[list[ClipResult], list[str]]:
    """What was found in each clip that could be played, and a line for each that could not."""
    results: list[ClipResult] = []
    broken: list[str] = []
    with tqdm(clips, desc=replayer.mode, unit="clip", disable=True if len(clips) == 1 else None) as bar:
        for clip in bar:
            try:
                results.append(replayer.replay(clip.path, printer.output, name=clip.name))
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
        sys.stdout.flush()  # whoever reads it has it at once, and if nobody does it is known now


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
        sys.stdout.flush()

    def clip(self, result: ClipResult) -> None:
        """Nothing more."""


def _truth(path: Path, classes: Sequence[str], clips: Sequence[Clip]) -> tuple[Truth, dict[str, str]]:
    """The truth and its name for each clip it speaks of; says of how many it does not, and the other way round."""
    truth = read_truth(path)
    truth.check_classes(classes)
    found = truth.names_of([absolute(clip.path) for clip in clips])
    if not found:
        raise TruthError(
            f"{path}: speaks of none of the clips: it has names like {next(iter(truth.tags), 'none')}, and the clips "
            f"are like {clips[0].name}; a name with a folder is only for the clip in that folder"
        )
    unknown = [clip for clip in clips if absolute(clip.path) not in found]
    if unknown:
        _note(f"{len(unknown)} of {len(clips)} clips are not in {path} and not scored, {unknown[0].name} the first")
    if len(found) < len(truth.tags):
        _note(f"{len(truth.tags) - len(found)} of {len(truth.tags)} clips in {path} are not replayed")
    known = set(clips) - set(unknown)
    return truth, {clip.name: found[absolute(clip.path)] for clip in known}


def _scored(truth: Truth, row_of: Mapping[str, str], results: Sequence[ClipResult], classes: Sequence[str]) -> Report:
    by_row = {row_of[result.name]: result for result in results if result.name in row_of}
    return evaluate(
        truth,
        {row: ClipPrediction(result.events, result.tags) for row, result in by_row.items()},
        classes,
        {row: result.duration_s for row, result in by_row.items()},
    )


def _note(text: str) -> None:
    print(f"earwitness: {printable(text)}", file=sys.stderr)  # noqa: T201
