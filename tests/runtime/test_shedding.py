import itertools

import pytest

from streamer.runtime.shedding import CELLS_PER_S, STRIDES, PictureStride


class Machine:
    """A worker on a virtual clock: `picture_s` per picture, and a lag that grows if all work exceeds real time."""

    def __init__(self, picture_s: float, other: float = 0.1, budget: float = 0.5, streams: int = 1) -> None:
        self.picture_s, self.other, self.streams = picture_s, other, streams
        self.stride = PictureStride(budget)
        self.now_s = self.lag_s = 0.0
        self.seen = [self.stride.stride]

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.now_s += 0.5
            stride = self.stride.stride
            pictures = 0.5 * self.streams * CELLS_PER_S / stride if stride else 0.0
            busy_s = 0.5 * self.other + pictures * self.picture_s
            self.lag_s = max(0.0, self.lag_s + busy_s - 0.5)
            self.stride.measured(self.now_s, pictures * self.picture_s, pictures)
            after = self.stride.update(self.now_s, self.lag_s, self.streams)
            if after != self.seen[-1]:
                self.seen.append(after)


def test_begins_coarse_and_refines_as_far_as_the_machine_allows() -> None:
    machine = Machine(picture_s=0.005)
    machine.run(200)
    assert machine.seen == [16, 8, 4, 2, 1]
    assert machine.lag_s == 0


def test_full_vgg16_on_a_small_machine_never_delays_audio() -> None:
    machine = Machine(picture_s=0.25)
    machine.run(300)
    assert machine.seen == [16]
    assert machine.lag_s == 0


def test_pictures_that_do_not_fit_at_all_are_off_until_they_do() -> None:
    machine = Machine(picture_s=1.0)
    machine.run(20)
    assert machine.seen == [16, 0]
    assert machine.lag_s < 1.0


def test_falling_behind_sheds_in_order_and_recovers() -> None:
    machine = Machine(picture_s=0.002)
    machine.run(200)
    assert machine.seen[-1] == 1
    machine.other = 1.05  # other programs load the machine: it is too slow even without pictures
    before = len(machine.seen)
    machine.run(40)
    assert machine.seen[before:] == [2, 4, 8, 16, 0]
    machine.other, machine.lag_s = 0.1, 0.0
    machine.run(600)
    assert machine.seen[-1] == 1
    steps = [STRIDES.index(stride) for stride in machine.seen]
    assert all(abs(after - before) == 1 for before, after in itertools.pairwise(steps))


def test_a_refinement_that_never_lasts_is_tried_ever_more_rarely() -> None:
    machine = Machine(picture_s=0.02, other=0.75, budget=1.0)  # stride 1 and lag: 0.3 of real time is too much
    machine.run(600)
    early, late = len(machine.seen), None
    machine.run(600)
    late = len(machine.seen) - early
    assert late < early


@pytest.mark.parametrize("lag_s", [0.5, 0.9])
def test_between_the_thresholds_nothing_changes(lag_s: float) -> None:
    stride = PictureStride(0.5)
    stride.measured(0.0, 0.001, 4)
    stride.measured(3.0, 0.001, 4)
    assert {stride.update(now_s, lag_s, 1) for now_s in range(200)} == {16}


def test_more_streams_share_the_budget() -> None:
    machine = Machine(picture_s=0.01, streams=1)
    machine.run(300)
    assert machine.seen[-1] == 1
    machine.streams = 4
    machine.run(5)
    assert machine.seen[-1] == 2
