"""Posteriors of teachers and models, stored for students: of which networks, for which clips, and when not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import torch

from streamer.bundle import Bundle
from streamer.features.mn04 import LogMel
from streamer.features.spectral import Spectral
from streamer.networks.weights import WeightsStore
from streamer.provenance import Phase, Provenance
from streamer.types import Floats
from tests.models import seeded_bundle
from tests.train.teacher.made import make_corpus, small
from train import cli
from train.data import cache
from train.data.dataset import Corpus
from train.data.store import read_store
from train.split import pin_of
from train.teacher import guide
from train.teacher.frames import clip_frames
from train.teacher.guide import LogOdds, mean_posteriors
from train.teacher.record import JSON, TENSORS, Teacher
from train.teacher.training import teach


@pytest.fixture(scope="module")
def features(folder: Path, source: Corpus) -> Path:
    assert cli.main(["features", str(source.folder), str(folder / "features"), "--workers", "1"]) == 0
    return folder / "features"


@pytest.fixture(scope="module")
def second(folder: Path, source: Corpus, weights: WeightsStore) -> Path:
    """Another teacher."""
    teach(source, folder / "second", small(steps=2, seed=2), weights, folder / "frames")
    return folder / "second"


@pytest.fixture
def store(features: Path, tmp_path: Path) -> Path:
    """The features in a folder without a guide."""
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "spectral").symlink_to(features / "spectral")
    return tmp_path / "features"


def trained(corpus: Corpus, **fields: object) -> Bundle:
    """A model that says that it was trained on the corpus."""
    came = Provenance(
        steps=1,
        phases=(Phase(from_step=0, corpus=corpus.summary.config),),
        corpus=corpus.summary.config,
        split=pin_of(corpus.summary).json(),
    )
    return replace(
        seeded_bundle(classes=("Dog", "Speech", "Cat")),
        feature_specs={"spectral": Spectral().spec()},
        provenance=msgspec.structs.replace(came, **fields),
    )


def stored(folder: Path, clips: Mapping[Path, str]) -> dict[Path, Floats]:
    found = read_store(folder / cache.GUIDE, cache.GUIDE)
    made = {}
    for path, sha256 in clips.items():
        entry = found.entries[sha256]
        span = slice(entry.start, entry.start + entry.cells)
        assert found.valid[span].all()
        made[path] = found.values[span].astype(np.float32)
    return made


def test_the_guide_is_the_mean_of_log_odds_of_teachers_and_models(
    source: Corpus, store: Path, run: Path, second: Path
) -> None:
    bundle = trained(source)
    teachers = [Teacher.load(run), Teacher.load(second)]
    media = source.media(store)
    assert guide.add(source, store, teachers, [bundle]) == len(media) == 8
    found, log_mel, network = stored(store, media), LogMel(), bundle.network().eval()
    for path in media:
        frames = clip_frames(path, log_mel)
        features, valid = cache.read(store, {path: media[path]}, ["spectral"]).batch([0], frames.cells)
        with torch.inference_mode():
            log_odds = [one.network(torch.from_numpy(frames.values.T[None].copy()), frames.cells) for one in teachers]
            log_odds.append(network(features, valid).logits[..., [2, 0]])
            expected = torch.sigmoid(torch.stack(log_odds).mean(dim=0))[0].numpy()
        assert len(found[path]) == frames.cells == 22
        assert np.abs(found[path] - expected).max() < 3e-4  # float16
    key = read_store(store / cache.GUIDE, cache.GUIDE).key
    assert key.spec == {
        "classes": ["Cat", "Dog"],
        "teachers": [one.record.tensors_sha256 for one in teachers],
        "bundles": [bundle.fingerprint()],
        "trained_on": pin_of(source.summary).json(),
        "certain": True,
    }
    assert key.shape == (2,)
    assert guide.add(source, store, teachers, [bundle]) == 0


def test_log_odds_are_averaged_over_the_networks_that_hear_a_cell() -> None:
    one = LogOdds(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([True, True, False]))
    two = LogOdds(torch.tensor([[-2.0], [0.5]]), torch.tensor([True, False]))
    posteriors, heard = mean_posteriors([one, two], 1)
    assert heard.tolist() == [True, True, False]
    assert np.array_equal(posteriors, torch.tensor([[-0.5], [2.0], [-torch.inf]]).sigmoid().numpy())
    posteriors, heard = mean_posteriors([], 4)
    assert posteriors.shape == (0, 4)
    assert heard.shape == (0,)


def test_a_killed_command_goes_on_and_new_clips_are_added(
    source: Corpus, folder: Path, store: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guide, "_BATCH", 3)
    teacher = Teacher.load(run)
    others = msgspec.structs.replace(teacher.record, split={"train": ["recordings of neither corpus"]})
    teacher = replace(teacher, record=others)
    assert guide.add(source, store, [teacher], []) == 8
    whole = stored(store, source.media(store))
    clips = store / cache.GUIDE / "clips.jsonl"
    clips.write_bytes(clips.read_bytes()[:-40])  # killed while it wrote the last line
    assert guide.add(source, store, [teacher], []) == 1
    again = stored(store, source.media(store))
    assert all(np.abs(again[path] - whole[path]).max() < 1e-3 for path in whole)
    more = make_corpus(folder, "more", seed=3)
    assert guide.add(more, store, [teacher], []) == 8


def test_the_command(
    source: Corpus, store: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(source).save(tmp_path / "bundle")
    command = ["guide", str(source.folder), str(store), str(run)]
    assert cli.main([*command, "--beside", str(tmp_path / "bundle")]) == 0
    assert len(json.loads((store / cache.GUIDE / "store.json").read_text())["spec"]["bundles"]) == 1
    capsys.readouterr()
    assert cli.main(command) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "guide: its features have bundles=[" in said
    assert said.endswith("name another folder, or delete this one")


def test_other_classes_tested_groups_and_damage_are_one_line(
    source: Corpus, store: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(teacher: Path, *beside: str) -> str:
        capsys.readouterr()
        more = ["--beside", *beside] if beside else []
        assert cli.main(["guide", str(source.folder), str(store), str(teacher), *more]) == 1
        (said,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert not (store / cache.GUIDE).exists()
        return said

    def changed(name: str, **fields: object) -> Path:
        (tmp_path / name).mkdir()
        os.link(run / TENSORS, tmp_path / name / TENSORS)
        raw = json.loads((run / JSON).read_text())
        (tmp_path / name / JSON).write_text(json.dumps({**raw, **fields}))
        return tmp_path / name

    split = {part: list(groups) for part, groups in pin_of(source.summary).json().items()}
    split["train"].append(split["test"].pop())
    said = error(changed("moved", split=split))
    assert "moved and this corpus have 1 groups of recordings in different parts" in said
    said = error(changed("other", classes=["Cat", "Speech"]))
    assert "other has no class Dog, which the corpus has: choose another" in said
    said = error(changed("damaged", tensors_sha256="0" * 64))
    assert "teacher.safetensors is damaged: it is not the one that teacher.json describes" in said
    assert "has no teacher.json" in error(tmp_path)

    trained(source, split=split).save(tmp_path / "bundle")
    assert "seeded and this corpus have 1 groups of recordings in different parts" in error(
        run, str(tmp_path / "bundle")
    )
    seeded_bundle(classes=("Dog", "Speech")).save(tmp_path / "bundle")
    assert "seeded has no class Cat" in error(run, str(tmp_path / "bundle"))
    replace(trained(source), feature_specs={"spectral": {"window": 1024}}).save(tmp_path / "bundle")
    assert "seeded needs spectral features with" in error(run, str(tmp_path / "bundle"))
    (store / "spectral").unlink()
    assert "has no features of spectral: run `earwitness-train features` first" in error(run, str(tmp_path / "bundle"))


def test_a_clip_without_sound_has_no_log_odds(source: Corpus, run: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.flac", np.zeros(100), 22_050)
    heard = next((source.folder / "audio" / "test").iterdir())
    teachers = guide._Teachers.of([Teacher.load(run)], source.classes)
    with torch.inference_mode():
        found = dict(teachers.log_odds([tmp_path / "silent.flac", heard], [0, 1]))
    assert list(found) == [1]
    assert found[1].values.shape == (22, 2)
