"""How loud an event is: right in dB, and the same however the sound comes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.event_level import BACKGROUND_CELLS, CellPowers, EventLevel
from streamer.types import CELL, SAMPLE_RATE_HZ, Chunk, Floats

RNG = np.random.default_rng(7)


def noise(cells: int, level_dbfs: float, offset: float = 0.0) -> Floats:
    return (RNG.normal(0, 10 ** (level_dbfs / 20), cells * CELL) + offset).astype(np.float32)


def measured(samples: Floats, start: int, stop: int, keep_cells: int = 1000) -> EventLevel | None:
    powers = CellPowers(SAMPLE_RATE_HZ, keep_cells)
    powers.push(Chunk(SAMPLE_RATE_HZ, 0, samples))
    return powers.level(start, stop)


def test_a_bark_over_a_quiet_room() -> None:
    samples = np.concatenate([noise(60, -60), noise(20, -20), noise(10, -60)])
    level = measured(samples, 60, 80)
    assert level is not None
    assert level.level_dbfs == pytest.approx(-20, abs=0.2)
    assert level.over_background_db == pytest.approx(40, abs=0.5)


def test_a_constant_offset_of_a_cheap_microphone_is_not_loud() -> None:
    level = measured(noise(40, -50, offset=0.3), 20, 40)
    assert level is not None
    assert level.level_dbfs == pytest.approx(-50, abs=0.2)


def test_earlier_events_are_not_background() -> None:
    barks = [noise(10, -20) if index % 2 else noise(10, -60) for index in range(14)]
    level = measured(np.concatenate([*barks, noise(10, -20)]), 140, 150)
    assert level is not None
    assert level.over_background_db == pytest.approx(40, abs=1)


def test_too_little_before_the_onset_says_nothing_of_the_background() -> None:
    level = measured(noise(40, -20), 10, 40)
    assert level is not None
    assert level.over_background_db is None


def test_digital_silence_has_a_finite_level() -> None:
    samples = np.concatenate([np.zeros(30 * CELL, np.float32), noise(10, -20)])
    assert measured(samples, 0, 30) == EventLevel(-150.0, None)
    level = measured(samples, 30, 40)
    assert level is not None
    assert level.over_background_db == pytest.approx(130, abs=0.5)


def test_a_hole_is_no_silence() -> None:
    powers = CellPowers(SAMPLE_RATE_HZ, 1000)
    powers.push(Chunk(SAMPLE_RATE_HZ, 0, noise(30, -30)))
    powers.push(Chunk(SAMPLE_RATE_HZ, 50 * CELL, noise(30, -30)))
    level = powers.level(40, 60)
    assert level is not None
    assert level.level_dbfs == pytest.approx(-30, abs=0.3)
    assert level.over_background_db == pytest.approx(0, abs=0.5)
    assert powers.level(30, 50) is None


def test_what_is_no_longer_kept_is_not_invented() -> None:
    powers = CellPowers(SAMPLE_RATE_HZ, 10)
    for index in range(40):
        powers.push(Chunk(SAMPLE_RATE_HZ, index * 100 * CELL, noise(100, -30)))
    assert powers.level(0, 100) is None
    newest = powers.level(3990, 4000)
    assert newest is not None
    assert newest.over_background_db == pytest.approx(0, abs=0.5)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40 * CELL - 1)), st.sampled_from([SAMPLE_RATE_HZ, 16_000]))
def test_any_chunking_gives_the_same_level(cuts: list[int], rate_hz: int) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 40 * CELL * rate_hz // SAMPLE_RATE_HZ).astype(np.float32)
    whole, cut = CellPowers(rate_hz, 100), CellPowers(rate_hz, 100)
    whole.push(Chunk(rate_hz, 0, samples))
    edges = [0, *sorted({at for at in cuts if at < len(samples)}), len(samples)]
    for first, last in pairwise(edges):
        cut.push(Chunk(rate_hz, first, samples[first:last]))
    assert cut.level(20, 40) == whole.level(20, 40)
    assert whole.level(20, 40) is not None


def test_the_background_is_at_most_ten_seconds_old() -> None:
    loud_first = np.concatenate([noise(50, -90), noise(BACKGROUND_CELLS, -40), noise(10, -20)])
    level = measured(loud_first, 50 + BACKGROUND_CELLS, 60 + BACKGROUND_CELLS)
    assert level is not None
    assert level.over_background_db == pytest.approx(20, abs=0.5)
