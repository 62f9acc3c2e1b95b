"""Posteriors of stored clips, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from streamer.bundle import Bundle
from streamer.decoding import ClassDecoding, Decoding
from streamer.events import decode_clip, decode_epoch
from streamer.networks.forms import FusionNetwork
from streamer.networks.weights import WeightsStore
from streamer.onsets import NOT_EARLY
from streamer.replay.replayer import Replayer
from streamer.replay.scoring import ClipPrediction, Report, evaluate
from streamer.replay.truth import Truth, labelled
from streamer.timeline import seconds
from streamer.types import CELL, CellScores, Floats, Offset
from streamer.windows import StreamSettings
from train.config import FitConfig
from train.data.dataset import PartData
from train.workers import pool


@dataclass(frozen=True, slots=True)
class ClipPosteriors:
    """A network's posteriors of one clip."""

    name: str  # the truth's
    cells: Floats  # (cells, classes)
    clip: Floats  # (classes,)
    runs: tuple[CellScores, ...] = ()  # of a stream: what the model said at each of its runs; its onsets need that
    early_threshold: float = NOT_EARLY  # of a stream

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
    runs = result.runs if one_epoch else ()
    return ClipPosteriors(row, result.scores, result.tag_scores, runs, StreamSettings().early_threshold)


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
    if clip.runs:
        return decode_epoch(clip.runs, decoding, clip.early_threshold)
    return decode_clip(clip.name, clip.cells, decoding)


def score(clips: Sequence[ClipPosteriors], truth: Truth, decoding: Decoding) -> Report:
    """Clip, segment and event F1 of clips.

    Raises:
        TruthError: the truth has no row for a clip.

    """
    durations_s = {clip.name: clip.duration_s for clip in clips}
    return evaluate(truth, predict(clips, decoding), decoding.classes, durations_s)
