"""The cells of one clip, by the daemon's own reader and extractors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamer.errors import EarwitnessError, SourceError
from streamer.features.base import ExtractorFactory, want_of
from streamer.features.extraction import Extraction, StageTimer
from streamer.media.source import open_media
from streamer.types import SAMPLE_RATE_HZ, Bools, Cells, Chunk, Discontinuity, Floats, Picture, Want


@dataclass(frozen=True, slots=True)
class ClipCells:
    """All cells of one clip."""

    values: Mapping[str, Floats]  # modality -> (cells, ...)
    valid: Mapping[str, Bools]  # modality -> (cells,)
    cells: int
    picture_cells: int  # up to the last picture, if pictures were read


def clip_cells(path: Path, factories: Mapping[str, ExtractorFactory], timer: StageTimer | None = None) -> ClipCells:
    """All cells of one clip, as the stream's pipeline computes them; none if the clip has no usable media.

    The clip's audio decides where it ends, also for modalities that do not use audio. Cells of different
    modalities thus match, even if they are computed at different times.

    Raises:
        SourceError: the clip can't be read.
        EarwitnessError: its timestamps jump, so it is not one continuous clip.

    """
    want = want_of(factories.values()) | Want(frozenset({SAMPLE_RATE_HZ}))
    extraction = Extraction(factories, timer)
    blocks: dict[str, list[Cells]] = {name: [] for name in factories}
    for item in clip_media(path, want):
        for name, cells in extraction.push(item):
            blocks[name].append(cells)
    count = extraction.cells
    for name, cells in extraction.flush(count).items():
        blocks[name].append(cells)
    return ClipCells(
        {name: np.concatenate([one.values for one in of])[:count] for name, of in blocks.items()},
        {name: np.concatenate([one.valid for one in of])[:count] for name, of in blocks.items()},
        count,
        extraction.picture_cells,
    )


def clip_media(path: Path, want: Want) -> Iterator[Chunk | Picture]:
    """What is wanted of a clip's media, in the order of time; nothing if it has none of that.

    Raises:
        SourceError: the clip can't be read.
        EarwitnessError: its timestamps jump, so it is not one continuous clip.

    """
    try:
        opened = open_media(str(path), want)
    except SourceError as error:
        if error.reason not in ("no_audio", "no_video"):
            raise
        return
    with opened as media:
        for item in media:
            if isinstance(item, Discontinuity):
                raise EarwitnessError(f"{path}: its timestamps jump ({item.reason}): cut it there, or leave it out")
            if isinstance(item, (Chunk, Picture)):
                yield item
