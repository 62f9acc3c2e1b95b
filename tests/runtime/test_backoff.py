import random

from hypothesis import given
from hypothesis import strategies as st

from streamer.runtime.backoff import Backoff, BackoffLimits

LIMITS = BackoffLimits(1.0, 60.0, 30.0, 60.0, 900.0)


def highest(low: float, high: float) -> float:
    assert low == 0.0
    return high


def test_limits_double_up_to_the_longest_wait() -> None:
    backoff = Backoff(LIMITS, highest)
    assert [backoff.lost(0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_thirty_healthy_seconds_reset_the_waits() -> None:
    backoff = Backoff(LIMITS, highest)
    for _ in range(5):
        backoff.lost(29.9)
    assert backoff.lost(30.0) == 1.0
    assert backoff.lost(0.0) == 2.0


@given(st.lists(st.floats(0, 100), max_size=50), st.integers(0, 2**32))
def test_waits_are_never_longer_than_the_last_limit(healthy_s: list[float], seed: int) -> None:
    backoff = Backoff(LIMITS, random.Random(seed).uniform)
    assert all(0.0 <= backoff.lost(one) <= 60.0 for one in healthy_s)


def test_after_a_refusal_attempts_are_rare() -> None:
    backoff = Backoff(LIMITS, lambda low, high: low)
    assert [backoff.lost(0.0, refused=True) for _ in range(6)] == [60, 120, 240, 480, 900, 900]
    assert backoff.refusals == 6


def test_only_media_resets_the_waits_after_refusals() -> None:
    backoff = Backoff(LIMITS, lambda low, high: low)
    backoff.lost(0.0, refused=True)
    backoff.lost(0.0)  # the camera is rebooting
    assert backoff.lost(0.0, refused=True) == 120
    assert backoff.lost(0.1) == 0.0
    assert (backoff.refusals, backoff.lost(0.0, refused=True)) == (0, 60)


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 2**32))
def test_a_wait_after_a_refusal_is_never_shorter_than_its_limit(refused: list[bool], seed: int) -> None:
    backoff = Backoff(LIMITS, random.Random(seed).uniform)
    assert all(60.0 <= backoff.lost(0.0, refused=True) <= 1080.0 for one in refused if one)
