"""Stored clips as live streams: the daemon's windows and detector, on cells that were computed before.

`stored.streamed_posteriors` reads the media and computes every cell again, which a validation between two steps can't
afford. From cells on, this is the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from tqdm import tqdm

from streamer.bundle import Bundle
from streamer.detect import Detector
from streamer.networks.crnn import linear_pooling
from streamer.types import Bools, Cells, Floats, Window
from streamer.windows import StreamSettings, Windower
from train.data.dataset import PartData
from train.evaluation.stored import ClipPosteriors

_CLIPS = 8
"""Clips whose windows share batches."""


def stream_posteriors(
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
        windows = [list(windows_of(part.rows[row], *clip_of(part, row), bundle, settings)) for row in rows]
        scores = iter(detector.scores([one for of_clip in windows for one in of_clip]))
        for row, of_clip in zip(rows, windows, strict=True):
            runs = tuple(next(scores) for _ in of_clip)
            joined = np.concatenate([np.zeros((0, len(bundle.classes)), np.float32), *(one.scores for one in runs)])
            tags = linear_pooling(torch.from_numpy(joined)[None])[0].numpy()
            made.append(ClipPosteriors(part.rows[row], joined, tags, runs, settings.early_threshold))
    return made


def clip_of(part: PartData, row: int) -> tuple[dict[str, Floats], dict[str, Bools]]:
    """The stored cells of one clip by modality: values (cells, ...), and valid (cells,)."""
    values, valid = part.features.batch([row], int(part.features.cells[row]))
    return {name: one[0].numpy() for name, one in values.items()}, {name: one[0].numpy() for name, one in valid.items()}


def windows_of(
    name: str,
    values: Mapping[str, Floats],
    valid: Mapping[str, Bools],
    bundle: Bundle,
    settings: StreamSettings,
    windower: Windower | None = None,
) -> Iterator[Window]:
    """The windows of a clip, whose modalities arrive side by side; the last one at its end.

    Args:
        name: of the clip.
        values, valid: as `clip_of` gives them.
        bundle: the model.
        settings: hop and lookahead.
        windower: the one to use, for who needs its coverage afterwards; default: a new one.

    """
    cells = len(next(iter(valid.values())))
    made = windower or windower_of(name, values, bundle, settings)
    last = max(cells - 1, 0)  # extractors keep the last cell until the end
    step = max(min(settings.hop_cells, settings.skew_cells), 1)
    for first in range(0, last, step):
        stop = min(first + step, last)
        for modality, rows in values.items():
            yield from made.push(modality, Cells(first, rows[first:stop], valid[modality][first:stop]))
    rest = {modality: Cells(last, rows[last:], valid[modality][last:]) for modality, rows in values.items()}
    yield from made.flush(cells, rest)


def windower_of(name: str, values: Mapping[str, Floats], bundle: Bundle, settings: StreamSettings) -> Windower:
    """The daemon's windower for a clip with these values, modality -> (cells, ...)."""
    return Windower(
        name,
        0,
        {modality: rows.shape[1:] for modality, rows in values.items()},
        tuple(values),
        window_cells=bundle.window_cells,
        hop_cells=settings.hop_cells,
        lookahead_cells=settings.lookahead_cells,
        skew_cells=settings.skew_cells,
        carried=bundle.carried,
    )
