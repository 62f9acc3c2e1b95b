"""Steering: audio is timed by its sample count, and only lasting errors change its times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.media.steering import LASTING_S, SLACK_S, Sound, Steering
from streamer.media.stretch import stretched
from streamer.types import CELL, SAMPLE_RATE_HZ, Floats
from tests.make_media import tone

RATE = 8_000
PACKET = 320  # samples: 40 ms
CELL_S = CELL / SAMPLE_RATE_HZ

Packet = tuple[Fraction | None, Floats]


def packets(count: int, error_s: Callable[[int], float], *, size: int = PACKET, seed: int = 0) -> list[Packet]:
    """Noise in packets; the timestamp of the n-th is off by `error_s(n)` and rounded to ms."""
    sound = np.random.default_rng(seed).uniform(-1, 1, count * size).astype(np.float32)
    return [
        (Fraction(round(1000 * (n * size / RATE + error_s(n))), 1000), sound[n * size : (n + 1) * size])
        for n in range(count)
    ]


def steered(items: Iterable[Packet], steering: Steering | None = None, rate_hz: int = RATE) -> list[Sound]:
    """The output, in as few pieces as its times allow."""
    steering = steering or Steering()
    out = [sound for time, samples in items for sound in steering.push(time, rate_hz, samples)] + steering.flush()
    runs: list[Sound] = []
    for sound in out:
        if runs and runs[-1].time + Fraction(len(runs[-1].samples), rate_hz) == sound.time:
            runs[-1] = Sound(runs[-1].time, rate_hz, np.concatenate([runs[-1].samples, sound.samples]))
        else:
            runs.append(sound)
    return runs


def joined(items: Sequence[Packet]) -> Floats:
    return np.concatenate([samples for _, samples in items])


def same(one: Sequence[Sound], other: Sequence[Sound]) -> bool:
    return len(one) == len(other) and all(
        a.time == b.time and np.array_equal(a.samples, b.samples) for a, b in zip(one, other, strict=True)
    )


@settings(max_examples=200)
@given(
    errors_ms=st.lists(st.integers(-60, 60), min_size=1, max_size=200),
    again=st.integers(1, 10),
    size=st.sampled_from([80, 160, 320, 1024]),
)
def test_no_jitter_up_to_60_ms_changes_anything(errors_ms: list[int], again: int, size: int) -> None:
    """Whatever the pattern, as long as it returns within half a second."""
    again = max(1, min(again, RATE // 2 // size - 1))
    items = packets(len(errors_ms), lambda n: (errors_ms[0] if n % again == 0 else errors_ms[n]) / 1000, size=size)
    (run,) = steered(items)
    assert run.time == items[0][0]
    assert np.array_equal(run.samples, joined(items))


def exact(n: int) -> float:
    del n
    return 0.0


def uniform(n: int) -> float:
    return float(np.random.default_rng(n).uniform(-0.06, 0.06))


def gaussian(n: int) -> float:
    return float(np.clip(np.random.default_rng(n).normal(0, 0.03), -0.06, 0.06))


PATTERNS: dict[str, Callable[[int], float]] = {
    "uniform": uniform,
    "gaussian": gaussian,
    "alternating": lambda n: 0.06 * (-1) ** n,
    "sine": lambda n: 0.06 * float(np.sin(n / 7)),
    "bursts": lambda n: uniform(n) if n // 10 % 3 == 2 else 0.0,
    "late bursts": lambda n: 0.06 if n // 10 % 2 else -0.06,
    "in fours": lambda n: -0.04 * (n % 4),  # a camera that hands over four packets with one timestamp
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_minute_of_jitter(pattern: str) -> None:
    items = packets(1_500, PATTERNS[pattern])
    (run,) = steered(items)
    assert np.array_equal(run.samples, joined(items))


@pytest.mark.parametrize("lost", [1, 2, 5, 25, 47])
def test_a_loss_from_an_exact_stream_leaves_a_hole_where_it_was(lost: int) -> None:
    items = packets(200, lambda _: 0.0)
    runs = steered(items[:100] + items[100 + lost :])
    assert [(run.time, len(run.samples)) for run in runs] == [
        (0, 100 * PACKET),
        (items[100 + lost][0], (100 - lost) * PACKET),
    ]


def test_many_losses_leave_every_sample_in_place() -> None:
    kept = np.random.default_rng(3).random(1_000) > 0.1
    kept[0] = kept[-40:] = True  # at the very end it could not be told from jitter
    items = packets(1_000, lambda _: 0.0, size=160)
    found = {run.time: len(run.samples) for run in steered([i for i, keep in zip(items, kept, strict=True) if keep])}
    starts = [n for n in range(1_000) if kept[n] and (n == 0 or not kept[n - 1])]
    assert list(found) == [items[n][0] for n in starts]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("lost_s", [0.4, 1.0, 1.9, 5.0])
def test_a_real_hole_among_jitter_is_found_and_later_times_are_right(pattern: str, lost_s: float) -> None:
    items = packets(500, PATTERNS[pattern])
    lost = round(lost_s * RATE / PACKET)
    before, after = steered(items[:250] + items[250 + lost :])
    assert len(before.samples) == pytest.approx(250 * PACKET, abs=3 * PACKET)
    assert float(after.time) == pytest.approx((len(before.samples) + lost * PACKET) / RATE, abs=0.13)
    assert np.array_equal(np.concatenate([before.samples, after.samples]), joined(items[:250] + items[250 + lost :]))


def test_a_stray_timestamp_changes_nothing() -> None:
    strays = {50: 3_600.0, 51: -3_600.0, 90: 1.5, 120: -1.5, 121: -1.5}
    items = packets(200, lambda n: strays.get(n, 0.0))
    (run,) = steered(items)
    assert np.array_equal(run.samples, joined(items))


def test_a_lasting_jump_is_accepted_in_either_direction() -> None:
    for jump_s in (1_000.0, -1_000.0, 0.5, -0.5):
        items = packets(200, lambda n, jump_s=jump_s: 2_000 + (jump_s if n >= 100 else 0.0))  # type: ignore[misc]
        first, second = steered(items)
        assert len(first.samples) == 100 * PACKET
        assert second.time == items[100][0]


@pytest.mark.parametrize("ppm", [-1_000, -100, 100, 1_000])
@pytest.mark.parametrize("jitter", ["exact", "uniform"])
def test_an_inaccurate_sample_clock_is_corrected(ppm: int, jitter: str) -> None:
    """In 400 s of a camera's audio, no sample is far from where its timestamp puts it."""
    wrong = {**PATTERNS, "exact": exact}[jitter]
    (run,) = steered(packets(10_000, lambda n: n * PACKET / RATE * ppm / 1e6 + wrong(n)))
    lasts_s = 400 * (1 + ppm / 1e6)
    followed_late_s = (LASTING_S + 5) * abs(ppm) / 1e6 + float(SLACK_S) + (0.12 if jitter == "uniform" else 0)
    assert len(run.samples) / RATE == pytest.approx(lasts_s, abs=followed_late_s)
    if jitter == "exact" and abs(ppm) > 500:
        assert len(run.samples) != 10_000 * PACKET


def test_correcting_a_clock_keeps_a_tone() -> None:
    sound = tone(60, RATE, hz=440)
    items = [
        (Fraction(n * PACKET, RATE) * Fraction(1_001, 1_000), sound[n * PACKET : (n + 1) * PACKET])
        for n in range(len(sound) // PACKET)
    ]
    (run,) = steered(items)
    spectrum = np.abs(np.fft.rfft(run.samples[20 * RATE : 52 * RATE] * np.hanning(32 * RATE)))
    at_hz = np.fft.rfftfreq(32 * RATE, 1 / RATE)
    aside = spectrum[(at_hz < 400) | (at_hz > 480)]
    assert 20 * np.log10(aside.max() / spectrum.max()) < -55  # each thousandth sample dropped instead: -40


@settings(max_examples=60)
@given(
    steps_ms=st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from([0, 0, 0, 20, 40, 300, 1_900, 5_000, -21, -300, -5_000])),
        min_size=1,
        max_size=8,
    ),
    ppm=st.sampled_from([0, 0, 1_000, -5_000]),
    jitter_ms=st.sampled_from([0, 0, 1, 60]),
    cuts=st.lists(st.integers(1, 700), min_size=1, max_size=40),
    seed=st.integers(0, 5),
    on_arrival=st.booleans(),
)
def test_cutting_packets_changes_nothing(
    steps_ms: list[tuple[int, int]], ppm: int, jitter_ms: int, cuts: list[int], seed: int, on_arrival: bool
) -> None:
    random = np.random.default_rng(seed)
    step_s, errors = 10.0, []
    for count, step_ms in steps_ms:
        step_s += step_ms / 1000
        errors += [step_s + float(random.uniform(-1, 1)) * jitter_ms / 1000 for _ in range(8 * count)]
    items = packets(len(errors), lambda n: errors[n] + n * PACKET / RATE * ppm / 1e6, seed=seed)
    parts: list[Packet] = []
    for index, (time, samples) in enumerate(items):
        cut = cuts[index % len(cuts)] % len(samples)
        assert time is not None
        parts += [(time, samples[:cut])] * (cut > 0) + [(time + Fraction(cut, RATE), samples[cut:])]
    assert same(
        steered(items, Steering(stamped_on_arrival=on_arrival)),
        steered(parts, Steering(stamped_on_arrival=on_arrival)),
    )


def test_at_most_half_a_second_is_held() -> None:
    steering = Steering()
    came = went = 0
    for time, samples in packets(500, lambda n: uniform(n) + (0.7 if n > 200 else 0) + (3 if n > 300 else 0)):
        came += len(samples)
        went += sum(len(sound.samples) for sound in steering.push(time, RATE, samples))
        assert came - went <= 2 * RATE  # each time that it gets smaller, the wait begins anew
        assert steering.settled == (came == went)


def test_audio_without_timestamps_is_continuous() -> None:
    items: list[Packet] = [(None, np.ones(PACKET, np.float32))] * 100
    (run,) = steered(items)
    assert (run.time, len(run.samples)) == (Fraction(0), 100 * PACKET)


def test_a_little_audio_without_timestamps_is_returned_at_the_end() -> None:
    assert steered([]) == []
    (run,) = steered([(None, np.ones(PACKET, np.float32))])
    assert (run.time, len(run.samples)) == (Fraction(0), PACKET)


def test_audio_before_the_first_timestamp_is_placed_by_it() -> None:
    items: list[Packet] = [(None, np.ones(PACKET, np.float32))] * 2 + packets(10, lambda _: 50.0)
    (run,) = steered(items)
    assert (run.time, len(run.samples)) == (50 - Fraction(2 * PACKET, RATE), 12 * PACKET)


# Timestamps that say when packets came --------------------------------------------------------------------------------


def arrivals(segment_s: float, seconds: float = 120, first_s: float = 0.0) -> list[Packet]:
    """Segments of audio that each arrive at once when complete; the first `first_s` seconds arrive together."""
    each = PACKET / RATE
    return packets(
        round(seconds / each),
        lambda n: max(first_s, (n * each) // segment_s * segment_s) + 0.0002 * n % segment_s - n * each,
    )


@pytest.mark.parametrize("segment_s", [0.5, 2, 6, 10, 20])
@pytest.mark.parametrize("first_s", [0.0, 18.0])
def test_bursts_leave_the_audio_whole(segment_s: float, first_s: float) -> None:
    items = arrivals(segment_s, first_s=first_s)
    (run,) = steered(items, Steering(stamped_on_arrival=True))
    assert np.array_equal(run.samples, joined(items))


def test_a_network_that_stops_and_catches_up_loses_nothing() -> None:
    items = packets(1_000, lambda n: max(0.0, 4.0 - (n - 300) * PACKET / RATE) if n >= 300 else 0.0)
    (run,) = steered(items, Steering(stamped_on_arrival=True))
    assert np.array_equal(run.samples, joined(items))


# Stretching -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [-8, -1, 1, 8])
def test_stretched_is_bandlimited_interpolation(more: int) -> None:
    for hz in (100.0, 1_000.0, 5_000.0):
        at = np.arange(1_600)
        sound = np.sin(2 * np.pi * hz * at / 16_000).astype(np.float32)
        exact = np.sin(2 * np.pi * hz * np.arange(1_600 + more) * 1_600 / (1_600 + more) / 16_000)
        got = stretched(sound, 1_600 + more)
        assert got.dtype == np.float32
        assert np.abs(got - exact)[32:-32].max() < 2e-3
        assert got[0] == pytest.approx(sound[0], abs=1e-6)
