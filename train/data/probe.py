"""What one media file holds, read by the daemon's own reader: how long it sounds, whether it shows pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamer.errors import SourceError
from streamer.media.source import open_media
from streamer.types import SAMPLE_RATE_HZ, Chunk, Discontinuity, Picture, Want


@dataclass(frozen=True, slots=True)
class Probe:
    """The contents of a media file."""

    duration_s: float = 0.0  # of its sound
    sound: bool = False
    audible: bool = False  # whether any sample is not zero
    picture: bool = False
    fault: str = ""  # why it can't be used: the reader's own words


def probe(path: Path) -> Probe:
    """Decode the sound of a file, and its first picture."""
    end, audible = 0, False
    try:
        with open_media(str(path), Want(frozenset({SAMPLE_RATE_HZ}))) as media:
            for item in media:
                if isinstance(item, Discontinuity):
                    return Probe(fault=f"its timestamps jump ({item.reason}): cut it there, or leave it out")
                if isinstance(item, Chunk) and len(item.samples):
                    end = item.end
                    audible = audible or bool(np.any(item.samples))
    except SourceError as error:
        if error.reason != "no_audio":
            return Probe(fault=str(error))
    return Probe(end / SAMPLE_RATE_HZ, end > 0, audible, _has_picture(path))


def _has_picture(path: Path) -> bool:
    try:
        with open_media(str(path), Want(pictures=True)) as media:
            return any(isinstance(item, Picture) for item in media)
    except SourceError:  # no video, or none that can be decoded: the sound may be good all the same
        return False
