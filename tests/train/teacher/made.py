"""A tiny corpus, weights in place of mn04's, and a teacher of a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from streamer.networks.weights import WeightsStore
from tests.train.test_corpus import make_recordings, settings
from tests.weights import mn04_tensors
from train.data import corpus
from train.data.dataset import Corpus
from train.teacher.config import TeachConfig

SMALL: dict[str, Any] = {"steps": 3, "batch": 2, "warmup_steps": 0, "checkpoint_every": 2}


def make_corpus(folder: Path, name: str = "corpus", **fields: object) -> Corpus:
    if not (folder / "recordings").exists():
        make_recordings(folder / "recordings", groups=3)
    clips = {"train": 4, "weak": 1, "unlabeled": 1, "validation": 1, "test": 1}
    small = settings(**{"clips": clips, "clip_s": 1.5, "event_s": (0.25, 1.0), "events": {1: 1.0}, **fields})
    corpus.make(folder / "recordings", folder / name, small, workers=1)
    return Corpus.read(folder / name)


def make_weights(folder: Path) -> WeightsStore:
    folder.mkdir()
    torch.save(mn04_tensors(4), folder / "mn04.pth")
    return WeightsStore(folder)


def small(**fields: object) -> TeachConfig:
    return TeachConfig.model_validate({**SMALL, **fields})
