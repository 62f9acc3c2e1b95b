"""`earwitness replay`: puts recorded clips through the same core as live streams, and scores the events."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from streamer.arguments import number_from_1
from streamer.bundle import Bundle
from streamer.commands.ending import EndsSoon
from streamer.commands.options import PRESET_HELP, add_sound_options
from streamer.errors import SourceError, TruthError, UsageError
from streamer.escapes import escaped, printable
from streamer.media.source import MediaOptions
from streamer.models import bundle_path, model_help
from streamer.networks.backends import use_threads
from streamer.networks.weights import WeightsStore, default_weights_folder
from streamer.pipeline import TimedOutput
from streamer.replay.clips import Clip, clips_of
from streamer.replay.journal import BrokenEntry, ClipEntry, entry_of
from streamer.replay.names import absolute
from streamer.replay.replayer import ClipResult, Replayer
from streamer.replay.report import FILES, Asking, ReportFolder
from streamer.replay.scoring import ClipCounts, ClipPrediction, count
from streamer.replay.truth import STRONG_HEADER, Truth, read_truth, strong_rows
from streamer.sinks.base import Numberer
from streamer.sinks.compose import offset_message, onset_message, scores_message, tags_message
from streamer.sinks.wire import Message, encode
from streamer.types import CellScores, Offset, Onset
from streamer.windows import DEFAULT_PRESET, PRESETS, Preset


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `replay` to the command line."""
    parser = subparsers.add_parser(
        "replay",
        help="put recorded clips through the same core as live streams, and score them",
        description="Puts recorded clips through the same core as live streams. Prints the events as DCASE's "
        "tab-separated rows, and with --truth a table of F1 scores by class.",
        epilog="example: earwitness replay clips/ --truth clips.tsv --mode clip --report results",
    )
    parser.add_argument(
        "clips",
        nargs="+",
        metavar="CLIP",
        help="a file, a folder, a .tsv/.csv/.txt that lists files, or - for standard input (a file of that name: ./-)",
    )
    parser.add_argument("--truth", type=Path, metavar="TSV", help="annotations in DCASE's format, to score the clips")
    parser.add_argument(
        "--mode",
        choices=["stream", "clip"],
        default="stream",
        help="stream: windows as for a live stream; clip: each clip in one window (default: %(default)s)",
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), help=f"--mode stream: {PRESET_HELP}")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write events, tags, scores and tables here")
    parser.add_argument("--scores", action="store_true", help="also write the scores of every cell (FOLDER/scores.npz)")
    parser.add_argument("--resume", action="store_true", help="resume the interrupted replay in --report FOLDER")
    parser.add_argument(
        "--format",
        choices=["tsv", "jsonl"],
        default="tsv",
        help="what is printed: DCASE's rows, or the messages that a live stream would send (default: %(default)s)",
    )
    parser.add_argument("--model", metavar="NAME|BUNDLE", help=model_help())
    parser.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="folder of pretrained weights (default: the user's cache)"
    )
    parser.add_argument(
        "--threads", type=number_from_1, default=1, metavar="N", help="threads of the model (default: %(default)s)"
    )
    add_sound_options(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Replay the clips; returns 1 if one was broken, and 130 or 143 if a signal ended the replay early.

    Raises:
        UsageError: the arguments contradict each other, or the results can't be written.
        BundleError: the model can't be read.
        WeightsError: a pretrained network is missing.
        TruthError: the truth can't be read, or has none of the clips.

    """
    _check(args)
    clips = clips_of(args.clips)
    use_threads(args.threads)
    bundle = Bundle.load(bundle_path(args.model))
    truth, row_of = _truth(args.truth, bundle.classes, clips) if args.truth else (None, {})
    preset: Preset = args.preset or DEFAULT_PRESET
    streams = args.mode == "stream"
    if streams and (wrong := bundle.misfit(PRESETS[preset])):
        raise UsageError(f"--preset {preset}: {wrong}")
    options = MediaOptions(audio_track=args.audio_track, channel=args.channel or "mix")
    asking = Asking(
        command=printable(shlex.join(["earwitness", *map(args.known.shown_argument, args.argv)])),
        bundle=bundle.name,
        bundle_sha256=bundle.fingerprint(),
        mode=args.mode,
        audio_track=str(options.audio_track or ""),
        channel=str(options.channel),
        preset=preset if streams else "",
        classes=bundle.classes,
        truth=printable(str(args.truth)) if truth else None,
        scores=args.scores,
    )
    weights = WeightsStore(args.weights or default_weights_folder(os.environ), {})
    replayer = Replayer.of(bundle, weights, args.mode, options, PRESETS[preset])
    folder = None if args.report is None else ReportFolder(args.report, asking, clips, resume=args.resume)
    try:
        found = _Found({} if folder is None else dict(folder.kept))
        printer = _JsonPrinter(bundle.classes) if args.format == "jsonl" else _TsvPrinter()
        with EndsSoon() as ends:
            _replay_all(replayer, clips, printer, found, folder, ends)
        counts = _counted(truth, row_of, found.entries, bundle.classes) if truth and found.entries else None
        if folder is not None:
            folder.finish(list(found.entries.values()), found.broken, counts, complete=not ends.signal)
    finally:
        if folder is not None:
            folder.close()
    if counts is not None:
        report = counts.report()
        _print(f"\n{report.table()}\n{report.subset()}", sys.stderr if args.format == "jsonl" else sys.stdout)
    if ends.signal:
        where = f"; their report is in {args.report}, and --resume replays the others" if folder else ""
        _note(f"interrupted: {len(found.entries)} of {len(clips)} clips are done{where}")
        return ends.exit_code
    if found.broken and len(clips) > 1:
        _note(f"{len(found.broken)} of {len(clips)} clips could not be replayed and do not count in any figure")
    return 1 if found.broken else 0


@dataclass(slots=True)
class _Found:
    """What a replay has found so far."""

    entries: dict[str, ClipEntry]  # by clip name
    broken: list[BrokenEntry] = field(default_factory=list)


def _check(args: argparse.Namespace) -> None:
    if args.preset and args.mode == "clip":
        raise UsageError("--preset is for --mode stream: a whole clip is one window")
    for option, given in (("--scores", args.scores), ("--resume", args.resume)):
        if given and args.report is None:
            raise UsageError(f"{option} needs a report: name its folder with --report FOLDER")
    if args.report is not None:
        written = {(args.report / name).resolve() for name in FILES}
        for path in (*([args.truth] if args.truth else []), *map(Path, args.clips)):
            if path.resolve() in written:
                raise UsageError(f"--report {args.report}: {path} would be overwritten; name another folder")


def _replay_all(
    replayer: Replayer,
    clips: Sequence[Clip],
    printer: _TsvPrinter | _JsonPrinter,
    found: _Found,
    folder: ReportFolder | None,
    ends: EndsSoon,
) -> None:
    """Replay the clips that have no entry yet, until a signal arrives; writes each clip's results at once."""
    with tqdm(clips, desc=replayer.mode, unit="clip", disable=True if len(clips) == 1 else None) as bar:
        for clip in bar:
            if clip.name not in found.entries:
                try:
                    result = replayer.replay(clip.path, printer.output, name=clip.name, interrupt=ends.interrupt())
                except SourceError as error:
                    if ends.signal:
                        return
                    _add_broken(clip, error, found, folder)
                    continue
                _add(clip, result, found, folder)
            printer.clip(found.entries[clip.name])
            if ends.signal:
                return


def _add(clip: Clip, result: ClipResult, found: _Found, folder: ReportFolder | None) -> None:
    entry = entry_of(clip, result)
    if folder is not None:
        folder.add(entry, result.scores)
    found.entries[clip.name] = entry
    for note in entry.notes:
        _note(f"{entry.name}: {note}")


def _add_broken(clip: Clip, error: SourceError, found: _Found, folder: ReportFolder | None) -> None:
    broken = BrokenEntry(escaped(clip.name), str(error))
    found.broken.append(broken)
    if folder is not None:
        folder.add_broken(broken)
    _print(f"earwitness: error: {error}", sys.stderr)


class _TsvPrinter:
    """Prints a clip's events when the clip is done, as rows of a truth file."""

    def __init__(self) -> None:
        _print("\t".join(STRONG_HEADER), sys.stdout)

    def output(self, timed: TimedOutput) -> None:
        """Prints nothing: the rows are printed once the clip is done."""

    def clip(self, entry: ClipEntry) -> None:
        """The clip's rows."""
        _print(strong_rows(entry.clip_name, entry.labelled).rstrip("\n"), sys.stdout)


class _JsonPrinter:
    """Prints each output at once, as the message that a live stream would send."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._numberer = Numberer("replay", uuid.uuid4().hex, time.time)

    def output(self, timed: TimedOutput) -> None:
        """The output's messages."""
        output, timeline = timed.output, timed.timeline
        messages: list[Message]
        match output:
            case Onset():
                messages = [onset_message(output, timeline, timed.level)]
            case Offset():
                messages = [offset_message(output, timeline, timed.level)]
            case CellScores():
                messages = [
                    tags_message(output, self._classes, timeline),
                    scores_message(output, self._classes, timeline),
                ]
        for message in messages:
            _print(encode(self._numberer.number(message)).decode(), sys.stdout)

    def clip(self, entry: ClipEntry) -> None:
        """Prints nothing: the messages are out already."""


def _truth(path: Path, classes: Sequence[str], clips: Sequence[Clip]) -> tuple[Truth, dict[str, str]]:
    """The truth, and its name for each clip that it has; notes what either of the two lacks."""
    truth = read_truth(path)
    truth.check_classes(classes)
    found = truth.names_of([absolute(clip.path) for clip in clips])
    if not found:
        raise TruthError(
            f"{path}: has none of the clips; its names are like {next(iter(truth.tags), '(none)')}, those of the clips "
            f"like {clips[0].name}; a name with a folder matches only the clip in that folder"
        )
    unknown = [clip for clip in clips if absolute(clip.path) not in found]
    if unknown:
        _note(
            f"{len(unknown)} of {len(clips)} clips are not in {path} and are not scored; the first is {unknown[0].name}"
        )
    if len(found) < len(truth.tags):
        _note(f"{len(truth.tags) - len(found)} of {len(truth.tags)} clips in {path} are not replayed")
    known = set(clips) - set(unknown)
    return truth, {clip.name: found[absolute(clip.path)] for clip in known}


def _counted(
    truth: Truth, row_of: Mapping[str, str], entries: Mapping[str, ClipEntry], classes: Sequence[str]
) -> ClipCounts:
    by_row = {row_of[name]: entry for name, entry in entries.items() if name in row_of}
    return count(
        truth,
        {row: ClipPrediction(entry.labelled, frozenset(entry.tags)) for row, entry in by_row.items()},
        classes,
        {row: entry.seconds for row, entry in by_row.items()},
    )


def _note(text: str) -> None:
    _print(f"earwitness: {printable(text)}", sys.stderr)


def _print(line: str, file: TextIO) -> None:
    """Print a line above the progress bar and flush it, so that a pipe's reader gets each clip when it is done."""
    try:
        tqdm.write(line, file=file)
        file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python would flush again at exit, and print a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        raise UsageError(f"can't write the results to standard output: {error.strerror}") from None
