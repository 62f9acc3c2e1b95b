"""Small bundles for tests: an untrained network, with thresholds in the middle of what it says about a clip.

It finds events that mean nothing, but always the same ones, and some in every class that moves at all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamer.detect import Detector
from streamer.events import ClassDecoding, Decoding
from streamer.features.weights import WeightsStore
from streamer.media import Want, open_media
from streamer.model import Bundle, initial_tensors
from streamer.pipeline import StreamPipeline, StreamSettings, run
from streamer.types import FrameScores


def make_bundle(folder: Path, clip: Path, *, classes: tuple[str, ...] = ("Dog", "Speech"), seed: int = 3) -> Path:
    """A spectral bundle saved in `folder`, whose thresholds `clip`'s posteriors cross often."""
    specs = {"spectral": {}}
    tensors = initial_tensors(specs, len(classes), seed)
    anything = ClassDecoding(1.0, 1.0, 7)
    first = Bundle("untrained", specs, Decoding(classes, (anything,) * len(classes)), tensors)
    factories = first.factories(WeightsStore(folder, {}))
    pipeline = StreamPipeline("clip", factories, first.decoding, first.window_cells, StreamSettings(), lambda: "x")
    with open_media(str(clip), Want(frozenset({22_100}), False)) as media:
        outputs = list(run(media, pipeline, Detector(first)))
    scores = np.concatenate([one.scores for one in outputs if isinstance(one, FrameScores)])
    middles = np.quantile(scores, 0.5, axis=0)
    per_class = tuple(ClassDecoding(float(middle), float(middle) * 0.995, 5) for middle in middles)
    Bundle("untrained", specs, Decoding(classes, per_class), tensors).save(folder)
    return folder
