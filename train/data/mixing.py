"""Mixes one clip: recorded events over a recorded background, with exact strong labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamer.types import Floats
from train.data.config import CorpusConfig
from train.data.recordings import RATE_HZ, Recording, active_spans, is_steady, read_samples

_FADE_S = 0.01
_LOOP_FADE_S = 0.15


@dataclass(frozen=True, slots=True)
class Sound:
    """A recording in memory, and the spans of it that can be an event."""

    recording: Recording
    samples: Floats
    spans: tuple[tuple[int, int], ...]
    steady: bool


@dataclass(frozen=True, slots=True)
class Label:
    """One event of a clip, in seconds."""

    onset_s: float
    offset_s: float
    label: str
    recording: Recording


@dataclass(frozen=True, slots=True)
class Clip:
    """A finished clip."""

    samples: Floats  # (n,)
    labels: tuple[Label, ...]
    background: Recording


@dataclass(frozen=True, slots=True)
class Pool:
    """The sounds of one part of the split."""

    events: Mapping[str, Sequence[Sequence[Sound]]]  # class -> groups -> sounds
    backgrounds: Sequence[Sequence[Sound]]  # groups -> sounds


def read_pool(recordings: Sequence[Recording], config: CorpusConfig) -> Pool:
    """Read recordings into memory (about 45 MB for 1,000 s).

    Sounds are drawn by class, then by group, then within it, so that no long recording outweighs others.
    """
    events: dict[str, dict[str, list[Sound]]] = {label: {} for label in config.classes}
    backgrounds: dict[str, list[Sound]] = {}
    for recording in recordings:
        if not recording.is_background and recording.label not in events:
            continue
        samples = read_samples(recording)
        spans = tuple(active_spans(samples, config.active_db, config.gap_s, config.event_s[0]))
        sound = Sound(recording, samples, spans, is_steady(samples))
        if recording.is_background:
            backgrounds.setdefault(recording.group, []).append(sound)
        elif spans:
            events[recording.label].setdefault(recording.group, []).append(sound)
    return Pool({label: list(groups.values()) for label, groups in events.items()}, list(backgrounds.values()))


def mix(pool: Pool, config: CorpusConfig, rng: np.random.Generator, *, training: bool) -> Clip:
    """One clip. `training` adds augmentation: speed changes, reverberation, a wider range of levels."""
    length = round(config.clip_s * RATE_HZ)
    background = _draw(pool.backgrounds, rng)
    mixture = _loop(_varied(background.samples, config, rng, training=training), length, rng)
    mixture = mixture / _rms(mixture)
    for _ in range(_count(config.distractors, rng)):
        other = _draw(pool.backgrounds, rng)
        if other.spans:
            sound = _cut(other, config, rng, training=training)
            _add(mixture, sound, int(rng.integers(0, length - 1)), _gain(config, rng, training=training))
    labels: list[Label] = []
    for _ in range(_count(config.events, rng)):
        label = config.classes[rng.integers(len(config.classes))]
        if not pool.events[label]:
            continue
        source = _draw(pool.events[label], rng)
        sound = _cut(source, config, rng, training=training)
        onset = _place(len(sound), length, labels, label, config, rng)
        if onset is None:
            continue
        _add(mixture, sound, onset, _gain(config, rng, training=training))
        offset = min(onset + len(sound), length)
        labels.append(Label(onset / RATE_HZ, offset / RATE_HZ, label, source.recording))
    peak = 10 ** (rng.uniform(*config.peak_dbfs) / 20)
    mixture *= peak / np.abs(mixture).max()
    return Clip(mixture.astype(np.float32), tuple(sorted(labels, key=lambda one: one.onset_s)), background.recording)


def _cut(source: Sound, config: CorpusConfig, rng: np.random.Generator, *, training: bool) -> Floats:
    """One active part of a sound, scaled to an RMS of 1, faded in and out."""
    start, stop = source.spans[rng.integers(len(source.spans))]
    samples = _varied(source.samples[start:stop], config, rng, training=training)
    if source.steady and rng.random() < config.extend:
        longest = round(min(config.event_s[1], config.clip_s) * RATE_HZ)
        if longest > len(samples):
            samples = _loop(samples, int(rng.integers(len(samples), longest + 1)), rng)
    elif source.steady and rng.random() < 0.5:
        shortest = round(max(config.event_s[0], 0.5) * RATE_HZ)
        if len(samples) > shortest:
            keep = int(rng.integers(shortest, len(samples)))
            first = int(rng.integers(0, len(samples) - keep + 1))
            samples = samples[first : first + keep]
    samples = samples[: round(config.event_s[1] * RATE_HZ)].astype(np.float32)
    if training and rng.random() < config.room:
        samples = _in_a_room(samples, rng)
    _fade(samples, round(_FADE_S * RATE_HZ))
    return samples / _rms(samples)


def _varied(samples: Floats, config: CorpusConfig, rng: np.random.Generator, *, training: bool) -> Floats:
    """The samples played slightly faster or slower, by resampling the spectrum."""
    if not training or config.speed == 0:
        return samples.astype(np.float32)
    length = round(len(samples) * np.exp(rng.uniform(-config.speed, config.speed)))
    spectrum = np.fft.rfft(samples)
    kept = np.zeros(length // 2 + 1, spectrum.dtype)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    return np.asarray(np.fft.irfft(kept, length) * (length / len(samples)), np.float32)


def _in_a_room(samples: Floats, rng: np.random.Generator) -> Floats:
    """The samples convolved with a synthetic room response: a direct path and exponentially decaying noise."""
    decay_s, wet = rng.uniform(0.1, 0.45), rng.uniform(0.1, 0.6)
    times_s = np.arange(round(decay_s * RATE_HZ)) / RATE_HZ
    tail = rng.standard_normal(len(times_s)) * 10 ** (-3 * times_s / decay_s)
    response = tail * (wet / np.sqrt(np.square(tail).sum()))
    response[0] = 1.0
    size = 1 << (len(samples) + len(response) - 1).bit_length()
    wet_samples = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return np.asarray(wet_samples[: len(samples)], np.float32)


def _loop(samples: Floats, length: int, rng: np.random.Generator) -> Floats:
    """`length` samples of a cross-faded loop of a sound, from a random start."""
    fade = min(round(_LOOP_FADE_S * RATE_HZ), len(samples) // 4)
    ramp = np.sqrt(np.linspace(0, 1, fade, dtype=np.float32))
    body = samples[fade:].astype(np.float32)
    body[-fade:] = body[-fade:] * ramp[::-1] + samples[:fade] * ramp if fade else body[-fade:]
    start = int(rng.integers(len(body))) if len(body) < length else int(rng.integers(len(body) - length + 1))
    repeats = -(-(start + length) // len(body))
    return np.tile(body, repeats)[start : start + length].copy()


def _place(
    size: int, length: int, labels: Sequence[Label], label: str, config: CorpusConfig, rng: np.random.Generator
) -> int | None:
    """An onset that breaks neither the polyphony nor the gap to events of the same class; None if none is found."""
    for _ in range(12):
        latest = max(length - min(size, RATE_HZ // 2), 1) if rng.random() < 0.3 else max(length - size, 1)
        onset = int(rng.integers(0, latest))
        start_s, stop_s = onset / RATE_HZ, min(onset + size, length) / RATE_HZ
        apart = all(
            one.label != label or start_s > one.offset_s + config.gap_s or stop_s < one.onset_s - config.gap_s
            for one in labels
        )
        at_once = sum(one.onset_s < stop_s and start_s < one.offset_s for one in labels)
        if apart and at_once < config.polyphony:
            return onset
    return None


def _add(mixture: Floats, sound: Floats, onset: int, gain: float) -> None:
    stop = min(onset + len(sound), len(mixture))
    mixture[onset:stop] += gain * sound[: stop - onset]


def _gain(config: CorpusConfig, rng: np.random.Generator, *, training: bool) -> float:
    return float(10 ** (rng.uniform(*(config.snr_train_db if training else config.snr_db)) / 20))


def _draw(groups: Sequence[Sequence[Sound]], rng: np.random.Generator) -> Sound:
    group = groups[int(rng.integers(len(groups)))]
    return group[int(rng.integers(len(group)))]


def _count(odds: Mapping[int, float], rng: np.random.Generator) -> int:
    weights = np.array(list(odds.values()))
    return int(rng.choice(list(odds), p=weights / weights.sum()))


def _fade(samples: Floats, size: int) -> None:
    size = min(size, len(samples) // 2)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    samples[:size] *= ramp
    samples[len(samples) - size :] *= ramp[::-1]


def _rms(samples: Floats) -> float:
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean())) or 1.0
