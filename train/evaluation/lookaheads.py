"""Stored clips as live streams: for any hop and lookahead, from one run of the network a window.

A window's posteriors do not depend on the lookahead, which only says which of its cells are final. So the network runs
once for each window (the windows of a hop contain those of its multiples), and the windower and the event tracker of
the daemon are run again for every pair of hop and lookahead. A network of the stream form runs again as well: it passes
each cell once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from streamer.bundle import Bundle
from streamer.detect import MAX_BATCH, Detector
from streamer.errors import UsageError
from streamer.events import EventTracker
from streamer.networks.crnn import linear_pooling
from streamer.replay.truth import LabelledEvent, labelled
from streamer.timeline import samples, seconds
from streamer.types import CELL, Bools, CellScores, Floats, Offset, Onset, Window
from streamer.windows import Coverage, StreamSettings
from train.data.dataset import PartData
from train.evaluation.stored import ClipPosteriors
from train.evaluation.streaming import clip_of, windower_of, windows_of
from train.workers import pool

_AHEAD = 4
"""Clips per worker whose features wait in memory: those of 10 s with VGG16 have 2.5 MB."""


@dataclass(frozen=True, slots=True)
class Decided:
    """When an event's onset was certain. Times are seconds of the clip's media."""

    label: str
    onset_s: float  # as reported
    decided_s: float  # the media that had to arrive for it
    at_end: bool  # only because the clip ended: a live stream would have gone on


@dataclass(frozen=True, slots=True)
class StreamedClip:
    """What a live stream of one clip would have reported."""

    posteriors: ClipPosteriors  # the final ones of each cell
    events: tuple[LabelledEvent, ...]
    decided: tuple[Decided, ...]  # one for each event
    coverage: Coverage


Posteriors = Mapping[tuple[int, int], CellScores]
"""Posteriors of whole windows, by their first cell and the one after their last."""


def streamed(
    folder: Path, part: PartData, settings: Sequence[StreamSettings], workers: int
) -> dict[StreamSettings, list[StreamedClip]]:
    """The clips of a part as streams, in their order, for each of the settings.

    Args:
        folder: of the bundle.
        part: its features are those of the bundle.
        settings: to compare.
        workers: processes.

    Raises:
        BundleError: the bundle can't be read.
        UsageError: a hop and a lookahead do not fit into the model's window.

    """
    bundle = Bundle.load(folder)
    for one in settings:
        if wrong := bundle.misfit(one):
            raise UsageError(wrong)
    made: dict[StreamSettings, list[StreamedClip]] = {one: [] for one in settings}
    with pool(workers, _begin, (folder, tuple(settings))) as processes:
        waiting: deque[Future[list[StreamedClip]]] = deque()
        with tqdm(total=len(part), desc="streaming", unit="clip") as bar:
            for row in range(len(part)):
                waiting.append(processes.submit(_job, part.rows[row], *clip_of(part, row)))
                while len(waiting) > _AHEAD * workers or (waiting and row == len(part) - 1):
                    for one, clip in zip(settings, waiting.popleft().result(), strict=True):
                        made[one].append(clip)
                    bar.update()
    return made


_loaded: list[tuple[Detector, Bundle, tuple[StreamSettings, ...]]] = []
"""State of a worker process: the bundle is loaded once per process, not once per clip."""


def _begin(folder: Path, settings: tuple[StreamSettings, ...]) -> None:
    bundle = Bundle.load(folder)
    _loaded.append((Detector(bundle), bundle, settings))


def _job(name: str, values: dict[str, Floats], valid: dict[str, Bools]) -> list[StreamedClip]:
    detector, bundle, settings = _loaded[0]
    return stream_clip(name, values, valid, detector, bundle, settings)


def stream_clip(
    name: str,
    values: Mapping[str, Floats],
    valid: Mapping[str, Bools],
    detector: Detector,
    bundle: Bundle,
    settings: Sequence[StreamSettings],
) -> list[StreamedClip]:
    """One clip as a stream, for each of the settings.

    Args:
        name: of the clip.
        values: modality -> (cells, ...).
        valid: modality -> (cells,).
        detector: of `bundle`.
        bundle: the model.
        settings: hops and lookaheads that fit into its window.

    """
    if bundle.carried:
        return [
            _decode(name, values, valid, lambda window: detector.scores([window])[0], bundle, one) for one in settings
        ]
    scored: dict[tuple[int, int], CellScores] = {}
    for hop_cells in _finest({one.hop_cells for one in settings}):
        every = windows_of(name, values, valid, bundle, StreamSettings(hop_cells, lookahead_cells=0))
        while batch := list(islice(every, MAX_BATCH)):  # a long clip has many windows
            whole = [replace(one, emit_start=one.start, emit_stop=one.start + len(one)) for one in batch]
            scored |= {(one.tags_start, one.tags_stop): one for one in detector.scores(whole)}
    flags = {modality: np.zeros(len(one), np.float32) for modality, one in valid.items()}
    return [_decode(name, flags, valid, partial(_final, scored), bundle, one) for one in settings]


def _final(scored: Posteriors, window: Window) -> CellScores:
    """The window's scores, of which posteriors are known."""
    whole = scored[window.start, window.start + len(window)]
    span = slice(window.emit_start - window.start, window.emit_stop - window.start)
    return replace(whole, start=window.emit_start, scores=whole.scores[span], covered=whole.covered[span])


def _finest(hops: set[int]) -> list[int]:
    """The hops whose windows contain those of all: a multiple of another one is left out."""
    return [hop for hop in sorted(hops) if not any(hop % other == 0 for other in hops if other < hop)]


def _decode(
    name: str,
    values: Mapping[str, Floats],
    valid: Mapping[str, Bools],
    score: Callable[[Window], CellScores],
    bundle: Bundle,
    settings: StreamSettings,
) -> StreamedClip:
    """Run the daemon's windower and event tracker. `values` may be stand-ins if `score` does not need them."""
    ids = count(1)
    tracker = EventTracker(
        name,
        0,
        bundle.decoding,
        max_event_cells=max(samples(settings.max_event_s) // CELL, 1),
        new_id=lambda: str(next(ids)),
        early_threshold=settings.early_threshold,
    )
    windower = windower_of(name, values, bundle, settings)
    cells = len(next(iter(values.values())))
    rows: list[Floats] = [np.zeros((0, len(bundle.classes)), np.float32)]
    decided: dict[str, Decided] = {}
    events: list[Offset] = []
    for window in windows_of(name, values, valid, bundle, settings, windower):
        stop = window.start + len(window)
        final = score(window)
        rows.append(final.scores)
        _note(tracker.push(final), stop, stop == cells, decided, events)
    _note(tracker.flush("silence"), cells, True, decided, events)
    posteriors = np.concatenate(rows)
    tags = linear_pooling(torch.from_numpy(posteriors)[None])[0].numpy()
    return StreamedClip(
        ClipPosteriors(name, posteriors, tags), labelled(events), tuple(decided.values()), windower.coverage
    )


def _note(
    made: Sequence[Onset | Offset], stop: int, at_end: bool, decided: dict[str, Decided], events: list[Offset]
) -> None:
    for one in made:
        if isinstance(one, Offset):
            events.append(one)
        else:
            decided[one.event_id] = Decided(one.label, seconds(one.onset), seconds(stop * CELL), at_end)
