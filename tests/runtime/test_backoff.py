import random

from hypothesis import given
from hypothesis import strategies as st

from streamer.runtime.backoff import Backoff


def highest(low: float, high: float) -> float:
    assert low == 0.0
    return high


def test_limits_double_up_to_the_last() -> None:
    backoff = Backoff(1.0, 60.0, 30.0, highest)
    assert [backoff.lost(0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_thirty_healthy_seconds_forget_what_was() -> None:
    backoff = Backoff(1.0, 60.0, 30.0, highest)
    for _ in range(5):
        backoff.lost(29.9)
    assert backoff.lost(30.0) == 1.0
    assert backoff.lost(0.0) == 2.0


@given(st.lists(st.floats(0, 100), max_size=50), st.integers(0, 2**32))
def test_waits_are_never_longer_than_the_last_limit(healthy_s: list[float], seed: int) -> None:
    backoff = Backoff(1.0, 60.0, 30.0, random.Random(seed).uniform)
    assert all(0.0 <= backoff.lost(one) <= 60.0 for one in healthy_s)
