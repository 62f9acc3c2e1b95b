"""Writes clips as cameras record them: H.264 and AAC in an MP4 file. Training corpora are made of these."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from streamer.errors import EarwitnessError
from streamer.types import Floats

_AAC_FRAME = 1024
"""Samples that AAC encodes at once."""


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """How the pictures of a clip are encoded."""

    width: int  # even, as 4:2:0 needs
    height: int  # even
    fps: int
    keyframe_every: int  # pictures
    crf: int  # x264's constant rate factor: 18 looks lossless, 30 like a cheap camera
    preset: str  # x264's name for its speed


def write_clip(
    path: Path,
    samples: Floats,
    rate_hz: int,
    audio_kbps: int,
    pictures: Iterable[NDArray[np.uint8]] = (),
    video: VideoFormat | None = None,
) -> None:
    """Write sound and pictures that begin at the same moment. The same input gives the same file.

    Args:
        path: of the MP4 file to write.
        samples: (n,), mono, -1 to 1.
        rate_hz: sample rate.
        audio_kbps: bit rate of the AAC.
        pictures: (height, width, 3) RGB, `video.fps` a second, drawn one at a time.
        video: None: the file has no video track.

    Raises:
        EarwitnessError: the file can't be written.

    """
    try:
        with av.open(str(path), "w", format="mp4") as container:
            sound = container.add_stream("aac", rate=rate_hz, layout="mono")
            sound.codec_context.bit_rate = 1000 * audio_kbps
            film = None if video is None else _video_stream(container, video)
            blocks = _blocks(samples, rate_hz)
            if video is not None and film is not None:
                for index, pixels in enumerate(pictures):
                    while blocks and blocks[0][0] * video.fps <= index * rate_hz:
                        container.mux(sound.encode(blocks.popleft()[1]))
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    frame.pts, frame.time_base = index, Fraction(1, video.fps)
                    container.mux(film.encode(frame))
                container.mux(film.encode(None))
            for _, block in blocks:
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    except (OSError, av.FFmpegError) as error:
        raise EarwitnessError(f"{path}: can't be written: {error.strerror or error}") from None


def _video_stream(container: av.container.OutputContainer, video: VideoFormat) -> av.VideoStream:
    film = container.add_stream("libx264", rate=video.fps)
    film.width, film.height, film.pix_fmt = video.width, video.height, "yuv420p"
    film.gop_size = video.keyframe_every
    # Cameras send no B-frames. One thread, because x264's output depends on their number.
    film.options = {"preset": video.preset, "crf": str(video.crf), "tune": "zerolatency"}
    film.codec_context.thread_count = 1
    return film


def _blocks(samples: Floats, rate_hz: int) -> deque[tuple[int, av.AudioFrame]]:
    """The samples as AAC encodes them; each block with its first sample's number."""
    blocks: deque[tuple[int, av.AudioFrame]] = deque()
    for start in range(0, len(samples), _AAC_FRAME):
        block = np.ascontiguousarray(samples[None, start : start + _AAC_FRAME], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
        blocks.append((start, frame))
    return blocks
