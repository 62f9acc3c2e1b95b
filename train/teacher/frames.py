"""mn04's log-mel frames of whole clips, on disk once for all steps of a teacher.

The daemon's mn04 cells are made of patches of 0.96 s; a teacher hears the whole clip at once. The frames are the same.
`train.data.store` keeps them, with one frame of 10 ms where a modality has a cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from streamer.features.base import FEATURES_VERSION
from streamer.features.extraction import Extraction
from streamer.features.mn04 import FFT, HOP, RATE_HZ, SILENCE, WINDOW, LogMel
from streamer.networks.mn04 import MELS
from streamer.types import CELL, SAMPLE_RATE_HZ, Chunk, Floats, Want, cells_in
from train.data.clip import clip_media
from train.data.store import Entry, Key, Stored, Writer, known, narrowed, read_store
from train.lock import only_writer

FRAMES_PER_CELL = CELL * RATE_HZ / (SAMPLE_RATE_HZ * HOP)
"""6.62: frames of 10 ms in a cell of 66.24 ms."""
_NAME = "mn04_frames"
_WANT = Want(frozenset({SAMPLE_RATE_HZ, RATE_HZ}))
_KEY = Key(
    FEATURES_VERSION,
    {"rate_hz": RATE_HZ, "window": WINDOW, "hop": HOP, "fft": FFT},
    (MELS,),
    pictures_alone=False,
    number="float16",
)


@dataclass(frozen=True, slots=True)
class ClipFrames:
    """The frames of one clip."""

    values: Floats  # (frames, 128); frame i is centred on 10 i ms
    cells: int  # of the clip; 0: it has no sound, and no frames


def frames_in(cells: int) -> int:
    """The number of frames in so many cells, to the nearest: 1000 in 151."""
    return round(cells * FRAMES_PER_CELL)


def clip_frames(path: Path, log_mel: LogMel) -> ClipFrames:
    """The frames of a clip, as the daemon's reader hears it.

    Raises:
        SourceError: the clip can't be read.
        EarwitnessError: its timestamps jump, so it is not one continuous clip.

    """
    clock = Extraction({})  # knows how many cells the clip has
    chunks: list[Chunk] = []
    for item in clip_media(path, _WANT):
        clock.push(item)
        if isinstance(item, Chunk) and item.rate_hz == RATE_HZ:
            chunks.append(item)
    if clock.cells == 0 or not chunks:
        return ClipFrames(np.zeros((0, MELS), np.float32), 0)
    samples = np.zeros(chunks[-1].end, np.float32)  # a short hole is silent
    for chunk in chunks:
        samples[chunk.start : chunk.end] = chunk.samples
    return ClipFrames(frames_of(samples, log_mel), clock.cells)


def frames_of(samples: Floats, log_mel: LogMel) -> Floats:
    """(n,) samples at 32 kHz, n > 513, to (frames, 128)."""
    made: Floats = log_mel(torch.from_numpy(samples)[None])[0].T.contiguous().numpy()
    return made


@dataclass(frozen=True, slots=True)
class Frames:
    """The stored frames of some clips, in their order."""

    _stored: Stored
    _entries: Sequence[Entry]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def cells(self) -> int:
        """Cells of the longest clip."""
        longest = max(one.cells for one in self._entries)
        return cells_in(longest * HOP * SAMPLE_RATE_HZ // RATE_HZ)

    def batch(self, rows: Sequence[int], frames: int) -> Tensor:
        """Some clips as (B, 128, frames) float32, cut to so many frames or padded with silence."""
        values = np.full((len(rows), MELS, frames), SILENCE, np.float32)
        for place, row in enumerate(rows):
            entry = self._entries[row]
            length = min(entry.cells, frames)
            values[place, :, :length] = self._stored.values[entry.start : entry.start + length].T
        return torch.from_numpy(values)


def stored_frames(folder: Path, clips: Mapping[Path, str]) -> Frames:
    """The frames of `clips`, path -> SHA-256, of which those that `folder` lacks are computed and stored there.

    Each clip is stored as soon as it is done, so a killed command can be resumed.

    Raises:
        EarwitnessError: a clip can't be read, or the folder holds other frames, is damaged or can't be written.

    """
    with only_writer(folder):
        there = known(folder / _NAME, _KEY)
        new = {sha256: path for path, sha256 in clips.items() if sha256 not in there}
        if new:
            log_mel = LogMel()
            with Writer(folder / _NAME, _KEY) as writer:
                for sha256, path in tqdm(new.items(), desc="frames", unit="clip", mininterval=5):
                    made = clip_frames(path, log_mel)
                    writer.add(sha256, narrowed(made.values, "float16"), np.ones(len(made.values), np.bool_), 0)
    stored = read_store(folder / _NAME, _NAME)
    return Frames(stored, [stored.entries[sha256] for sha256 in clips.values()])
