"""Stored clips as live streams: the daemon's windows and detector, on cells that were computed before.

`evaluate.streamed_posteriors` reads the media and computes every cell again, which a validation between two steps can't
afford. From cells on, this is the same code.
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from streamer.bundle import Bundle
from streamer.detect import Detector
from streamer.networks.crnn import linear_pooling
from streamer.types import Cells, Window
from streamer.windows import StreamSettings, Windower
from train.data.dataset import PartData
from train.evaluate import ClipPosteriors

_CLIPS = 8
"""Clips whose windows share batches."""


def streamed(
    bundle: Bundle, part: PartData, settings: StreamSettings | None = None, *, progress: bool = False
) -> list[ClipPosteriors]:
    """Posteriors of every clip of a part, each a stream of its own, with the product's hop and lookahead by default.

    Raises:
        BundleError: the bundle's tensors do not match its network.

    """
    detector, settings = Detector(bundle), settings or StreamSettings()
    made: list[ClipPosteriors] = []
    starts = range(0, len(part), _CLIPS)
    for start in tqdm(starts, desc="streaming", unit="batch", disable=not progress, leave=False):
        rows = range(start, min(start + _CLIPS, len(part)))
        windows = [_windows(bundle, part, row, settings) for row in rows]
        scores = iter(detector.scores([one for of_clip in windows for one in of_clip]))
        for row, of_clip in zip(rows, windows, strict=True):
            runs = tuple(next(scores) for _ in of_clip)
            joined = np.concatenate([np.zeros((0, len(bundle.classes)), np.float32), *(one.scores for one in runs)])
            tags = linear_pooling(torch.from_numpy(joined)[None])[0].numpy()
            made.append(ClipPosteriors(part.rows[row], joined, tags, runs))
    return made


def _windows(bundle: Bundle, part: PartData, row: int, settings: StreamSettings) -> list[Window]:
    """The windows of one clip, of whose modalities a hop of cells arrives at a time."""
    cells = int(part.features.cells[row])
    if cells == 0:
        return []
    clip, flags = part.features.batch([row], cells)
    shapes = {name: clip[name].shape[2:] for name in bundle.modalities}
    present = [name for name in bundle.modalities if flags[name].any()] or list(bundle.modalities)
    windower = Windower(
        part.rows[row],
        0,
        shapes,
        present,
        window_cells=bundle.window_cells,
        hop_cells=settings.hop_cells,
        lookahead_cells=settings.lookahead_cells,
        skew_cells=settings.skew_cells,
        carried=bundle.carried,
    )
    windows: list[Window] = []
    step = min(settings.hop_cells, max(settings.skew_cells, 1))  # none lags by more than is waited for
    for first in range(0, cells, step):
        span = slice(first, min(first + step, cells))
        for name in present:
            windows += windower.push(name, Cells(first, clip[name][0, span].numpy(), flags[name][0, span].numpy()))
    return windows + windower.flush(cells, {})
