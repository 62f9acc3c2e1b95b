"""Batches that are drawn ahead: the very same as without, at any step, in any number of processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from streamer.errors import EarwitnessError
from streamer.features import EXTRACTORS
from tests.models import Energy
from tests.train.test_cache import features, make_corpus
from tests.train.test_corpus import CLASSES
from tests.train.test_resume import fit, log
from train.config import FitConfig, Kind
from train.data import targets
from train.data.dataset import Corpus
from train.data.loader import Drawn, Labelled, Loader
from train.learning.augment import Batch, augment, blanked

PARTS: Mapping[Kind, Any] = {"strong": "train", "weak": "weak", "unlabeled": "unlabeled"}
PLAIN = FitConfig(batch={"strong": 4, "weak": 2, "unlabeled": 2})
AUGMENTED = PLAIN.model_copy(
    update={"mixup": 0.5, "filter_db": 6.0, "shift": True, "mask_mels": 12, "mask_cells": 6, "crop": 0.4}
)
REPEATED = PLAIN.model_copy(update={"batch": {"strong": 6, "weak": 4, "unlabeled": 2}})  # more than there are clips


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXTRACTORS, "vggish", lambda spec, weights: Energy())
        source = make_corpus(folder)
        assert features(source, folder / "features", "--modalities", "spectral", "vggish") == 0
    return folder


@pytest.fixture(params=[("spectral",), ("spectral", "vggish"), ("vggish",)], ids="+".join)
def data(folder: Path, request: pytest.FixtureRequest) -> dict[Kind, Labelled]:
    return read(folder, request.param)


def read(folder: Path, modalities: tuple[str, ...] = ("spectral",)) -> dict[Kind, Labelled]:
    found: dict[Kind, Labelled] = {}
    for kind, part in PARTS.items():
        one = Corpus.read(folder / "corpus-0").part(part, folder / "features", modalities)
        assert one.truth is not None
        if kind == "strong":
            target = targets.strong(one.truth, one.rows, CLASSES, int(one.features.cells.max()))
        elif kind == "weak":
            target = targets.weak(one.truth, one.rows, CLASSES)
        else:
            target = np.zeros((len(one), 0), np.float32)
        found[kind] = Labelled(one, target)
    return found


def one_at_a_time(data: Mapping[Kind, Labelled], config: FitConfig, seed: int) -> Iterator[Drawn]:
    """What a loop does that draws each batch when it needs it."""
    rng = np.random.default_rng(seed)
    cells = max(int(one.part.features.cells.max()) for one in data.values())
    while True:
        values: dict[str, list[Tensor]] = {}
        valid: dict[str, list[Tensor]] = {}
        labels: dict[str, Tensor] = {}
        for kind, one in data.items():
            count, clips = config.batch[kind], len(one.part)
            rows = sorted(rng.choice(clips, count, replace=clips < count).tolist())
            for into, parts in zip((values, valid), one.part.features.batch(rows, cells), strict=True):
                for name, part in parts.items():
                    into.setdefault(name, []).append(part)
            labels[kind] = torch.from_numpy(one.target[rows])
        strong = nn.functional.pad(labels["strong"], (0, 0, 0, cells - labels["strong"].shape[1]))
        joined, flags = ({name: torch.cat(parts) for name, parts in of.items()} for of in (values, valid))
        batch = augment(Batch(joined, flags, strong, labels["weak"]), config, rng)
        yield Drawn(batch, blanked(batch, config, rng), batch.valid, None, rng.bit_generator.state)


def tensors(drawn: Drawn) -> dict[str, Tensor]:
    return {
        **{f"values {name}": one for name, one in drawn.batch.features.items()},
        **{f"valid {name}": one for name, one in drawn.batch.valid.items()},
        **{f"student {name}": one for name, one in drawn.student.items()},
        "strong": drawn.batch.strong,
        "weak": drawn.batch.weak,
    }


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("config", [PLAIN, AUGMENTED, REPEATED], ids=["plain", "augmented", "repeated"])
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_the_batches_are_those_of_a_loop_that_draws_each_when_it_needs_it(
    data: dict[Kind, Labelled], config: FitConfig, ahead: int
) -> None:
    rng = np.random.default_rng(5)
    with Loader(data, len(CLASSES), config, rng, ahead=ahead) as loader:
        for expected, drawn in islice(zip(one_at_a_time(data, config, 5), loader, strict=False), 8):
            assert_same(tensors(drawn), tensors(expected))
            assert rng.bit_generator.state == expected.rng_state  # whatever has been drawn already


def test_a_loader_that_begins_with_a_saved_state_continues_the_sequence(folder: Path) -> None:
    data, rng = read(folder), np.random.default_rng(0)
    with Loader(data, len(CLASSES), AUGMENTED, rng) as loader:
        for _ in range(3):
            next(loader)
        saved = rng.bit_generator.state
        rest = [tensors(next(loader)) for _ in range(4)]
    again = np.random.default_rng(9)
    again.bit_generator.state = saved
    with Loader(data, len(CLASSES), AUGMENTED, again) as loader:
        for expected in rest:
            assert_same(tensors(next(loader)), expected)


@pytest.mark.parametrize("config", [PLAIN, AUGMENTED, REPEATED], ids=["plain", "augmented", "repeated"])
def test_the_shares_of_all_processes_are_the_batch_of_one(data: dict[Kind, Labelled], config: FitConfig) -> None:
    world = 2
    shares = []
    for rank in range(world):
        with Loader(data, len(CLASSES), config, np.random.default_rng(3), rank=rank, world=world) as loader:
            shares.append([next(loader) for _ in range(8)])
    for step, whole in enumerate(islice(one_at_a_time(data, config, 3), 8)):
        ours = [tensors(share[step]) for share in shares]
        kinds = {"strong": slice(0, config.batch["strong"])}
        kinds["weak"] = slice(kinds["strong"].stop, kinds["strong"].stop + config.batch["weak"])
        kinds["unlabeled"] = slice(kinds["weak"].stop, kinds["weak"].stop + config.batch["unlabeled"])
        for name, expected in tensors(whole).items():
            for rank, our in enumerate(ours):
                if name in ("strong", "weak"):
                    assert torch.equal(our[name], expected[rank::world])
                else:
                    assert torch.equal(our[name], torch.cat([expected[one][rank::world] for one in kinds.values()]))
        assert all(share[step].rng_state == whole.rng_state for share in shares)


def test_more_processes_than_clips_are_refused(folder: Path) -> None:
    with pytest.raises(EarwitnessError, match=r"2 weak, .* clips are too few for 9 processes: start fewer"):
        Loader(read(folder), len(CLASSES), PLAIN, np.random.default_rng(0), rank=1, world=9)


def test_an_error_of_the_thread_reaches_the_step_that_needed_the_batch(folder: Path) -> None:
    data = read(folder)
    data["weak"] = replace(data["weak"], target=data["weak"].target[:1])
    with Loader(data, len(CLASSES), PLAIN, np.random.default_rng(0)) as loader, pytest.raises(IndexError):
        next(loader)


def test_the_thread_ends_with_the_run_however_that_ends(folder: Path) -> None:
    before = threading.active_count()

    def fails() -> None:
        with Loader(read(folder), len(CLASSES), PLAIN, np.random.default_rng(0)) as loader:
            next(loader)
            assert threading.active_count() == before + 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert threading.active_count() == before


def test_a_run_says_how_long_its_steps_waited(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = folder / "run"
    with caplog.at_level("INFO"):
        assert fit([str(folder / "corpus-0"), str(folder / "features")], out, steps=2, validate_every=1) == 0
    assert "s for data" in caplog.text
    text = (out / "log.jsonl").read_text()
    assert text.count('"waited_for_data_s"') == len(log(out)) == 2
