"""Cells of picture networks: each has the right picture, and each picture is computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from streamer.features.pictures import BATCH, Pictures, PictureSpec
from streamer.networks.backends import TorchNetwork
from streamer.types import CELL, SAMPLE_RATE_HZ, Cells, Chunk, Picture

HOLD = SAMPLE_RATE_HZ


class Corner(nn.Module):
    """Costs nothing, and tells pictures apart: their first 4096 bytes. It counts what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        return pixels.flatten(1)[:, :4096].float()


def light(hold_s: float = 1.0, still: float = 0.0, every_cells: int = 1) -> tuple[Pictures, Corner]:
    network = Corner()
    spec = PictureSpec(hold_s=hold_s, still=still, every_cells=every_cells)
    return Pictures("vgg16", 4096, spec, TorchNetwork(network)), network


def picture(number: int) -> NDArray[np.uint8]:
    pixels = np.zeros((224, 224, 3), np.uint8)
    pixels.reshape(-1)[:4] = [number % 256, number // 256 % 256, number // 65_536, 1]
    return pixels


def numbers(cells: Cells) -> list[int | None]:
    """Which picture each cell has; None where it is not valid."""
    rows = cells.values[:, :3].astype(int) @ [1, 256, 65_536]
    assert not cells.values[~cells.valid].any()
    assert (cells.values[cells.valid, 3] == 1).all()
    return [int(row) if valid else None for row, valid in zip(rows, cells.valid, strict=True)]


def joined(parts: list[Cells]) -> Cells:
    assert [part.start for part in parts] == list(np.cumsum([0, *(len(part) for part in parts[:-1])]))
    return Cells(0, np.concatenate([p.values for p in parts]), np.concatenate([p.valid for p in parts]))


def at_rate(pictures_hz: float, seconds: float) -> list[int]:
    return [round(number * SAMPLE_RATE_HZ / pictures_hz) for number in range(round(pictures_hz * seconds))]


def shown(factory: Pictures, times: list[int], cells: int, strides: dict[int, int] | None = None) -> Cells:
    """Pictures 0, 1, ... at `times` through an extractor; `strides`: picture -> the stride from in front of it on."""
    extractor = factory.new()
    parts = []
    for number, at in enumerate(times):
        extractor.stride = (strides or {}).get(number, extractor.stride)
        parts.append(extractor.push(Picture(at, picture(number))))
    return joined([*parts, extractor.flush(cells)])


def nearest(times: list[int], cell: int, hold: int = HOLD) -> int | None:
    """The rule, by looking at all pictures."""
    middle = cell * CELL + CELL // 2
    inside = [number for number, at in enumerate(times) if at // CELL == cell]
    if inside:
        return min(inside, key=lambda number: (abs(times[number] - middle), number))
    before = [number for number, at in enumerate(times) if at < cell * CELL]
    return before[-1] if before and middle - times[before[-1]] <= hold else None


@settings(max_examples=150)
@given(
    times=st.lists(st.integers(0, 40 * CELL), max_size=60, unique=True).map(sorted),
    more=st.integers(0, 40),
    hold_s=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_each_cell_has_the_picture_nearest_to_its_centre_or_the_last(
    times: list[int], more: int, hold_s: float
) -> None:
    factory, network = light(hold_s)
    cells = (times[-1] // CELL + 1 if times else 0) + more
    expected = [nearest(times, cell, factory.hold) for cell in range(cells)]
    assert numbers(shown(factory, times, cells)) == expected
    assert sum(network.batches) == len({number for number in expected if number is not None})  # each once
    assert max(network.batches, default=0) <= BATCH


@settings(max_examples=100)
@given(
    times=st.lists(st.integers(0, 60 * CELL), min_size=1, max_size=60, unique=True).map(sorted),
    stride=st.sampled_from([1, 2, 4, 8, 16]),
)
def test_a_stride_computes_every_so_many_cells_and_holds_between(times: list[int], stride: int) -> None:
    factory, network = light()
    cells = times[-1] // CELL + 1
    whole = [nearest(times, cell) for cell in range(cells)]
    expected = [whole[cell - cell % stride] for cell in range(cells)]
    assert numbers(shown(factory, times, cells, {0: stride})) == expected
    assert sum(network.batches) <= -(-cells // stride)


def test_a_stride_is_one_of_the_cells_that_the_spec_has_computed() -> None:
    times = at_rate(25, 4)
    whole = numbers(shown(light()[0], times, 60))
    for every, stride in ((4, 1), (2, 2), (2, 4)):
        factory, network = light(every_cells=every)
        held = every * stride
        assert numbers(shown(factory, times, 60, {0: stride})) == [whole[cell - cell % held] for cell in range(60)]
        assert sum(network.batches) == -(-60 // held)
        assert factory.spec()["every_cells"] == every


def test_strides_change_on_the_way() -> None:
    factory, network = light()
    times = at_rate(SAMPLE_RATE_HZ / CELL, 72 * CELL / SAMPLE_RATE_HZ)  # one picture at the beginning of each cell
    found = numbers(shown(factory, times, 72, {0: 16, 24: 1, 40: 0, 56: 4}))
    # A batch goes by the stride at the push that completes it: that of the picture behind its last centre.
    assert found[:16] == [0] * 16
    assert found[16:24] == list(range(16, 24))
    assert found[24:32] == list(range(24, 32))
    assert found[32:48] == [None] * 16
    assert found[48:] == [cell - cell % 4 for cell in range(48, 72)]
    assert sum(network.batches) == 1 + 16 + 24 // 4


def test_without_pictures_wanted_nothing_is_computed() -> None:
    factory, network = light()
    assert numbers(shown(factory, at_rate(25, 2), 30, {0: 0})) == [None] * 30
    assert network.batches == []


@pytest.mark.parametrize(("pictures_hz", "computed"), [(60, 150), (25, 150), (15, 150), (5, 50), (2, 20)])
def test_any_picture_rate_fills_all_cells_and_computes_no_picture_twice(pictures_hz: float, computed: int) -> None:
    factory, network = light()
    found = numbers(shown(factory, at_rate(pictures_hz, 10), 151))
    assert None not in found
    assert abs(sum(network.batches) - computed) <= 1
    worst = max(
        abs(round(number * SAMPLE_RATE_HZ / pictures_hz) - cell * CELL - CELL // 2)
        for cell, number in enumerate(found)
        if number is not None
    )
    assert worst <= max(CELL // 2, SAMPLE_RATE_HZ / pictures_hz + CELL // 2)


def test_a_picture_is_held_no_longer_than_the_spec_says() -> None:
    factory, _ = light(hold_s=1.0)
    found = numbers(shown(factory, [0, 45 * CELL], 60))
    held = [cell for cell in range(60) if cell * CELL + CELL // 2 <= SAMPLE_RATE_HZ]
    assert found == [0] * len(held) + [None] * (45 - len(held)) + [1] * 15


def test_pictures_that_begin_late_leave_the_cells_before_masked() -> None:
    factory, _ = light()
    assert numbers(shown(factory, [5 * CELL + 10], 8)) == [None] * 5 + [0] * 3


def test_a_cell_comes_out_when_no_nearer_picture_can_come() -> None:
    factory, _ = light()
    extractor = factory.new()
    last_centre = 7 * CELL + CELL // 2
    assert len(extractor.push(Picture(last_centre - 1, picture(0)))) == 0
    assert len(extractor.push(Picture(last_centre, picture(1)))) == 8
    assert len(extractor.flush(8)) == 0
    assert len(extractor.flush(12)) == 4


def test_the_end_of_the_epoch_is_the_end() -> None:
    factory, _ = light()
    extractor = factory.new()
    extractor.push(Picture(5 * CELL, picture(0)))
    assert len(extractor.flush(3)) == 3


def test_pictures_that_pause_for_an_hour_take_no_memory() -> None:
    factory, _ = light()
    extractor = factory.new()
    extractor.push(Picture(0, picture(0)))
    before = resident_bytes()
    cells = extractor.push(Picture(3600 * SAMPLE_RATE_HZ, picture(1)))
    assert len(cells) == 54_344 // 8 * 8  # 890 MB, if they were written
    assert numbers(Cells(0, cells.values[:20], cells.valid[:20])) == [0] * 15 + [None] * 5
    assert not cells.valid[20:].any()
    assert resident_bytes() - before < 20e6


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_does_not_grow_with_the_stream() -> None:
    factory, _ = light()
    extractor = factory.new()
    for number, at in enumerate(at_rate(25, 60)):
        extractor.push(Picture(at, picture(number)))
        assert len(extractor._chosen) < BATCH


def test_what_is_not_the_next_picture_is_refused() -> None:
    extractor = light()[0].new()
    with pytest.raises(ValueError, match="pictures of 224 x 224"):
        extractor.push(Chunk(SAMPLE_RATE_HZ, 0, np.zeros(10, np.float32)))
    with pytest.raises(ValueError, match="pictures of 224 x 224"):
        extractor.push(Picture(0, np.zeros((256, 256, 3), np.uint8)))
    extractor.push(Picture(10, picture(0)))
    with pytest.raises(ValueError, match="does not follow"):
        extractor.push(Picture(10, picture(1)))


@pytest.mark.parametrize("hold_s", [-1.0, 61.0, float("nan")])
def test_a_hold_that_makes_no_sense_is_refused(hold_s: float) -> None:
    with pytest.raises(ValueError, match="must be from 0 to 60"):
        PictureSpec(hold_s=hold_s)


def levels(values: list[float], still: float, strides: dict[int, int] | None = None) -> tuple[list[int], Corner]:
    """One picture a cell, each of one level (a fraction: of that share of its pixels); the level that each cell has."""
    factory, network = light(still=still)
    extractor = factory.new()
    parts = []
    for number, value in enumerate(values):
        pixels = np.full((224, 224, 3), int(value), np.uint8)
        pixels.reshape(-1)[round((1 - value % 1) * pixels.size) :] += 1
        pixels[0, 0] = number, 1, 1  # does not count: 3 of 150,528 bytes
        extractor.stride = (strides or {}).get(number, extractor.stride)
        parts.append(extractor.push(Picture(number * CELL, pixels)))
    cells = joined([*parts, extractor.flush(len(values))])
    assert cells.valid.all()
    return cells.values[:, 0].astype(int).tolist(), network


def test_a_still_picture_has_the_vector_of_the_last_computed_one() -> None:
    noise = [100.5, 100.0, 100.8, 100.2, 100.6, 150.0, 150.4, 100.0, 100.4, 100.0]
    assert levels(noise, still=0.9)[0] == [0, 0, 0, 0, 0, 5, 5, 7, 7, 7]
    found, network = levels(noise, still=0.0)
    assert found == list(range(10))
    assert sum(network.batches) == 10
    assert sum(levels(noise * 3, still=0.9)[1].batches) == 7  # also from one batch of cells to the next


def test_slow_changes_add_up_until_they_are_seen() -> None:
    ramp = [100 + 0.25 * number for number in range(16)]
    assert levels(ramp, still=0.9)[0] == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]


def test_the_threshold_itself_is_a_change() -> None:
    factory, _ = light(still=0.5)
    dark, half = np.zeros((224, 224, 3), np.uint8), np.zeros((224, 224, 3), np.uint8)
    half[:112] = 1
    assert not factory.is_still(Picture(1, half), Picture(0, dark))
    half[0, 0, 0] = 0
    assert factory.is_still(Picture(1, half), Picture(0, dark))
    assert factory.is_still(Picture(0, dark), Picture(1, half))


def test_stillness_and_strides_together_compute_less() -> None:
    noise = [100.2 + 0.1 * (number % 5) for number in range(32)]
    found, network = levels(noise, still=0.9, strides={0: 4})
    assert found == [0] * 32
    assert sum(network.batches) == 1


def test_a_picture_after_a_pause_is_computed_though_it_is_the_same() -> None:
    factory, network = light(hold_s=0.0, still=200.0)
    found = numbers(shown(factory, [0, CELL, 4 * CELL], 6))
    assert found == [0, 0, None, None, 2, None]
    assert sum(network.batches) == 2


def test_a_spec_says_still_only_where_it_is_used() -> None:
    assert "still" not in light()[0].spec()
    assert PictureSpec(**light(still=0.9)[0].spec()).still == 0.9


@pytest.mark.parametrize("still", [-0.1, 256.0, float("nan")])
def test_a_stillness_that_makes_no_sense_is_refused(still: float) -> None:
    with pytest.raises(ValueError, match="must be from 0 to 255"):
        PictureSpec(still=still)
