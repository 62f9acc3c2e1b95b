"""Posteriors of stored clips, their scores, and the thresholds with the best scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from streamer.bundle import Bundle
from streamer.events import ClassDecoding, Decoding, decode_clip, decode_epoch
from streamer.networks.forms import FusionNetwork
from streamer.networks.weights import WeightsStore
from streamer.replay.replayer import Replayer
from streamer.replay.scoring import ClipPrediction, Report, evaluate
from streamer.replay.truth import Truth, labelled
from streamer.timeline import seconds
from streamer.types import CELL, CellScores, Floats, Offset
from train.config import FitConfig
from train.data.dataset import PartData
from train.workers import pool

_MEDIANS = (1, 3, 5, 7, 9, 13)
_ONSET_THRESHOLDS = tuple(np.round(np.arange(0.1, 0.91, 0.1), 2).tolist())
_OFFSET_SHARES = (0.4, 0.7, 1.0)
_GROUPS_OF_ITS_OWN = 50
"""With more groups of recordings than this, a class's own merit outweighs the mean over all classes."""
_TAG_THRESHOLDS = tuple(np.round(np.arange(0.1, 0.91, 0.05), 2).tolist())


@dataclass(frozen=True, slots=True)
class ClipPosteriors:
    """A network's posteriors of one clip."""

    name: str  # the truth's
    cells: Floats  # (cells, classes)
    clip: Floats  # (classes,)
    runs: tuple[CellScores, ...] = ()  # of a stream: what the model said at each of its runs; its onsets need that

    @property
    def duration_s(self) -> float:
        """Duration of its cells in seconds."""
        return seconds(CELL * len(self.cells))


def untuned(classes: Sequence[str], config: FitConfig) -> Decoding:
    """One threshold and one median filter for every class (paper section 2.2: 0.5 and 7 cells)."""
    one = ClassDecoding(config.threshold, config.threshold, config.median_cells, config.threshold)
    return Decoding(tuple(classes), tuple(one for _ in classes))


@torch.inference_mode()
def posteriors(
    network: FusionNetwork, part: PartData, batch: int = 16, *, progress: bool = False
) -> list[ClipPosteriors]:
    """Posteriors of every clip of a part. Each clip is one window; clips of the same length share a batch.

    A clip without any of the network's inputs gets empty posteriors.
    """
    counts = part.features.cells
    order = sorted(range(len(part)), key=lambda row: (int(counts[row]), row))
    batches: list[list[int]] = []
    made = {row: _nothing(part.rows[row], network.classify.out_features) for row in order if counts[row] == 0}
    for row in order[len(made) :]:
        if batches and len(batches[-1]) < batch and counts[batches[-1][0]] == counts[row]:
            batches[-1].append(row)
        else:
            batches.append([row])
    device = network.classify.weight.device
    for rows in tqdm(batches, desc="detecting", unit="batch", disable=not progress):
        features, valid = part.features.batch(rows, int(counts[rows[0]]))
        out = network(
            {name: values.to(device) for name, values in features.items()},
            {name: flags.to(device) for name, flags in valid.items()},
        )
        of_cells, of_clips = out.cells.cpu().numpy(), out.clip.cpu().numpy()
        for index, row in enumerate(rows):
            made[row] = ClipPosteriors(part.rows[row], of_cells[index], of_clips[index])
    return [made[row] for row in range(len(part))]


def streamed_posteriors(bundle: Path, weights: Path, part: PartData, workers: int) -> list[ClipPosteriors]:
    """The same clips processed as live streams, by the code of `earwitness replay --mode stream`, in parallel.

    Raises:
        BundleError, WeightsError, SourceError: as replay does.

    """
    heard = [row for row in range(len(part)) if part.features.cells[row]]
    clips, names = [str(part.clips[row]) for row in heard], [part.rows[row] for row in heard]
    with pool(workers, _begin_replay, (bundle, weights)) as processes:
        jobs = processes.map(_replay_job, clips, names, chunksize=4)
        made = dict(zip(heard, tqdm(jobs, total=len(heard), desc="streaming", unit="clip"), strict=True))
    classes = made[heard[0]].cells.shape[1]
    return [made[row] if row in made else _nothing(part.rows[row], classes) for row in range(len(part))]


def _nothing(name: str, classes: int) -> ClipPosteriors:
    """The posteriors of a clip without any of the model's inputs."""
    return ClipPosteriors(name, np.zeros((0, classes), np.float32), np.zeros(classes, np.float32))


_replayer: list[Replayer] = []
"""State of a worker process: the bundle is loaded once per process, not once per clip."""


def _begin_replay(bundle: Path, weights: Path) -> None:
    _replayer.append(Replayer.of(Bundle.load(bundle), WeightsStore(weights, {}), "stream"))


def _replay_job(path: str, row: str) -> ClipPosteriors:
    result = _replayer[0].replay(path)
    one_epoch = len({one.epoch for one in result.runs}) == 1
    return ClipPosteriors(row, result.scores, result.tag_scores, result.runs if one_epoch else ())


def predict(clips: Sequence[ClipPosteriors], decoding: Decoding) -> dict[str, ClipPrediction]:
    """Events and tags of clips, from the one event decoder."""
    tag_thresholds = np.array([one.tag_threshold for one in decoding.per_class])
    return {
        clip.name: ClipPrediction(
            labelled(_events(clip, decoding)),
            frozenset(np.array(decoding.classes)[clip.clip >= tag_thresholds].tolist()),
        )
        for clip in clips
    }


def _events(clip: ClipPosteriors, decoding: Decoding) -> list[Offset]:
    return decode_epoch(clip.runs, decoding) if clip.runs else decode_clip(clip.name, clip.cells, decoding)


def score(clips: Sequence[ClipPosteriors], truth: Truth, decoding: Decoding) -> Report:
    """Clip, segment and event F1 of clips.

    Raises:
        TruthError: the truth has no row for a clip.

    """
    durations_s = {clip.name: clip.duration_s for clip in clips}
    return evaluate(truth, predict(clips, decoding), decoding.classes, durations_s)


def tune(
    ways: Sequence[Sequence[ClipPosteriors]], truth: Truth, classes: Sequence[str], groups: Mapping[str, int]
) -> Decoding:
    """The thresholds and median filter of each class with the best scores on validation clips (never on test clips).

    `ways` holds the clips' posteriors for each way of using the model (whole clips, streams). A setting's merit
    is its mean over the ways. For events it is the mean of event and segment F1, smoothed over neighbouring
    thresholds so that no lucky grid point wins; for tags it is the clip F1.

    `groups` gives the number of groups of recordings in each class's validation clips. Thresholds that suit a
    few recordings need not suit the class: with n groups, a setting's merit is n / (n + 50) the class's own and
    for the rest the mean over all classes. A class with few groups thus gets the thresholds that suit all
    classes; a class with hundreds gets its own. (Tuned on either half of 1,000 clips with 1 to 8 groups per
    class and scored on the other, shared thresholds had 1 to 2.4 points more segment F1 than each class's own,
    and the same event F1.)
    """
    grid = [
        ClassDecoding(onset, max(0.05, round(onset * share, 3)), median)
        for median in _MEDIANS
        for onset in _ONSET_THRESHOLDS
        for share in _OFFSET_SHARES
    ]
    shape = (len(_MEDIANS), len(_ONSET_THRESHOLDS), len(_OFFSET_SHARES))
    found = np.zeros((len(grid), len(classes)))
    for index, one in enumerate(tqdm(grid, desc="tuning events", unit="setting")):
        for clips in ways:
            report = score(clips, truth, Decoding(tuple(classes), tuple(one for _ in classes)))
            found[index] += [((row.event.f1 or 0) + (row.segment.f1 or 0)) / 2 for row in report.classes]
    own = np.array([groups[label] / (groups[label] + _GROUPS_OF_ITS_OWN) for label in classes])
    found = own * found + (1 - own) * found.mean(axis=1, keepdims=True)
    chosen: list[ClassDecoding] = []
    for column in range(len(classes)):
        smooth = _smoothed(found[:, column].reshape(shape))
        chosen.append(grid[int(smooth.argmax())])
    tags = np.zeros((len(_TAG_THRESHOLDS), len(classes)))
    for index, threshold in enumerate(_TAG_THRESHOLDS):
        tagged = Decoding(tuple(classes), tuple(replace(one, tag_threshold=threshold) for one in chosen))
        for clips in ways:
            tags[index] += [row.clip.f1 or 0 for row in score(clips, truth, tagged).classes]
    tags = own * tags + (1 - own) * tags.mean(axis=1, keepdims=True)
    smooth_tags = (np.pad(tags, ((1, 1), (0, 0)), mode="edge")[np.arange(len(tags))[:, None] + np.arange(3)]).mean(
        axis=1
    )
    best = [_TAG_THRESHOLDS[int(row)] for row in smooth_tags.argmax(axis=0)]
    return Decoding(
        tuple(classes),
        tuple(replace(one, tag_threshold=threshold) for one, threshold in zip(chosen, best, strict=True)),
    )


def _smoothed(
    scores: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Mean of each setting and its neighbours in threshold, (medians, thresholds, shares)."""
    padded = np.pad(scores, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
