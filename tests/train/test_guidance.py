"""Further targets: of bundles that are larger or see more, and labels that mn04's scores give to unlabelled clips."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.features import EXTRACTORS
from streamer.features.base import FEATURES_VERSION
from streamer.networks.crnn import Posteriors, linear_pooling
from tests.models import Energy, seeded_bundle
from tests.train.test_cache import features, make_corpus
from tests.train.test_resume import FIT, log
from train import cli, loop
from train.config import FitConfig
from train.data import cache
from train.data.dataset import Corpus
from train.data.store import Key, Writer
from train.learning.augment import Batch, augment
from train.learning.distillation import Guides, StoredGuide, modalities_of
from train.learning.mean_teacher import Guidance, guided_costs, guided_totals
from train.learning.pseudo_labels import MODALITY, Labeller
from train.split import Known, Pin

CLASSES = ("Cat", "Dog")


def batch(clips: int = 6, labelled: int = 2, cells: int = 40) -> Batch:
    generator = torch.Generator().manual_seed(0)
    values = {
        "spectral": torch.rand(clips, cells, 4, 128, generator=generator),
        "vggish": torch.rand(clips, cells, 128, generator=generator),
        MODALITY: torch.rand(clips, cells, 3, generator=generator),
    }
    valid = {name: torch.ones(clips, cells, dtype=torch.bool) for name in values}
    return Batch(values, valid, torch.zeros(0, cells, 2), torch.zeros(labelled, 2))


def guides(*bundles: Bundle) -> Guides:
    columns = tuple(torch.tensor([one.classes.index(label) for label in CLASSES]) for one in bundles)
    return Guides(bundles, tuple(one.network().eval() for one in bundles), columns, (True,) * len(bundles))


def test_bundles_of_other_modalities_and_class_orders_are_averaged_where_they_have_media() -> None:
    first = seeded_bundle(("spectral",), classes=("Dog", "Speech", "Cat"))
    second = seeded_bundle(("vggish",), classes=CLASSES, seed=1)
    clips = batch()
    clips.valid["vggish"][:3] = False
    clips.valid["spectral"][0, 10:20] = False
    with torch.no_grad():
        found = guides(first, second).of(clips)
        one = first.network().eval()(clips.features, clips.valid)
        two = second.network().eval()(clips.features, clips.valid)
    assert torch.allclose(found.cells[3:], (one.cells[3:, :, [2, 0]] + two.cells[3:]) / 2)
    assert torch.allclose(found.cells[:3], one.cells[:3, :, [2, 0]])  # one of them alone
    assert torch.allclose(found.clips[3:], (one.clip[3:, [2, 0]] + two.clip[3:]) / 2)
    assert (found.cell_weight[0, 10:20] == 0).all()  # neither
    assert found.cell_weight.sum() == 6 * 40 * 2 - 10 * 2


def test_costs_are_means_over_what_has_a_target_and_media() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 2)
    cells = torch.sigmoid(logits)
    student = Posteriors(logits, cells, linear_pooling(cells))
    weight = torch.zeros(2, 5, 2)
    weight[0, :3, 1] = 1
    one = Guidance(torch.full((2, 5, 2), 0.8), weight, torch.full((2, 2), 0.3), torch.tensor([[1.0, 0], [0, 0]]))
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[0, 0] = False
    found = guided_costs(student, one, valid, "x", guided_totals(one.cell_weight, one.clip_weight, valid))
    p = cells[0, 1:3, 1]
    assert torch.allclose(found["x_frames"], -(0.8 * p.log() + 0.2 * (1 - p).log()).mean())
    q = student.clip[0, 0]
    assert torch.allclose(found["x_clips"], -(0.3 * q.log() + 0.7 * (1 - q).log()))
    nothing = replace(one, cell_weight=torch.zeros(2, 5, 2), clip_weight=torch.zeros(2, 2))
    none = guided_costs(student, nothing, valid, "x", (0.0, 0.0))
    assert none["x_frames"] == none["x_clips"] == 0


def test_sure_scores_label_unlabelled_clips_and_no_others() -> None:
    clips = batch()
    scores = torch.full((6, 40, 3), 0.3)  # of Dog, Speech, Cat: unsure
    scores[:, :10, 0] = 0.9
    scores[:, 10:, 0] = 0.02
    scores[:, :, 2] = 0.01
    clips.features[MODALITY] = scores
    clips.valid[MODALITY][5, :5] = False
    labels = Labeller((2, 0), low=0.05, high=0.7).of(clips)
    assert (labels.cell_weight[:2] == 0).all()  # labelled clips
    assert (labels.clip_weight[:2] == 0).all()
    assert labels.cells[2, :, 1].tolist() == [1.0] * 10 + [0.0] * 30
    assert (labels.cells[2, :, 0] == 0).all()
    assert (labels.cell_weight[2:5] == 1).all()
    assert (labels.cell_weight[5, :5] == 0).all()
    assert labels.clips[2:].tolist() == [[0.0, 1.0]] * 4
    unknown = Labeller((None, 1), low=0.05, high=0.7).of(clips)
    assert (unknown.cell_weight == 0).all()  # no scores of the first class, none sure of the second


def test_stored_posteriors_are_targets_of_the_student_s_classes() -> None:
    clips = batch()
    stored = torch.rand(6, 40, 3, generator=torch.Generator().manual_seed(1))
    clips.features[cache.GUIDE] = stored
    clips.valid[cache.GUIDE] = torch.ones(6, 40, dtype=torch.bool)
    clips.valid[cache.GUIDE][0, 30:] = False
    clips.valid[cache.GUIDE][1] = False
    found = StoredGuide((2, 0), Known("guide", Pin({}), ()), certain=True).of(clips)
    assert torch.equal(found.cells[2:], stored[2:, :, [2, 0]])
    assert torch.allclose(found.clips[0], linear_pooling(stored[:1, :30, [2, 0]])[0])
    assert found.cell_weight.sum(dim=(1, 2)).tolist() == [60, 0, 80, 80, 80, 80]
    assert found.clip_weight.sum(dim=1).tolist() == [2, 0, 2, 2, 2, 2]


def test_stored_posteriors_move_and_mix_with_their_clips() -> None:
    config = FitConfig.model_validate({**FIT, "mixup": 1.0, "shift": True, "crop": 1.0})
    clips = batch(4, 0, 60)
    strong = (torch.rand(4, 60, 2, generator=torch.Generator().manual_seed(2)) > 0.7).float()
    whole = Batch(
        {"spectral": clips.features["spectral"], cache.GUIDE: strong.clone()},
        {"spectral": clips.valid["spectral"], cache.GUIDE: clips.valid["spectral"].clone()},
        strong.clone(), torch.zeros(0, 2), frozenset([cache.GUIDE]),
    )  # fmt: skip
    found = augment(whole, config, np.random.default_rng(0))
    assert found.strong.sum() > strong.sum() * found.strong.shape[1] / 60, "clips were mixed"
    assert torch.equal(found.features[cache.GUIDE], found.strong)


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cheap modality in place of mn04's scores."""

    class Scores(Energy):
        name = MODALITY

        def spec(self) -> dict[str, Any]:
            return {"classes": {f"class {number}": {} for number in range(126)} | {"Dog": {}, "Cat": {}}}

    monkeypatch.setitem(EXTRACTORS, MODALITY, lambda spec, weights: Scores())


def test_a_run_learns_from_a_bundle_that_hears_more_and_from_pseudo_labels(
    scores: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_corpus(tmp_path)
    assert features(source, tmp_path / "features", "--modalities", "spectral", MODALITY) == 0
    corpus = Corpus.read(source)
    small = {**FIT, "steps": 2, "validate_every": 2, "mixup": 0.5}
    teacher = FitConfig.model_validate({**small, "modalities": [MODALITY]})
    loop.fit(corpus, tmp_path / "features", tmp_path / "teacher", teacher)
    export = ["export", str(source), str(tmp_path / "features"), str(tmp_path / "teacher"), str(tmp_path / "bundle")]
    assert cli.main([*export, "--no-tune"]) == 0
    config = FitConfig.model_validate(
        {**small, "distil_from": [str(tmp_path / "bundle")], "pseudo_frames": 0.5, "pseudo_high": 0.06}
    )
    assert list(modalities_of(config)) == ["spectral", MODALITY]
    loop.fit(corpus, tmp_path / "features", tmp_path / "student", config)
    (row,) = log(tmp_path / "student")
    assert set(row["costs"]) >= {"distilled_frames", "distilled_clips", "pseudo_frames", "pseudo_clips"}
    assert row["costs"]["distilled_frames"] > 0
    assert row["mean_costs"]["pseudo_clips"] == 0  # its weight
    run = json.loads((tmp_path / "student" / "fit.json").read_text())
    assert run["modalities"] == ["spectral"]
    assert not any("embeddings" in name for name in torch.load(tmp_path / "student" / "last.pt")["student"])

    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.provenance.split is not None
    split = {part: list(groups) for part, groups in bundle.provenance.split.items()}
    split["train"].append(split["test"].pop())
    replace(bundle, provenance=msgspec.structs.replace(bundle.provenance, split=split)).save(tmp_path / "bundle")
    with pytest.raises(EarwitnessError, match="1 groups of recordings in different parts"):
        loop.fit(corpus, tmp_path / "features", tmp_path / "other", config)


def store_guide(
    folder: Path, corpus: Corpus, classes: tuple[str, ...], trained_on: dict[str, list[str]] | None = None
) -> None:
    """Stored posteriors of all clips: 0.5."""
    spec = {"classes": list(classes), "trained_on": trained_on or {}, "certain": False}
    key = Key(FEATURES_VERSION, spec, (len(classes),), pictures_alone=False, number="float16")
    with Writer(folder / cache.GUIDE, key) as store:
        for sha256 in corpus.media(folder).values():
            store.add(sha256, np.full((20, len(classes)), 0.5, np.float16), np.ones(20, np.bool_), 0)


def test_a_run_learns_from_stored_posteriors(tmp_path: Path) -> None:
    source = make_corpus(tmp_path)
    folder = tmp_path / "features"
    assert features(source, folder, "--modalities", "spectral") == 0
    corpus = Corpus.read(source)
    config = FitConfig.model_validate({**FIT, "steps": 2, "validate_every": 2, "distil_stored": True})
    with pytest.raises(EarwitnessError, match="has no features of guide: run `earwitness-train guide` first"):
        loop.fit(corpus, folder, tmp_path / "none", config)
    store_guide(folder, corpus, ("Dog", "Cat"))
    loop.fit(corpus, folder, tmp_path / "run", config)
    (row,) = log(tmp_path / "run")
    assert row["costs"]["distilled_frames"] > 0.6, "at least the entropy of 0.5"
    run = json.loads((tmp_path / "run" / "fit.json").read_text())
    assert (run["modalities"], run["split_unchecked"]) == (["spectral"], True)
    shutil.rmtree(folder / cache.GUIDE)
    store_guide(folder, corpus, ("Dog",))
    with pytest.raises(EarwitnessError, match="distil_stored: there are no posteriors of Cat"):
        loop.fit(corpus, folder, tmp_path / "other", config)
    shutil.rmtree(folder / cache.GUIDE)
    assert corpus.summary.split is not None
    store_guide(folder, corpus, ("Dog", "Cat"), {"train": list(corpus.summary.split["test"])})
    with pytest.raises(EarwitnessError, match=r"the stored guide and this corpus have .* in different parts"):
        loop.fit(corpus, folder, tmp_path / "other", config)


def test_stored_posteriors_and_models_are_not_taken_at_once() -> None:
    with pytest.raises(ValueError, match="distil_stored, distil_from: choose one"):
        FitConfig.model_validate({**FIT, "distil_stored": True, "distil_from": ["spectral"]})


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="pseudo_low must be below pseudo_high"):
        FitConfig(pseudo_low=0.7, pseudo_high=0.7)
    with pytest.raises(ValueError, match="need unlabeled clips"):
        FitConfig(pseudo_clips=1.0, batch={"strong": 2})
