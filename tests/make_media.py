"""Makes test media with PyAV: tones, bursts, moving pictures, any codec and container, the same for the same seed.

>>> make_clip(tmp / "clip.mp4", seconds=4, audio="aac", video="h264")        # gated tones, a moving square
>>> make_clip(tmp / "bark.mkv", seconds=4, audio="opus", samples=my_float32) # own samples, (n,) or (channels, n)
>>> make_clip(tmp / "hole.mov", seconds=4, audio="pcmu", rate_hz=8000, retime=lambda t: None if 1 <= t < 1.5 else t)
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

AUDIO_ENCODERS = {"opus": "libopus", "pcmu": "pcm_mulaw", "pcma": "pcm_alaw", "mp3": "libmp3lame", "pcm": "pcm_s16le"}
VIDEO_ENCODERS = {"h264": "libx264", "h265": "libx265", "hevc": "libx265", "vp8": "libvpx", "vp9": "libvpx-vp9"}
Retime = Callable[[float], float | None]


def tone(seconds: float, rate_hz: int, *, hz: float = 440.0, level: float = 0.5) -> NDArray[np.float32]:
    """A sine, (n,)."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def noise_bursts(
    seconds: float,
    rate_hz: int,
    *,
    seed: int = 0,
    bursts: tuple[tuple[float, float], ...] = ((1.0, 2.0),),
    level: float = 0.5,
) -> NDArray[np.float32]:
    """White noise inside each (onset_s, offset_s), digital silence elsewhere, (n,)."""
    rng = np.random.default_rng(seed)
    samples = np.zeros(round(seconds * rate_hz), dtype=np.float32)
    for onset_s, offset_s in bursts:
        part = slice(round(onset_s * rate_hz), min(round(offset_s * rate_hz), len(samples)))
        samples[part] = level * rng.uniform(-1, 1, part.stop - part.start)
    return samples


def sounds(seconds: float, rate_hz: int, *, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """A different tone, gated on and off, with a little noise, in each channel: (channels, n)."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    rows = []
    for channel in range(channels):
        gate = (np.sin(2 * np.pi * (0.7 + 0.2 * channel) * t + rng.uniform(0, 6)) > 0).astype(np.float32)
        hz = min(300.0 * (channel + 1) + rng.uniform(0, 100), rate_hz / 3)
        rows.append(0.4 * gate * np.sin(2 * np.pi * hz * t) + 0.01 * rng.standard_normal(len(t)))
    return np.asarray(rows, dtype=np.float32).reshape(channels, len(t))


def picture(index: int, *, width: int = 320, height: int = 240, seed: int = 0) -> NDArray[np.uint8]:
    """Picture `index` of the test film: a bright square moving over a coloured ramp, (height, width, 3) RGB.

    The top left 32 x 32 pixels are a grey of level `16 + 2 * (index % 100)`, so that a test can tell which one it got
    (where no crop takes that corner away; the left edge is cropped for wide pictures: use a square film then).
    """
    rng = np.random.default_rng(seed)
    base = rng.integers(40, 120, 3)
    x = np.linspace(0, 80, width)[None, :, None]
    y = np.linspace(0, 60, height)[:, None, None]
    pixels = np.broadcast_to(base + x * [1, 0, 0.5] + y * [0, 1, 0.5], (height, width, 3)).astype(np.uint8).copy()
    left, top = (index * 7) % (width - 40), (index * 3) % (height - 40)
    pixels[top : top + 40, left : left + 40] = [250, 240, 60]
    pixels[:32, :32] = 16 + 2 * (index % 100)
    return pixels


def make_clip(
    path: str | Path,
    *,
    seconds: float = 4.0,
    audio: str | None = "aac",
    video: str | None = None,
    rate_hz: int = 48_000,
    layout: str = "mono",
    seed: int = 0,
    samples: NDArray[np.float32] | None = None,
    fps: int = 25,
    size: tuple[int, int] = (320, 240),
    gop: int = 25,
    format: str | None = None,
    metadata: dict[str, str] | None = None,
    retime: Retime | None = None,
    picture_retime: Retime | None = None,
    options: dict[str, str] | None = None,
    packet_size: int = 1024,
) -> Path:
    """Write a clip and return its path; the container follows the suffix, or `format`.

    `audio` and `video` are FFmpeg encoder names or the short names above (`aac`, `opus`, `pcmu`, `pcma`, `mp3`,
    `flac`, `pcm`, `h264`, `h265`, `mjpeg`, `mpeg4`, `vp8`, ...), or None for no such stream. `samples` are float32 at
    `rate_hz`, -1 to 1, (n,) or (channels, n) and then decide the length of the audio; without them `sounds` makes some.
    `size` is (width, height). `retime` maps the time in seconds of an audio packet to the time that is written, or to
    None to leave the packet out (a hole); `picture_retime` does so for video and is `retime` unless given. `options` go
    to the muxer. `packet_size` is the number of samples in an audio packet, where the codec leaves that open.
    """
    path = Path(path)
    with av.open(str(path), "w", format=format, options=options or {}) as container:
        for key, value in (metadata or {}).items():
            container.metadata[key] = value
        tracks: list[list[tuple[Fraction, av.Packet[Any]]]] = []
        if audio is not None:
            stream = container.add_stream(AUDIO_ENCODERS.get(audio, audio), rate=rate_hz, layout=layout)
            assert isinstance(stream, av.AudioStream)
            channels = stream.layout.nb_channels
            wave = sounds(seconds, rate_hz, channels=channels, seed=seed) if samples is None else np.atleast_2d(samples)
            if len(wave) != channels:
                wave = np.broadcast_to(wave[:1], (channels, wave.shape[1]))
            tracks.append(_retimed(_audio_packets(stream, wave, rate_hz, layout, packet_size), retime))
        if video is not None:
            film = container.add_stream(VIDEO_ENCODERS.get(video, video), rate=fps)
            assert isinstance(film, av.VideoStream)
            film.width, film.height = size
            film.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
            film.gop_size = gop
            film.codec_context.thread_count = 1
            if film.codec_context.name in ("libx264", "libx265"):
                film.options = {
                    "preset": "ultrafast",
                    "tune": "zerolatency",
                    "x265-params": "log-level=none:pools=none",
                }
                if film.codec_context.name == "libx264":
                    del film.options["x265-params"]
            packets = _video_packets(film, round(seconds * fps), fps, size, seed)
            tracks.append(_retimed(packets, picture_retime or retime))
        for _, packet in sorted((p for track in tracks for p in track), key=lambda p: p[0]):
            container.mux(packet)
    return path


def _audio_packets(
    stream: av.AudioStream, wave: NDArray[np.float32], rate_hz: int, layout: str, size: int
) -> list[av.Packet[Any]]:
    packets = []
    step = stream.codec_context.frame_size or size
    resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate_hz, frame_size=step)
    for start in range(0, wave.shape[1], step):
        # Interleaved, because PyAV 18 crashes on eight planes.
        packed = np.ascontiguousarray(wave[:, start : start + step].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = rate_hz
        frame.pts = start
        frame.time_base = Fraction(1, rate_hz)
        for out in resampler.resample(frame):
            packets += stream.encode(out)
    if wave.shape[1]:
        for out in resampler.resample(None):
            packets += stream.encode(out)
    packets += stream.encode(None)
    return packets


def _video_packets(
    stream: av.VideoStream, count: int, fps: int, size: tuple[int, int], seed: int
) -> list[av.Packet[Any]]:
    packets = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(picture(index, width=size[0], height=size[1], seed=seed), format="rgb24")
        frame.pts = index
        frame.time_base = Fraction(1, fps)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    return packets


def _retimed(packets: list[av.Packet[Any]], retime: Retime | None) -> list[tuple[Fraction, av.Packet[Any]]]:
    kept = []
    for packet in packets:
        if packet.pts is None or packet.dts is None:
            continue
        base = Fraction(packet.time_base)
        if retime is not None:
            moved = retime(float(packet.pts * base))
            if moved is None:
                continue
            shift = round(Fraction(moved).limit_denominator(1_000_000) / base) - packet.pts
            packet.pts += shift
            packet.dts += shift
        kept.append((packet.dts * base, packet))
    return kept
