"""`earwitness replay`: recorded clips through the same core as live streams, and how right it was."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from streamer.commands.replay_clips import clip_name, clips_of
from streamer.commands.replay_report import ClipResult, ReplayReport, make_folder, write_report
from streamer.config import default_weights_folder
from streamer.detect import Detector
from streamer.errors import SourceError, TruthError, UsageError, redacted
from streamer.features.base import ExtractorFactory
from streamer.features.weights import WeightsStore
from streamer.media import Want, is_live, open_media
from streamer.model import Bundle, default_bundle_path, linear_pooling
from streamer.pipeline import WHOLE_CLIP, WHOLE_CLIP_WINDOW, Output, StreamPipeline, StreamSettings, run
from streamer.scoring import STRONG_HEADER, ClipPrediction, Report, Truth, evaluate, labelled, read_truth, strong_tsv
from streamer.sinks.base import Numberer
from streamer.sinks.compose import offset_message, onset_message, scores_message, tags_message
from streamer.sinks.wire import Message, encode
from streamer.timeline import seconds
from streamer.types import (
    CELL,
    SAMPLE_RATE_HZ,
    Chunk,
    Discontinuity,
    Floats,
    Frame,
    FrameScores,
    MediaItem,
    Offset,
    Onset,
)

LONGEST_CLIP_S = 600.0
"""In one window. The network was trained on 10 s, and its activations take 10 MB for each."""
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_LONG_CLIP_S = 30.0
"""From here on a clip has a progress bar of its own."""


@dataclass(frozen=True, slots=True)
class Replayer:
    """A model and how clips go through it: `clip`, each as one window, or `stream`, as live streams do."""

    bundle: Bundle
    factories: Mapping[str, ExtractorFactory]
    detector: Detector
    mode: str

    @classmethod
    def of(cls, bundle: Bundle, weights: WeightsStore, mode: str) -> Replayer:
        """A replayer of `bundle`. Raises `BundleError` and `WeightsError`."""
        return cls(bundle, bundle.factories(weights), Detector(bundle), mode)

    def replay(self, clip: str, each: Callable[[StreamPipeline, Output], None] | None = None) -> ClipResult:
        """Put one clip (a path or URL) through a pipeline of its own; `each` sees every output as it comes.

        Times count from the clip's beginning: where the media jumps, an epoch begins at the end of the one before.
        Raises `SourceError` if the clip can't be played, or is too long for one window.
        """
        if is_live(clip):
            raise SourceError("other", f"{redacted(clip)}: is a live source; listen to it with: earwitness run")
        rates_hz = frozenset(factory.rate_hz for factory in self.factories.values() if factory.rate_hz is not None)
        pictures = any(factory.rate_hz is None for factory in self.factories.values())
        name = clip_name(clip)
        outputs: list[Output] = []
        with open_media(clip, Want(rates_hz, pictures)) as media:
            pipeline = self._pipeline(name)
            pipeline.source_has(audio=media.has_audio, pictures=media.has_video)
            meter = _Meter(redacted(clip), LONGEST_CLIP_S if self.mode == "clip" else None)
            meter.check(media.duration_s or 0.0)
            for output in run(meter.measured(media, media.duration_s), pipeline, self.detector):
                outputs.append(output)
                if each is not None:
                    each(pipeline, output)
        scored = [output for output in outputs if isinstance(output, FrameScores)]
        scores = _joined(scored, len(self.bundle.classes))
        tag_scores = scored[0].tags if len(scored) == 1 else linear_pooling(torch.from_numpy(scores)[None])[0].numpy()
        offsets = [output for output in outputs if isinstance(output, Offset)]
        return ClipResult(
            name=name,
            duration_s=meter.duration_s,
            events=labelled(_in_clip(one, meter.epoch_starts[one.epoch]) for one in offsets),
            tag_scores=tag_scores,
            tags=self._tags(tag_scores),
            scores=scores,
            coverage=pipeline.coverage,
        )

    def _pipeline(self, name: str) -> StreamPipeline:
        ids = count(1)
        whole = self.mode == "clip"
        return StreamPipeline(
            _NOT_A_NAME.sub("_", name)[:64] or "clip",
            self.factories,
            self.bundle.decoding,
            WHOLE_CLIP_WINDOW if whole else self.bundle.window_cells,
            WHOLE_CLIP if whole else StreamSettings(),
            lambda: f"{name}-{next(ids)}",
        )

    def _tags(self, tag_scores: Floats) -> frozenset[str]:
        decoding = self.bundle.decoding
        return frozenset(
            label
            for label, one, score in zip(decoding.classes, decoding.per_class, tag_scores, strict=True)
            if score >= one.tag_threshold
        )


class _Meter:
    """Sees a clip's media go by: how long it is, and where in it each epoch begins."""

    def __init__(self, shown: str, limit_s: float | None) -> None:
        self.epoch_starts = [0]  # master-clock samples
        self._end = 0  # of the running epoch
        self._begun = False
        self._shown = shown
        self._limit_s = limit_s

    @property
    def duration_s(self) -> float:
        return seconds(self.epoch_starts[-1] + self._end)

    def check(self, duration_s: float) -> None:
        if self._limit_s is not None and duration_s > self._limit_s:
            raise SourceError(
                "other",
                f"{self._shown}: longer than {self._limit_s / 60:.0f} min can't be one window; use --mode stream",
            )

    def measured(self, items: Iterable[MediaItem], expected_s: float | None) -> Iterator[MediaItem]:
        hide = True if expected_s is not None and expected_s < _LONG_CLIP_S else None
        with tqdm(total=expected_s, unit="s", unit_scale=True, leave=False, position=1, delay=2, disable=hide) as bar:
            for item in items:
                self._see(item)
                self.check(self.duration_s)
                bar.update(self.duration_s - bar.n)
                yield item

    def _see(self, item: MediaItem) -> None:
        match item:
            case Chunk() if len(item.samples):
                self._begun = True
                self._end = max(self._end, item.end * SAMPLE_RATE_HZ // item.rate_hz)
            case Frame():
                self._begun = True
                self._end = max(self._end, item.at + CELL)
            case Discontinuity() if self._begun:
                self.epoch_starts.append(self.epoch_starts[-1] + self._end)
                self._end, self._begun = 0, False


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

    def output(self, pipeline: StreamPipeline, output: Output) -> None:
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

    def output(self, pipeline: StreamPipeline, output: Output) -> None:
        """The output's messages; the epoch's clock is the pipeline's."""
        messages: list[Message]
        match output:
            case Onset():
                messages = [onset_message(output, pipeline.timeline)]
            case Offset():
                messages = [offset_message(output, pipeline.timeline)]
            case FrameScores():
                messages = [
                    tags_message(output, self._classes, pipeline.timeline),
                    scores_message(output, self._classes, pipeline.timeline),
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


def _joined(scored: Sequence[FrameScores], classes: int) -> Floats:
    return np.concatenate([np.zeros((0, classes), np.float32), *(one.scores for one in scored)])


def _in_clip(offset: Offset, epoch_start: int) -> Offset:
    return replace(offset, onset=offset.onset + epoch_start, offset=offset.offset + epoch_start)


def _note(text: str) -> None:
    print(f"earwitness: {text}", file=sys.stderr)  # noqa: T201
