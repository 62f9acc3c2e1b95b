"""`earwitness-train teach`: the training loop of a teacher, from top to bottom."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from streamer.errors import EarwitnessError
from streamer.networks.backends import use_threads
from streamer.networks.crnn import linear_pooling
from streamer.networks.mn04 import network_of
from streamer.networks.weights import WeightsStore
from streamer.types import Floats
from train.data import targets
from train.data.dataset import Annotated, Corpus
from train.lock import only_writer
from train.provenance import environment
from train.teacher import record
from train.teacher.augment import augmented
from train.teacher.config import TeachConfig
from train.teacher.frames import Frames, frames_in, stored_frames
from train.teacher.learner import Learner
from train.teacher.network import TeacherNetwork
from train.teacher.record import Record

_log = logging.getLogger(__name__)
_SAY_EVERY = 25
"""Steps from one line of the log to the next."""


def teach(
    corpus: Corpus,
    out: Path,
    config: TeachConfig,
    weights: WeightsStore,
    frames: Path | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Fine-tune mn04 on the strong labels of the part `train`, and write the teacher (`train.teacher.record`).

    Resumes from `out/checkpoint.pt` if it exists, with the same results as without the interruption. `progress` gets
    the number of every finished step.

    Args:
        corpus: with strong labels.
        out: the run's folder.
        config: how it is trained.
        weights: has mn04's.
        frames: folder of the clips' log-mel frames, 256 KB for 10 s; None: in `out`.
        progress: see above.

    Raises:
        WeightsError: mn04's weights are missing, damaged or others.
        TruthError: the annotations can't be read, or are not strong.
        EarwitnessError: a clip can't be read, or the run to resume is damaged or has other settings or clips.

    """
    torch.manual_seed(config.seed)
    torch.set_flush_denormal(True)  # denormals carry no information and are a hundred times slower
    if config.threads:
        use_threads(config.threads)
    found = weights.find("mn04")
    trunk = network_of(found.tensors(), found.path).features
    with only_writer(out):
        frames = frames or out / "frames"
        frames.mkdir(parents=True, exist_ok=True)  # it also remembers the hashes of the media
        data = corpus.annotated("train", frames)
        log_mel = stored_frames(frames, data.media)
        assert data.truth is not None  # the part `train` always has annotations
        if not log_mel.cells:
            raise EarwitnessError(
                f"{corpus.folder}: no clip of the part train has sound: there is nothing to learn from"
            )
        active = targets.strong(data.truth, list(data.rows.values()), corpus.classes, log_mel.cells)
        now = Record.of(corpus.summary, config, _sha256(data), found.sha256)
        learner = Learner.new(TeacherNetwork(trunk, len(corpus.classes), config.dropout), config)
        begun = learner.load(out, now) or msgspec.structs.replace(now, environment=environment(0))
        if learner.step >= config.steps:
            _log.info("%s: already has its %d steps", out, config.steps)
        _train(out, learner, log_mel, active, config, begun, progress)
        record.write(out, learner.mean, begun)
        _log.info("%s: the teacher is in %s and %s", out, record.TENSORS, record.JSON)


def _train(
    out: Path,
    learner: Learner,
    log_mel: Frames,
    active: Floats,
    config: TeachConfig,
    begun: Record,
    progress: Callable[[int], None] | None,
) -> None:
    rng, cells = learner.rng, active.shape[1]
    started, said = time.monotonic(), np.zeros(3)  # sums of both costs, and the number of steps in them
    while learner.step < config.steps:
        learner.set_rates(config)
        # In the order of the disk. A clip is twice in a batch only if there are not enough.
        rows = np.sort(rng.choice(len(log_mel), config.batch, replace=len(log_mel) < config.batch))
        clips = log_mel.batch(rows.tolist(), frames_in(cells))
        clips, labels = augmented(clips, torch.from_numpy(active[rows]), config, rng)

        log_odds = learner.network(clips, cells)
        if not log_odds.isfinite().all():
            raise EarwitnessError(
                f"{out}: the network's outputs are not finite after step {learner.step}: lower learning_rate and "
                "trunk_learning_rate, and start again"
            )
        of_cells, of_clips = costs(log_odds, labels)
        learner.optimiser.zero_grad()
        (of_cells + config.clip_cost * of_clips).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learner.network.parameters(), config.clip_gradient)
        learner.optimiser.step()
        learner.step += 1
        learner.update_mean(config.ema)

        said += of_cells.item(), of_clips.item(), 1
        if learner.step % _SAY_EVERY == 0 or learner.step == config.steps:
            each_s = (time.monotonic() - started) / said[2]
            means = said / said[2]
            _log.info(
                "step %d of %d: cost of cells %.4f, of clips %.4f; %.2f s a step",
                learner.step, config.steps, means[0], means[1], each_s,
            )  # fmt: skip
            started, said = time.monotonic(), np.zeros(3)
        if learner.step % config.checkpoint_every == 0 or learner.step == config.steps:
            learner.save(out, begun)
        if progress is not None:
            progress(learner.step)


def costs(log_odds: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropies of cells and of clips by linear pooling, each a mean.

    Args:
        log_odds: (B, cells, classes).
        labels: (B, cells, classes) of 0 and 1; a clip has the classes of its cells.

    """
    of_cells = functional.binary_cross_entropy_with_logits(log_odds, labels)
    clips = linear_pooling(torch.sigmoid(log_odds)).clamp(1e-6, 1 - 1e-6)
    return of_cells, functional.binary_cross_entropy(clips, labels.amax(dim=1))


def _sha256(data: Annotated) -> str:
    digest = hashlib.sha256()
    for clip, sha256 in data.media.items():
        digest.update(f"{clip.name}\0{sha256}\0".encode(errors="surrogateescape"))
    digest.update(data.table.read_bytes() if data.table is not None else b"")
    return digest.hexdigest()
