"""The hop of live streams gets longer while the worker is behind, and shorter when there is room."""

from __future__ import annotations

from streamer.runtime.hop_stretch import STRETCHES, HopStretch


class Machine:
    """A machine on which scoring all streams once a hop takes `cost` of its time."""

    def __init__(self, cost: float, other: float = 0.1) -> None:
        self.cost, self.other = cost, other
        self.stretch, self.now_s, self.lag_s = HopStretch(), 0.0, 0.0
        self.changes = 0

    def run(self, seconds: float, most: int = 8) -> None:
        for _ in range(int(2 * seconds)):
            self.now_s += 0.5
            windows = self.cost / self.stretch.factor
            needed = windows + self.other
            self.lag_s = max(0.0, self.lag_s + 0.5 * (needed - 1.0))
            busy = 1.0 if self.lag_s else needed
            before = self.stretch.factor
            self.stretch.update(self.now_s, self.lag_s, min(busy, 1.0), min(windows, 1.0), most)
            self.changes += self.stretch.factor != before


def test_a_machine_with_room_changes_nothing() -> None:
    machine = Machine(0.6)
    machine.run(600.0)
    assert (machine.stretch.factor, machine.changes) == (1, 0)


def test_a_slow_machine_scores_less_often_until_it_keeps_up() -> None:
    machine = Machine(3.0)
    machine.run(60.0)
    assert machine.stretch.factor == 4
    assert machine.lag_s < 5.0
    changes = machine.changes
    machine.run(600.0)
    assert machine.lag_s == 0.0
    assert machine.changes == changes  # it does not try what the measured cost rules out


def test_it_recovers_when_the_load_is_gone() -> None:
    machine = Machine(6.0)
    machine.run(60.0)
    assert machine.stretch.factor == 8
    machine.cost = 0.3
    machine.run(60.0)
    assert machine.stretch.factor == 1


def test_a_cell_always_fits_into_a_window() -> None:
    machine = Machine(100.0)
    machine.run(60.0, most=3)
    assert machine.stretch.factor == 2
    machine.run(60.0, most=0)  # not even once: as configured
    assert machine.stretch.factor == 1


def test_no_step_is_taken_before_the_last_one_could_work() -> None:
    stretch = HopStretch()
    seen = [stretch.update(now_s / 2, 3.0, 1.0, 0.9, 8) for now_s in range(20)]
    assert seen == sorted(seen)
    assert [seen.count(factor) for factor in STRETCHES[1:-1]] == [4, 4]  # of half a second each
