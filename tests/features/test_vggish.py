"""VGGish cells: against plain torchaudio and torch, and the same for any chunking."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from streamer.errors import WeightsError
from streamer.features import EXTRACTORS
from streamer.features.patches import BATCH, centre
from streamer.features.vggish import PATCH, RATE_HZ, Vggish, VggishSpec, mel_filters
from streamer.networks.backends import TorchNetwork
from streamer.networks.vggish import network_of
from streamer.networks.weights import WeightsStore
from streamer.types import CELL, SAMPLE_RATE_HZ, Cells, Chunk, Picture, Want, cells_in

HERE = Path("vggish.pth")


def light(spec: VggishSpec) -> Vggish:
    """A real front end with a network that costs nothing: where cells begin and end does not depend on its size."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Vggish(spec, TorchNetwork(nn.Sequential(nn.Flatten(), nn.Linear(96 * 64, 128))))


LIGHT = light(VggishSpec())


@pytest.fixture(scope="module")
def full(vggish_weights: dict[str, Tensor]) -> Vggish:
    return Vggish(VggishSpec(), TorchNetwork(network_of(vggish_weights, HERE)))


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def cells_at_16k(samples: int) -> int:
    return cells_in(samples * SAMPLE_RATE_HZ // RATE_HZ)


def joined(parts: list[Cells]) -> Cells:
    assert [part.start for part in parts] == list(np.cumsum([0, *(len(part) for part in parts[:-1])]))
    return Cells(0, np.concatenate([p.values for p in parts]), np.concatenate([p.valid for p in parts]))


def chunked(factory: Vggish, samples: NDArray[np.float32], cuts: list[int]) -> Cells:
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    extractor = factory.new()
    parts = [extractor.push(Chunk(RATE_HZ, start, samples[start:stop])) for start, stop in pairwise(edges)]
    return joined([*parts, extractor.flush(cells_at_16k(len(samples)))])


def reference_log_mel(patch: NDArray[np.float32]) -> NDArray[np.float64]:
    """(15600,) to (96, 64), with torchaudio's spectrogram and mel triangles drawn by numpy's interpolation."""
    # torch.stft puts a window that is shorter than the FFT in its middle: 56 zeros in front bring it to the beginning.
    spectrum = torchaudio.transforms.Spectrogram(
        n_fft=512, win_length=400, hop_length=160, power=1, center=False, window_fn=torch.hann_window
    ).double()(nn.functional.pad(torch.from_numpy(patch).double(), (56, 56)))
    mel = [2595 * np.log10(1 + hz / 700) for hz in np.arange(257) * 16_000 / 512]
    edges = np.linspace(2595 * np.log10(1 + 125 / 700), 2595 * np.log10(1 + 7500 / 700), 66)
    filters = np.array([np.interp(mel, edges[k : k + 3], [0, 1, 0]) for k in range(64)])
    filters[:, 0] = 0  # tensorflow/models: "HTK excludes the spectrogram DC bin"
    return np.asarray(np.log(filters @ spectrum.numpy() + 0.01).T)


def reference_embedding(weights: dict[str, Tensor], log_mel: Tensor) -> Tensor:
    """(B, 96, 64) to (B, 128): the last dense layer before its ReLU."""
    maps = log_mel[:, None]
    for number in (0, 3, 6, 8, 11, 13):
        maps = nn.functional.conv2d(
            maps, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1
        ).relu()
        if number not in (6, 11):
            maps = nn.functional.max_pool2d(maps, 2)
    out = maps.transpose(1, 3).transpose(1, 2).reshape(len(maps), -1)  # as torchvggish writes it
    for number in (0, 2, 4):
        out = nn.functional.linear(
            out.relu() if number else out, weights[f"embeddings.{number}.weight"], weights[f"embeddings.{number}.bias"]
        )
    return out


def test_the_front_end_is_vggishs() -> None:
    patches = np.stack([noise(PATCH, 1), noise(PATCH, 2) * 8, np.zeros(PATCH, np.float32)])
    expected = np.stack([reference_log_mel(patch) for patch in patches])
    difference = np.abs(LIGHT.log_mel(torch.from_numpy(patches)).numpy() - expected).max()
    print(f"log-mel: max abs difference {difference:.1e}")
    assert difference < 1e-4
    assert np.allclose(expected[2], np.log(0.01))


def test_its_mel_triangles_are_tensorflows_not_torchaudios() -> None:
    theirs = torchaudio.functional.melscale_fbanks(257, 125.0, 7500.0, 64, 16_000, norm=None, mel_scale="htk")
    difference = (mel_filters() - theirs).abs()
    assert 1e-3 < difference.max() < 5e-3  # the same triangles, straight in another scale
    assert not mel_filters()[0].any()
    assert not mel_filters()[4000 * 512 // 16_000 * 2 :].any()


def test_the_network_is_vggishs(full: Vggish, vggish_weights: dict[str, Tensor]) -> None:
    assert sum(tensor.numel() for tensor in vggish_weights.values()) == 72_141_184
    patches = np.stack([noise(PATCH, 1), noise(PATCH, 2) * 8])
    log_mel = np.stack([reference_log_mel(patch) for patch in patches])
    expected = reference_embedding(vggish_weights, torch.from_numpy(log_mel).float())
    found = torch.from_numpy(full.embed(patches))
    difference = (found - expected).abs().max().item()
    print(f"embedding: max abs difference {difference:.1e}, standard deviation {expected.std():.1f}")
    assert expected.std() > 0.5
    assert difference < 1e-4


def test_the_last_relu_is_a_choice(full: Vggish) -> None:
    patches = noise(PATCH)[None]
    with_relu = Vggish(VggishSpec(last_relu=True), full._network).embed(patches)
    assert (full.embed(patches) < 0).any()
    assert np.array_equal(with_relu, np.maximum(full.embed(patches), 0))


def test_cells_are_embeddings_of_the_audio_around_them(full: Vggish, vggish_weights: dict[str, Tensor]) -> None:
    samples = noise(RATE_HZ)
    cells = chunked(full, samples, [])
    assert len(cells) == cells_at_16k(RATE_HZ) == 15
    assert cells.valid.all()
    padded = np.concatenate([np.zeros(7680, np.float32), samples, np.zeros(7680, np.float32)])  # 480 ms each
    wanted = [0, 7, 14]
    patches = []
    for cell in wanted:
        middle = Fraction(CELL * cell + CELL // 2, SAMPLE_RATE_HZ)  # s
        first = round(middle * RATE_HZ) - 7800 + 7680
        patches.append(reference_log_mel(padded[first : first + 15_600]))
    expected = reference_embedding(vggish_weights, torch.from_numpy(np.stack(patches)).float()).numpy()
    difference = np.abs(cells.values[wanted] - expected).max()
    print(f"cells: max abs difference {difference:.1e}")
    assert difference < 1e-4


@given(cell=st.integers(0, 10**12))
def test_a_patch_is_centred_on_its_cell_to_half_a_sample_for_ever(cell: int) -> None:
    middle = Fraction((CELL * cell + CELL // 2) * RATE_HZ, SAMPLE_RATE_HZ)
    assert abs(LIGHT.patch_start(cell) + PATCH // 2 - middle) <= Fraction(1, 2)
    assert 1059 <= LIGHT.patch_start(cell + 1) - LIGHT.patch_start(cell) <= 1061


def test_the_papers_alignment_is_its_chunks_of_ten_seconds() -> None:
    paper = light(VggishSpec(alignment="paper"))
    assert [paper.patch_start(k) for k in range(151)] == [960 * k for k in range(151)]
    assert paper.patch_start(150) + PATCH <= 160_000  # no padding in 10 s
    off_ms = [(paper.patch_start(k) + PATCH // 2 - centre(k, RATE_HZ)) / 16 for k in range(10_000)]
    assert 450 < max(off_ms) < 490  # field of the paper, and bounded in a longer stream
    assert -490 < min(off_ms) < -450
    assert paper.patch_start(151) == round(Fraction(151 * CELL * RATE_HZ, SAMPLE_RATE_HZ))
    assert chunked(paper, noise(160_000), []).valid.all()
    assert chunked(paper, noise(40_000), [20_000]).valid.all()


def test_an_alignment_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="'middle', must be one of centered, paper"):
        VggishSpec(alignment="middle")  # type: ignore[arg-type]


@settings(max_examples=60)
@given(
    length=st.integers(0, 45_000),
    cuts=st.lists(st.integers(0, 45_000), max_size=12),
    seed=st.integers(0, 99),
    paper=st.booleans(),
)
def test_any_chunking_gives_the_same_cells(length: int, cuts: list[int], seed: int, paper: bool) -> None:
    factory = light(VggishSpec(alignment="paper")) if paper else LIGHT
    samples = noise(length, seed)
    once, cells = chunked(factory, samples, []), chunked(factory, samples, cuts)
    assert len(cells) == cells_at_16k(length)
    assert np.array_equal(cells.values, once.values)
    assert np.array_equal(cells.valid, once.valid)
    assert length == 0 or cells.valid.all()


@settings(max_examples=4)
@given(cuts=st.lists(st.integers(0, 26_000), min_size=1, max_size=6))
def test_any_chunking_gives_the_same_cells_of_the_full_network(full: Vggish, cuts: list[int]) -> None:
    samples = noise(26_000)
    once, cells = chunked(full, samples, []), chunked(full, samples, cuts)
    assert len(cells) == 24
    assert np.array_equal(cells.values, once.values)


def test_what_comes_later_changes_no_bit_of_a_cell(full: Vggish) -> None:
    extractor = full.new()
    first = extractor.push(Chunk(RATE_HZ, 0, noise(16_500)))
    assert len(first) == BATCH
    assert np.array_equal(first.values, chunked(full, noise(16_500), [500]).values[:BATCH])


def test_cells_come_out_in_batches_as_soon_as_the_last_one_is_complete() -> None:
    extractor = LIGHT.new()
    enough = LIGHT.patch_start(BATCH - 1) + PATCH
    assert len(extractor.push(Chunk(RATE_HZ, 0, noise(enough - 1)))) == 0
    assert len(extractor.push(Chunk(RATE_HZ, enough - 1, noise(1)))) == BATCH


@settings(max_examples=30)
@given(
    hole=st.tuples(st.integers(0, 60_000), st.integers(1, 30_000)),
    cuts=st.lists(st.integers(0, 60_000), max_size=8),
)
def test_cells_that_touch_a_hole_are_masked_and_the_others_are_not_moved(
    hole: tuple[int, int], cuts: list[int]
) -> None:
    samples = noise(70_000)
    gone = range(hole[0], min(sum(hole), 69_000))
    extractor = LIGHT.new()
    parts = []
    edges = sorted({0, *cuts, gone.start, gone.stop, len(samples)})
    for start, stop in pairwise(edges):
        if start not in gone:
            parts.append(extractor.push(Chunk(RATE_HZ, start, samples[start:stop])))
    cells = joined([*parts, extractor.flush(cells_at_16k(len(samples)))])
    once = chunked(LIGHT, samples, [])
    touched = {
        cell
        for cell in range(len(cells))
        if LIGHT.patch_start(cell) < gone.stop and LIGHT.patch_start(cell) + PATCH > gone.start
    }
    assert {int(cell) for cell in np.flatnonzero(~cells.valid)} == touched
    assert np.array_equal(cells.values[cells.valid], once.values[cells.valid])
    assert not cells.values[~cells.valid].any()


def test_a_hole_of_an_hour_takes_neither_memory_nor_long() -> None:
    extractor = LIGHT.new()
    hour = 3600 * RATE_HZ
    parts = [extractor.push(Chunk(RATE_HZ, 0, noise(20_000))), extractor.push(Chunk(RATE_HZ, hour, noise(20_000)))]
    assert sum(len(samples) for _, samples in extractor._runs) <= 40_000
    cells = joined([*parts, extractor.flush(cells_at_16k(hour + 20_000))])
    assert 20 < cells.valid.sum() < 35
    assert cells.valid[-1]
    assert cells.valid[0]


def test_cells_beyond_the_audio_are_not_invented() -> None:
    extractor = LIGHT.new()
    cells = joined([extractor.push(Chunk(RATE_HZ, 0, noise(10_600))), extractor.flush(30)])
    assert len(cells) == 30
    assert cells.valid.sum() == cells_at_16k(10_600) == 10
    assert not LIGHT.new().flush(5).valid.any()


def test_memory_does_not_grow_with_the_stream() -> None:
    extractor = LIGHT.new()
    for second in range(30):
        extractor.push(Chunk(RATE_HZ, second * RATE_HZ, noise(RATE_HZ)))
        assert sum(len(samples) for _, samples in extractor._runs) < PATCH + BATCH * 1061


def test_what_is_not_the_next_audio_at_16_khz_is_refused() -> None:
    extractor = LIGHT.new()
    with pytest.raises(ValueError, match="16000"):
        extractor.push(Chunk(SAMPLE_RATE_HZ, 0, noise(10)))
    with pytest.raises(ValueError, match="16000"):
        extractor.push(Picture(0, np.zeros((224, 224, 3), np.uint8)))
    extractor.push(Chunk(RATE_HZ, 0, noise(10)))
    with pytest.raises(ValueError, match="overlaps"):
        extractor.push(Chunk(RATE_HZ, 9, noise(10)))


def test_torchaudios_names_are_the_same_network(full: Vggish, vggish_weights: dict[str, Tensor]) -> None:
    theirs = {
        name.replace("features.", "features_network.").replace("embeddings.", "embedding_network."): tensor
        for name, tensor in vggish_weights.items()
    }
    assert "embedding_network.4.bias" in theirs
    other = Vggish(VggishSpec(), TorchNetwork(network_of(theirs, HERE)))
    assert np.array_equal(other.embed(noise(PATCH)[None]), full.embed(noise(PATCH)[None]))


def test_the_pca_of_a_whole_torchvggish_model_is_left_alone(vggish_weights: dict[str, Tensor]) -> None:
    network_of({**vggish_weights, "pproc.pca_eigen_vectors": torch.zeros(128, 128)}, HERE)


def test_half_precision_weights_are_used_in_single(vggish_weights: dict[str, Tensor]) -> None:
    network = network_of({name: tensor.half() for name, tensor in vggish_weights.items()}, HERE)
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"embeddings.0.weight": torch.empty(4096, 24_576, device="meta")},
            "VGGish with 128 mel bins: first dense layer is [4096, 24576], expected [4096, 12288]: 64 mel bins",
        ),
        ({"features.3.weight": torch.zeros(64, 64, 3, 3)}, "'features.3.weight' is [64, 64, 3, 3], expected [128, 64"),
        ({"embeddings.4.bias": None}, "found 17 tensors, without 'embeddings.4.bias' [128]"),
        ({"fc.weight": torch.zeros(3, 2)}, "found 19 tensors, with 'fc.weight' [3, 2]"),
        ({"embeddings.4.bias": torch.zeros(128, dtype=torch.int64)}, "'embeddings.4.bias' is torch.int64"),
    ],
)
def test_other_weights_are_refused_in_one_line(
    vggish_weights: dict[str, Tensor], change: dict[str, Tensor | None], expected: str
) -> None:
    tensors = {name: tensor for name, tensor in {**vggish_weights, **change}.items() if tensor is not None}
    with pytest.raises(WeightsError) as caught:
        network_of(tensors, Path("/somewhere/other.pth"))
    assert expected in str(caught.value)
    assert "/somewhere/other.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_spec_says_which_weights_and_makes_the_same_again(vggish_file: Path) -> None:
    weights = WeightsStore(vggish_file.parent)
    made = EXTRACTORS["vggish"]({"alignment": "paper"}, weights)
    sha256 = hashlib.sha256(vggish_file.read_bytes()).hexdigest()
    assert made.spec() == {"alignment": "paper", "last_relu": False, "weights_sha256": sha256}
    assert (made.name, made.shape, made.want) == ("vggish", (128,), Want(frozenset({16_000})))
    with pytest.raises(WeightsError, match=r"with SHA-256 00000000\.\.\. are needed, but .*vggish\.pth has"):
        EXTRACTORS["vggish"]({"weights_sha256": "0" * 64}, weights)
    with pytest.raises(TypeError):
        EXTRACTORS["vggish"]({"mels": 128}, weights)
