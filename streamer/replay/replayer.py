"""Puts recorded clips through the same core as live streams, for `earwitness replay` and for tuning thresholds."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import torch
from tqdm import tqdm

from streamer.address import Address
from streamer.bundle import Bundle
from streamer.detect import Detector
from streamer.errors import SourceError
from streamer.escapes import escaped
from streamer.features.base import ExtractorFactory, want_of
from streamer.media.level import Level
from streamer.media.source import Interrupt, MediaOptions, open_media
from streamer.networks.crnn import linear_pooling
from streamer.networks.weights import WeightsStore
from streamer.pipeline import WHOLE_CLIP, WHOLE_CLIP_WINDOW, Output, StreamPipeline, TimedOutput, run
from streamer.replay.heard import notes_of
from streamer.replay.names import absolute, distinct_names
from streamer.replay.truth import LabelledEvent, labelled
from streamer.timeline import seconds
from streamer.types import (
    CELL,
    SAMPLE_RATE_HZ,
    CellScores,
    Chunk,
    Discontinuity,
    Floats,
    MediaItem,
    Offset,
    Picture,
)
from streamer.windows import Coverage, StreamSettings

LONGEST_CLIP_S = 600.0
"""The longest clip in one window. The network was trained on 10 s, and its activations take 10 MB per 10 s."""
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_LONGEST_STREAM_NAME = 64
_LONG_CLIP_S = 30.0
"""A clip of at least this length has its own progress bar."""


@dataclass(frozen=True, slots=True)
class ClipResult:
    """What was found in one clip."""

    name: str
    duration_s: float
    events: tuple[LabelledEvent, ...]
    tag_scores: Floats  # (classes,)
    tags: frozenset[str]
    scores: Floats  # (cells, classes)
    runs: tuple[CellScores, ...]  # the same with what the model said at each of its runs
    coverage: Coverage
    notes: tuple[str, ...] = ()  # what was not heard of it, and what was listened to if there was a choice


@dataclass(frozen=True, slots=True)
class Replayer:
    """A model and the mode in which it gets clips: `clip`, each as one window, or `stream`, like a live stream."""

    bundle: Bundle
    factories: Mapping[str, ExtractorFactory]
    detector: Detector
    mode: str
    options: MediaOptions = field(default_factory=MediaOptions)
    settings: StreamSettings = field(default_factory=StreamSettings)  # of the mode `stream`

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        weights: WeightsStore,
        mode: str,
        options: MediaOptions | None = None,
        settings: StreamSettings | None = None,
    ) -> Replayer:
        """A replayer of `bundle` that opens clips with `options`. Raises `BundleError` and `WeightsError`."""
        return cls(
            bundle,
            bundle.factories(weights),
            Detector(bundle),
            mode,
            options or MediaOptions(),
            settings or StreamSettings(),
        )

    def replay(
        self,
        clip: str,
        each: Callable[[TimedOutput], None] | None = None,
        *,
        name: str | None = None,
        interrupt: Interrupt | None = None,
    ) -> ClipResult:
        """Put one clip (a path or URL) through a pipeline of its own; `each` gets every output at once.

        `name` is the clip's name in results, by default the last part of its path. `interrupt` ends the reading.

        Times count from the container's start, like those in a player; a gap before the first media is not covered.
        Where timestamps jump back, a new epoch begins at the end of the previous one.

        Raises `SourceError` if the clip can't be played, or is too long for one window.
        """
        address = Address.parse(clip)
        name = name or next(iter(distinct_names([absolute(clip)]).values()))
        outputs: list[Output] = []
        levels: list[Level] = []
        with open_media(address, want_of(self.factories.values()), self.options, interrupt=interrupt) as media:
            if media.live:
                raise SourceError("other", f"{address}: is a live source; listen to it with: earwitness run")
            pipeline = self._pipeline(name)
            pipeline.source_has(audio=media.has_audio, pictures=media.has_video)
            meter = _Meter(address.shown, LONGEST_CLIP_S if self.mode == "clip" else None)
            meter.check(media.duration_s or 0.0)
            for timed in run(meter.measured(media, media.duration_s), pipeline, self.detector):
                levels += media.ear.take_levels()
                outputs.append(timed.output)
                if each is not None:
                    each(timed)
            levels += media.ear.take_levels()
        scored = [output for output in outputs if isinstance(output, CellScores)]
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
            runs=tuple(scored),
            coverage=pipeline.coverage,
            notes=notes_of(
                expected_s=media.duration_s if media.tells_duration else None,
                ends_at_s=meter.duration_s,
                skipped_s=seconds(meter.skipped),
                coverage=pipeline.coverage,
                corrupt_packets=media.corrupt_packets,
                levels=levels,
                audio=media.audio,
                chosen=self.options != MediaOptions(),
                clock_fault=media.clock_fault,
            ),
        )

    def _pipeline(self, name: str) -> StreamPipeline:
        ids = count(1)
        whole = self.mode == "clip"
        return StreamPipeline(
            stream_name(name),
            self.factories,
            self.bundle.decoding,
            WHOLE_CLIP_WINDOW if whole else self.bundle.window_cells,
            WHOLE_CLIP if whole else self.settings,
            lambda: f"{escaped(name)}-{next(ids)}",
            carried=self.bundle.carried,
        )

    def _tags(self, tag_scores: Floats) -> frozenset[str]:
        decoding = self.bundle.decoding
        return frozenset(
            label
            for label, one, score in zip(decoding.classes, decoding.per_class, tag_scores, strict=True)
            if score >= one.tag_threshold
        )


class _Meter:
    """Measures a clip while its media passes: its duration, and where each epoch begins."""

    def __init__(self, shown: str, limit_s: float | None) -> None:
        self.epoch_starts = [0]  # master-clock samples
        self.skipped = 0  # master-clock samples between epochs, without media
        self._end = 0  # of the current epoch
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
            case Picture():
                self._begun = True
                self._end = max(self._end, item.at + CELL)
            case Discontinuity():
                if self._begun:
                    self.epoch_starts.append(self.epoch_starts[-1] + self._end)
                self.epoch_starts[-1] += item.skipped
                self.skipped += item.skipped
                self._end, self._begun = 0, False


def stream_name(name: str) -> str:
    """A clip's name as the name of a stream: characters that topics don't allow are replaced, and a digest is added.

    The digest keeps different clips apart: `a b.wav` becomes `a_b.wav-` and eight hexadecimal digits.
    """
    allowed = _NOT_A_NAME.sub("_", name)[:_LONGEST_STREAM_NAME]
    if allowed == name:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return f"{allowed[: _LONGEST_STREAM_NAME - 9]}-{digest}"


def _joined(scored: Sequence[CellScores], classes: int) -> Floats:
    return np.concatenate([np.zeros((0, classes), np.float32), *(one.scores for one in scored)])


def _in_clip(offset: Offset, epoch_start: int) -> Offset:
    return replace(offset, onset=offset.onset + epoch_start, offset=offset.offset + epoch_start)
