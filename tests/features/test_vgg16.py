"""VGG16 cells: against torchvision, and each cell the right picture."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from streamer.errors import WeightsError
from streamer.features import EXTRACTORS
from streamer.features.vgg16 import BATCH, Vgg16, Vgg16Spec
from streamer.networks.backends import TorchNetwork
from streamer.networks.vgg16 import network_of
from streamer.networks.weights import WeightsStore
from streamer.types import CELL, SAMPLE_RATE_HZ, Cells, Chunk, Picture, Want

HERE = Path("vgg16.pth")
HOLD = SAMPLE_RATE_HZ


class Corner(nn.Module):
    """Costs nothing, and tells pictures apart: their first 4096 bytes. It counts what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        return pixels.flatten(1)[:, :4096].float()


def light(hold_s: float = 1.0) -> tuple[Vgg16, Corner]:
    network = Corner()
    return Vgg16(Vgg16Spec(hold_s=hold_s), TorchNetwork(network)), network


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


def shown(factory: Vgg16, times: list[int], cells: int, strides: dict[int, int] | None = None) -> Cells:
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


def test_fc7_is_torchvisions(vgg16_weights: dict[str, Tensor]) -> None:
    assert sum(tensor.numel() for tensor in vgg16_weights.values()) == 138_357_544
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    pixels[1, :, :112] //= 4
    found = Vgg16(Vgg16Spec(), TorchNetwork(network_of(vgg16_weights, HERE))).embed(pixels)

    with torch.device("meta"):
        theirs = torchvision.models.vgg16()
    theirs.load_state_dict(vgg16_weights, assign=True)
    theirs.eval()
    prepare = torchvision.models.VGG16_Weights.IMAGENET1K_V1.transforms()
    with torch.inference_mode():
        pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        resized = torchvision.transforms.functional.normalize(pictures / 255, prepare.mean, prepare.std)
        fc7 = theirs.classifier[:5](theirs.avgpool(theirs.features(resized)).flatten(1))
    difference = (torch.from_numpy(found) - fc7).abs().max().item()
    print(f"fc7: max abs difference {difference:.1e}, standard deviation {fc7.std():.1f}")
    assert fc7.std() > 0.5
    assert difference < 1e-4


def test_the_full_network_on_cells_from_its_file(vgg16_file: Path) -> None:
    """2 pictures in 10 cells: each is computed once, and what it gives is what it gives alone."""
    made = EXTRACTORS["vgg16"]({"hold_s": 0.5}, WeightsStore(vgg16_file.parent))
    sha256 = hashlib.sha256(vgg16_file.read_bytes()).hexdigest()
    assert isinstance(made, Vgg16)
    assert made.spec() == {"hold_s": 0.5, "weights_sha256": sha256}
    assert (made.name, made.shape, made.want) == ("vgg16", (4096,), Want(pictures=True))
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    extractor = made.new()
    parts = [extractor.push(Picture(at, pixels[place])) for place, at in enumerate((2 * CELL, 6 * CELL))]
    cells = joined([*parts, extractor.flush(10)])
    assert cells.valid.tolist() == [False, False, *[True] * 8]
    assert all(np.array_equal(cells.values[2], cells.values[cell]) for cell in range(3, 6))
    assert all(np.array_equal(cells.values[6], cells.values[cell]) for cell in range(7, 10))
    assert np.abs(cells.values[[2, 6]] - made.embed(pixels)).max() < 1e-4
    assert np.abs(cells.values[2] - cells.values[6]).max() > 0.1
    with pytest.raises(WeightsError, match=r"with SHA-256 00000000\.\.\. are needed, but .*vgg16\.pth has"):
        EXTRACTORS["vgg16"]({"weights_sha256": "0" * 64}, WeightsStore(vgg16_file.parent))


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
        Vgg16Spec(hold_s=hold_s)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"features.0.weight": torch.zeros(64, 1, 3, 3)},
            "'features.0.weight' is [64, 1, 3, 3], expected [64, 3, 3, 3]",
        ),
        ({"classifier.3.bias": None}, "found 31 tensors, without 'classifier.3.bias' [4096]"),
        ({"features.1.running_mean": torch.zeros(64)}, "found 33 tensors, with 'features.1.running_mean' [64]"),
    ],
)
def test_other_weights_are_refused_in_one_line(
    vgg16_weights: dict[str, Tensor], change: dict[str, Tensor | None], expected: str
) -> None:
    tensors = {name: tensor for name, tensor in {**vgg16_weights, **change}.items() if tensor is not None}
    with pytest.raises(WeightsError) as caught:
        network_of(tensors, Path("/somewhere/other.pth"))
    assert expected in str(caught.value)
    assert "/somewhere/other.pth: are not those of torchvision's VGG16" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_the_layer_of_classes_is_enough(vgg16_weights: dict[str, Tensor]) -> None:
    network_of({name: one for name, one in vgg16_weights.items() if not name.startswith("classifier.6")}, HERE)
