"""mn04's cells: against a double-precision network written apart, in any chunking, and computed once for two."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from streamer.errors import WeightsError
from streamer.features import EXTRACTORS
from streamer.features.base import ExtractorFactory
from streamer.features.extraction import Extraction
from streamer.features.mn04 import (
    PATCH,
    RATE_HZ,
    Mapped,
    Mn04,
    Mn04Scores,
    Mn04ScoresSpec,
    Mn04Spec,
    Mn04Values,
    Patches,
)
from streamer.features.patches import BATCH, centre
from streamer.networks.backends import TorchNetwork
from streamer.networks.mn04 import network_of
from streamer.networks.weights import WeightsStore, default_weights_folder, read_tensors
from streamer.types import CELL, SAMPLE_RATE_HZ, Cells, Chunk, Picture, Want, cells_in
from tests import mn04_reference
from tests.weights import mn04_tensors

HERE = Path("mn04.pth")
WEIGHTS = mn04_tensors(4)
# The published weights too, on a machine that has them: `earwitness weights fetch mn04`.
CHECKPOINTS: dict[str, dict[str, Tensor]] = {"seeded": WEIGHTS} | {
    path.name: read_tensors(path) for path in WeightsStore(default_weights_folder(os.environ)).here("mn04")
}
FULL = Mn04(TorchNetwork(network_of(WEIGHTS, HERE)))
VALUES, SCORES = Mn04Values(Mn04Spec(), FULL), Mn04Scores(Mn04ScoresSpec(), FULL)


class Light(nn.Module):
    """Costs nothing, and counts its runs: where cells begin and end does not depend on the network."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        self.runs += 1
        values = frames.flatten(1)
        return values[:, :: 128 * 96 // 384], values[:, -527:]


EVERY = Patches()


def light(patches: Patches = EVERY) -> tuple[dict[str, ExtractorFactory], Light]:
    network = Light()
    shared = Mn04(TorchNetwork(network))
    values = Mn04Spec(every_cells=patches.every_cells, alignment=patches.alignment)
    scores = Mn04ScoresSpec(every_cells=patches.every_cells, alignment=patches.alignment)
    return {"mn04": Mn04Values(values, shared), "mn04_scores": Mn04Scores(scores, shared)}, network


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def cells_at_32k(samples: int) -> int:
    return cells_in(samples * SAMPLE_RATE_HZ // RATE_HZ)


def joined(parts: list[Cells]) -> Cells:
    assert [part.start for part in parts] == list(np.cumsum([0, *(len(part) for part in parts[:-1])]))
    return Cells(0, np.concatenate([p.values for p in parts]), np.concatenate([p.valid for p in parts]))


def chunked(
    factories: Mapping[str, ExtractorFactory], samples: NDArray[np.float32], cuts: list[int]
) -> dict[str, Cells]:
    """The cells of all modalities, as a stream's pipeline pushes them."""
    extraction = Extraction(factories)
    parts: dict[str, list[Cells]] = {name: [] for name in factories}
    for start, stop in pairwise([0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]):
        for name, cells in extraction.push(Chunk(RATE_HZ, start, samples[start:stop])):
            parts[name].append(cells)
    for name, cells in extraction.flush(cells_at_32k(len(samples))).items():
        parts[name].append(cells)
    return {name: joined(of) for name, of in parts.items()}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_front_end_and_network_are_efficientats(checkpoint: str) -> None:
    time = np.arange(PATCH) / RATE_HZ
    beeps = 0.3 * np.sin(2 * np.pi * 3100 * time) * (np.sin(2 * np.pi * 4 * time) > 0)
    patches = np.stack([noise(PATCH, 1), noise(PATCH, 2) * 8, np.zeros(PATCH, np.float32), beeps.astype(np.float32)])
    product = Mn04(TorchNetwork(network_of(CHECKPOINTS[checkpoint], HERE)))
    frames = np.stack([mn04_reference.log_mel(patch) for patch in patches])
    pooled, log_odds = mn04_reference.forward(CHECKPOINTS[checkpoint], frames)
    alone, whole = product._network(frames.astype(np.float32)), product(patches)
    differences = {
        "log-mel": np.abs(product.log_mel(torch.from_numpy(patches)).numpy() - frames).max(),
        "network": max(np.abs(alone[0] - pooled.numpy()).max(), np.abs(alone[1] - log_odds.numpy()).max()),
        "both": max(np.abs(whole[0] - pooled.numpy()).max(), np.abs(whole[1] - log_odds.numpy()).max()),
    }
    print(checkpoint, {name: f"{value:.1e}" for name, value in differences.items()}, f"of {log_odds.std():.2f}")
    assert pooled.std() > 0.1
    assert log_odds.std(dim=0).max() > 0.1  # the patches are not alike
    if checkpoint == "seeded":  # what was not trained makes more of the front end's rounding
        assert differences.pop("both") < 1e-3
    assert max(differences.values()) < 1e-4


def test_cells_are_of_the_audio_around_them() -> None:
    samples = noise(RATE_HZ)
    cells = chunked({"mn04": VALUES, "mn04_scores": SCORES}, samples, [])
    assert len(cells["mn04"]) == cells_at_32k(RATE_HZ) == 15
    padded = np.concatenate([np.zeros(PATCH, np.float32), samples, np.zeros(PATCH, np.float32)])
    wanted = [0, 7, 14]
    frames = []
    for cell in wanted:
        middle = Fraction(CELL * cell + CELL // 2, SAMPLE_RATE_HZ)  # s
        first = round((middle - Fraction(48, 100)) * RATE_HZ) + PATCH
        frames.append(mn04_reference.log_mel(padded[first : first + PATCH]))
    pooled, log_odds = mn04_reference.forward(WEIGHTS, np.stack(frames))
    assert np.abs(cells["mn04"].values[wanted] - pooled.numpy()).max() < 1e-4
    assert np.ptp(cells["mn04"].values[wanted], axis=0).max() > 0.01
    for column, one in enumerate(Mn04ScoresSpec().classes.values()):
        highest = torch.stack([log_odds[:, index] for index in one.audioset]).amax(0)
        expected = torch.sigmoid(one.scale * highest + one.offset).numpy()
        assert np.abs(cells["mn04_scores"].values[wanted, column] - expected).max() < 1e-4


@given(cell=st.integers(0, 10**12))
def test_a_patch_is_centred_on_its_cell_to_half_a_sample_for_ever(cell: int) -> None:
    middle = Fraction((CELL * cell + CELL // 2) * RATE_HZ, SAMPLE_RATE_HZ)
    assert abs(VALUES.patch_start(cell) + PATCH // 2 - middle) <= Fraction(1, 2)
    assert SCORES.patch_start(cell) == VALUES.patch_start(cell)


@settings(max_examples=25)
@given(length=st.integers(0, 50_000), cuts=st.lists(st.integers(0, 50_000), max_size=12), seed=st.integers(0, 99))
def test_any_chunking_gives_the_same_cells(length: int, cuts: list[int], seed: int) -> None:
    samples = noise(length, seed)
    once, cells = chunked(light()[0], samples, []), chunked(light()[0], samples, cuts)
    for name in once:
        assert len(cells[name]) == cells_at_32k(length)
        assert np.array_equal(cells[name].values, once[name].values)
        assert np.array_equal(cells[name].valid, once[name].valid)
        assert length == 0 or cells[name].valid.all()


@pytest.mark.parametrize("alignment", ["centered", "trailing"])
@pytest.mark.parametrize("every", [1, 2, 4, 8])
def test_cells_that_share_a_patch_have_that_of_their_middle_or_of_their_end(every: int, alignment: Any) -> None:
    samples = noise(3 * RATE_HZ)
    cells = chunked(light(Patches(every_cells=every, alignment=alignment))[0], samples, [5_000, 40_000])["mn04"]
    padded = np.concatenate([np.zeros(PATCH, np.float32), samples, np.zeros(PATCH, np.float32)])
    alone = Mn04Values(Mn04Spec(), Mn04(TorchNetwork(Light())))
    assert len(cells) == 45
    assert cells.valid.all()
    for cell in range(45):
        first = cell - cell % every
        end = Fraction(CELL * (first + every), SAMPLE_RATE_HZ)
        if alignment == "centered":
            end = Fraction(CELL * (2 * first + every), 2 * SAMPLE_RATE_HZ) + Fraction(48, 100)
        stop = round(end * RATE_HZ) + PATCH
        assert np.array_equal(cells.values[cell], alone.embed(padded[None, stop - PATCH : stop])[0])


@example(1590, [], Patches(every_cells=4, alignment="paper"))
@settings(max_examples=25)
@given(
    length=st.integers(0, 50_000),
    cuts=st.lists(st.integers(0, 50_000), max_size=8),
    patches=st.builds(
        Patches, every_cells=st.sampled_from([2, 4, 8]), alignment=st.sampled_from(["centered", "trailing", "paper"])
    ),
)
def test_any_chunking_gives_the_same_shared_cells(length: int, cuts: list[int], patches: Patches) -> None:
    samples = noise(length)
    once, cells = chunked(light(patches)[0], samples, []), chunked(light(patches)[0], samples, cuts)
    for name in once:
        assert len(cells[name]) == cells_at_32k(length)
        assert np.array_equal(cells[name].values, once[name].values)
        assert np.array_equal(cells[name].valid, once[name].valid)
        every = patches.every_cells  # in the paper's alignment, a short clip's patches may begin after its end
        begun = [patches.start(cell - cell % every) < length for cell in range(len(cells[name]))]
        assert cells[name].valid.tolist() == begun


def test_trailing_cells_are_known_when_they_end() -> None:
    ends = {}
    for alignment in ("centered", "trailing"):
        extractor = light(Patches(every_cells=4, alignment=alignment))[0]["mn04"].new()
        samples = noise(2 * RATE_HZ)
        heard = 0
        while not len(extractor.push(Chunk(RATE_HZ, heard, samples[heard : heard + 320]))):
            heard += 320
        ends[alignment] = (heard + 320) / RATE_HZ
    assert ends["trailing"] == pytest.approx(8 * CELL / SAMPLE_RATE_HZ, abs=0.01)
    assert ends["centered"] == pytest.approx(6 * CELL / SAMPLE_RATE_HZ + 0.48, abs=0.01)


def test_the_papers_alignment_is_its_chunks_of_ten_seconds() -> None:
    alone = Patches(alignment="paper")
    assert [alone.start(cell) for cell in range(151)] == [1920 * cell for cell in range(151)]
    assert alone.start(151) == round(Fraction(151 * CELL * RATE_HZ, SAMPLE_RATE_HZ))
    for cell in range(0, 148, 4):  # cells that share a patch have the one in the middle of theirs
        assert Patches(every_cells=4, alignment="paper").start(cell) == (alone.start(cell) + alone.start(cell + 3)) // 2


@pytest.mark.parametrize("fields", [{"every_cells": 3}, {"every_cells": 0}, {"alignment": "leading"}])
def test_other_patches_are_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    for name in ("mn04", "mn04_scores"):
        with pytest.raises(ValueError, match=f"{next(iter(fields))} is .*, must be"):
            EXTRACTORS[name](fields, WeightsStore(tmp_path))


@settings(max_examples=4)
@given(cuts=st.lists(st.integers(0, 52_000), min_size=1, max_size=6))
def test_any_chunking_gives_the_same_cells_of_the_full_network(cuts: list[int]) -> None:
    samples = noise(52_000)
    again = {"mn04": Mn04Values(Mn04Spec(), Mn04(TorchNetwork(network_of(WEIGHTS, HERE))))}
    once, cells = chunked({"mn04": VALUES}, samples, []), chunked(again, samples, cuts)
    assert len(cells["mn04"]) == 24
    assert np.array_equal(cells["mn04"].values, once["mn04"].values)


def test_two_modalities_cost_one_run_of_the_network() -> None:
    factories, network = light()
    samples = noise(10 * RATE_HZ)
    both = chunked(factories, samples, list(range(0, len(samples), 1600)))
    assert network.runs == -(-cells_at_32k(len(samples)) // BATCH) == 19
    for name in factories:
        alone = chunked({name: light()[0][name]}, samples, [])
        assert np.array_equal(alone[name].values, both[name].values)


def test_streams_that_take_turns_keep_their_own_cells() -> None:
    factories, network = light()
    samples = {seed: noise(2 * RATE_HZ, seed) for seed in range(6)}
    streams = {seed: Extraction(factories) for seed in samples}
    found: dict[tuple[int, str], list[Cells]] = {(seed, name): [] for seed in samples for name in factories}
    for start in range(0, 2 * RATE_HZ, 3200):
        for seed, extraction in streams.items():
            for name, cells in extraction.push(Chunk(RATE_HZ, start, samples[seed][start : start + 3200])):
                found[seed, name].append(cells)
    for seed, extraction in streams.items():
        for name, cells in extraction.flush(30).items():
            found[seed, name].append(cells)
    assert network.runs == 6 * 4
    for seed in samples:
        alone = chunked(light()[0], samples[seed], [])
        assert all(np.array_equal(joined(found[seed, name]).values, alone[name].values) for name in factories)


def test_the_results_that_are_kept_are_few() -> None:
    for seed in range(20):
        FULL(np.stack([noise(PATCH, 100 * seed + row) for row in range(BATCH)]))
    assert len(FULL._kept) == 4


@settings(max_examples=15)
@given(hole=st.tuples(st.integers(0, 70_000), st.integers(1, 40_000)))
def test_cells_that_touch_a_hole_are_masked_and_the_others_are_not_moved(hole: tuple[int, int]) -> None:
    samples = noise(90_000)
    gone = range(hole[0], min(sum(hole), 89_000))
    for name, factory in light()[0].items():
        extractor = factory.new()
        parts = [extractor.push(Chunk(RATE_HZ, 0, samples[: gone.start]))]
        parts.append(extractor.push(Chunk(RATE_HZ, gone.stop, samples[gone.stop :])))
        cells = joined([*parts, extractor.flush(cells_at_32k(len(samples)))])
        first = [centre(cell, RATE_HZ) - PATCH // 2 for cell in range(len(cells))]
        touched = [cell for cell, start in enumerate(first) if start < gone.stop and start + PATCH > gone.start]
        assert np.flatnonzero(~cells.valid).tolist() == touched
        assert not cells.values[~cells.valid].any()
        once = chunked({name: factory}, samples, [])[name]
        assert np.array_equal(cells.values[cells.valid], once.values[cells.valid])


def test_what_is_not_audio_at_32_khz_is_refused() -> None:
    for name, factory in light()[0].items():
        for item in (Chunk(16_000, 0, noise(10)), Picture(0, np.zeros((224, 224, 3), np.uint8))):
            with pytest.raises(ValueError, match=f"{name} cells are made from audio at 32000 Hz"):
                factory.new().push(item)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(WEIGHTS, tmp_path / "mn04.pth")
    return tmp_path


def test_the_specs_say_which_weights_and_classes_and_make_the_same_again(folder: Path) -> None:
    weights = WeightsStore(folder)
    made, scores = EXTRACTORS["mn04"]({}, weights), EXTRACTORS["mn04_scores"]({}, weights)
    sha256 = hashlib.sha256((folder / "mn04.pth").read_bytes()).hexdigest()
    assert made.spec() == {"weights_sha256": sha256}
    assert (made.name, made.shape, made.want) == ("mn04", (384,), Want(frozenset({32_000})))
    assert (scores.name, scores.shape, scores.want) == ("mn04_scores", (10,), Want(frozenset({32_000})))
    assert isinstance(made, Mn04Values)
    assert isinstance(scores, Mn04Scores)
    assert made._network is scores._network
    stored = json.loads(json.dumps(scores.spec()))
    assert EXTRACTORS["mn04_scores"](stored, weights).spec() == stored == scores.spec()
    fewer = {"every_cells": 4, "alignment": "trailing"}
    for name in ("mn04", "mn04_scores"):
        again = EXTRACTORS[name](fewer, weights).spec()
        assert again == {**EXTRACTORS[name]({}, weights).spec(), **fewer}
        assert EXTRACTORS[name](again, weights).spec() == again
    own: dict[str, Any] = {"classes": {"Bell": {"audioset": [200, 201], "scale": 2.0, "offset": -1.0}}}
    assert EXTRACTORS["mn04_scores"](own, weights).shape == (1,)
    for name in ("mn04", "mn04_scores"):
        with pytest.raises(WeightsError, match=r"with SHA-256 00000000\.\.\. are needed, but .*mn04\.pth has"):
            EXTRACTORS[name]({"weights_sha256": "0" * 64}, weights)
        with pytest.raises(TypeError):
            EXTRACTORS[name]({"mels": 64}, weights)


def test_without_weights_one_line_says_the_command(tmp_path: Path) -> None:
    for name in ("mn04", "mn04_scores"):
        with pytest.raises(WeightsError) as caught:
            EXTRACTORS[name]({}, WeightsStore(tmp_path))
        assert str(caught.value) == (
            f"mn04 weights are not in {tmp_path}; get them with: earwitness weights fetch mn04"
        )


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ({}, "classes is empty"),
        (["Dog"], "classes must be an object"),
        ({"Dog": {"audioset": []}}, "must be classes from 0 to 526"),
        ({"Dog": {"audioset": [527]}}, "must be classes from 0 to 526"),
        ({"Dog": {"audioset": [74], "scale": 0.0}}, "the scale must be positive"),
        ({"Dog": {"audioset": [74], "offset": float("nan")}}, "the scale must be positive"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(folder: Path, classes: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        EXTRACTORS["mn04_scores"]({"classes": classes}, WeightsStore(folder))


def test_a_score_is_the_calibrated_highest_of_its_classes() -> None:
    spec = Mn04ScoresSpec({"High": Mapped([3, 7], 2.0, 1.0), "Other": Mapped([5])})
    patches = np.stack([noise(PATCH, row) for row in range(BATCH)])
    _, log_odds = FULL(patches)
    scores = Mn04Scores(spec, FULL).embed(patches)
    expected = torch.sigmoid(torch.from_numpy(2 * np.maximum(log_odds[:, 3], log_odds[:, 7]) + 1)).numpy()
    assert np.allclose(scores[:, 0], expected, atol=1e-6)
    assert np.allclose(scores[:, 1], torch.sigmoid(torch.from_numpy(log_odds[:, 5])).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"features.0.0.weight": torch.zeros(16, 1, 3, 3)}, "is [16, 1, 3, 3], expected [8, 1, 3, 3]"),
        ({"features.3.block.1.1.running_var": None}, "without 'features.3.block.1.1.running_var' [32]"),
        ({"classifier.5.bias": None, "fc.bias": torch.zeros(527)}, "without 'classifier.5.bias' [527], with 'fc.bias'"),
    ],
)
def test_other_weights_are_refused_in_one_line(change: dict[str, Tensor | None], expected: str) -> None:
    tensors = {name: tensor for name, tensor in {**WEIGHTS, **change}.items() if tensor is not None}
    with pytest.raises(WeightsError) as caught:
        network_of(tensors, Path("/somewhere/other.pth"))
    assert expected in str(caught.value)
    assert "/somewhere/other.pth: are not those of EfficientAT's mn04_as" in str(caught.value)
    assert "\n" not in str(caught.value)
