"""How evenly media arrives, on a virtual clock."""

from __future__ import annotations

import pytest

from streamer.media.pace import MAX_PATIENCE_S, Arrival, Pace

PACKET_S = 0.02


class Reader:
    """Reads packets of 20 ms from a source, and may be delayed between two of them."""

    def __init__(self, opening_s: float = 0.0) -> None:
        self.pace = Pace(opening_s)
        self.now_s = 1000.0

    def wait(self, waited_s: float) -> Arrival:
        """One packet that arrives after `waited_s`."""
        self.now_s += waited_s
        self.pace.push(self.now_s, waited_s, PACKET_S)
        return self.pace.arrival(self.now_s)

    def burst(self, seconds: float, *, held_up_s: float = 0.0002) -> Arrival:
        """Media that is available at once; the reader is busy elsewhere for `held_up_s` before each packet."""
        arrival = self.pace.arrival(self.now_s)
        for _ in range(round(seconds / PACKET_S)):
            self.now_s += held_up_s
            self.pace.push(self.now_s, 0.0, PACKET_S)
            arrival = self.pace.arrival(self.now_s)
        return arrival


def test_even_media_has_no_lead_and_no_patience() -> None:
    reader = Reader()
    arrivals = [reader.wait(PACKET_S) for _ in range(3000)]
    assert max(abs(one.lead_s) for one in arrivals) < 0.3
    assert max(one.patience_s for one in arrivals) < 0.5


@pytest.mark.parametrize("segment_s", [2.0, 6.0, 10.0, 20.0])
def test_a_burst_is_due_as_it_plays_and_allows_for_the_pause_after_it(segment_s: float) -> None:
    reader = Reader()
    began_s = reader.now_s
    reader.burst(3 * segment_s)  # what a playlist holds at the start
    for _ in range(max(10, round(150 / segment_s))):
        first = reader.wait(began_s + segment_s - reader.now_s)
        began_s += segment_s
        assert first.lead_s == pytest.approx(0.0, abs=0.05)
        last = reader.burst(segment_s - PACKET_S)
        assert last.lead_s == pytest.approx(segment_s, abs=0.3)
        assert segment_s < last.patience_s <= MAX_PATIENCE_S
    assert last.patience_s == pytest.approx(1.5 * segment_s, rel=0.2)  # the start is forgotten


def test_a_segment_over_a_slow_line_allows_for_its_pause_too() -> None:
    """It arrives at twice real time, so it is never all available at once."""
    reader = Reader()
    for _ in range(500):
        arrival = reader.wait(PACKET_S / 2)
    assert arrival.lead_s < 0.3
    assert arrival.patience_s >= 5.0


def test_a_hiccup_of_an_even_source_gives_no_lead_to_later_media() -> None:
    reader = Reader()
    for _ in range(100):
        reader.wait(PACKET_S)
    reader.wait(8.0)
    assert reader.burst(8.0 - PACKET_S).lead_s == pytest.approx(8.0, abs=0.3)
    for _ in range(50):
        arrival = reader.wait(PACKET_S)
    assert arrival.lead_s == pytest.approx(0.0, abs=0.3)


def test_a_delayed_reader_is_not_taken_for_a_burst() -> None:
    """A machine at half speed: media is available, but the reader can't keep up."""
    reader = Reader()
    for _ in range(100):
        reader.wait(PACKET_S)
    arrival = reader.burst(20.0, held_up_s=2 * PACKET_S)
    assert arrival.lead_s == pytest.approx(-20.0, abs=0.5)


def test_media_queued_while_opening_an_even_source_is_no_burst() -> None:
    reader = Reader(opening_s=3.0)
    reader.burst(3.0)
    for _ in range(100):
        arrival = reader.wait(PACKET_S)
    assert arrival.lead_s == pytest.approx(0.0, abs=0.3)
    assert arrival.patience_s < 0.5


def test_nothing_is_known_before_the_first_packet() -> None:
    assert Pace().arrival(5.0) == Arrival(0.0, 0.0)
    assert Pace().burst_s == 0.0
