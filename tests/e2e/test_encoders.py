"""mn04, its scores and EfficientNet-Lite0 beside the spectral input: from media to scores, and trained with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from streamer import cli as earwitness
from streamer.bundle import Bundle
from streamer.features import EXTRACTORS
from streamer.features.base import want_of
from streamer.features.mn04 import default_classes
from streamer.media.source import open_media
from streamer.networks.weights import WeightsStore
from streamer.pipeline import WHOLE_CLIP, WHOLE_CLIP_WINDOW, StreamPipeline
from tests.make_media import make_clip
from tests.models import CLASSES, bursts, initial_tensors, seeded_bundle
from tests.train.test_corpus import make_recordings, settings
from tests.weights import mn04_tensors
from train import cli
from train.data import corpus
from train.data.clip import clip_cells

MODALITIES = ("spectral", "mn04", "mn04_scores", "efficientnet_lite0")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0's come from their package."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(mn04_tensors(4), folder / "mn04.pth")
    return folder


def film(path: Path, seconds: float) -> Path:
    samples = bursts(seconds, 5, 44_100)
    return make_clip(path, audio="aac", rate_hz=44_100, video="h264", samples=samples, seconds=seconds)


def test_a_clip_has_the_same_cells_in_training_and_in_the_product(tmp_path: Path, weights: Path) -> None:
    store = WeightsStore(weights)
    made = {name: EXTRACTORS[name]({}, store) for name in MODALITIES}
    clip = film(tmp_path / "clip.mp4", 2.3)
    pipeline = StreamPipeline("clip", made, seeded_bundle().decoding, WHOLE_CLIP_WINDOW, WHOLE_CLIP, lambda: "id")
    windows = []
    with open_media(str(clip), want_of(made.values())) as media:
        pipeline.source_has(audio=media.has_audio, pictures=media.has_video)
        for item in media:
            windows += pipeline.push(item)
    (window,) = [*windows, *pipeline.finish("silence")]
    for name in MODALITIES:  # each on its own: the sound, and what goes with it, are then read at other rates together
        stored = clip_cells(clip, {name: EXTRACTORS[name]({}, WeightsStore(weights))})
        assert stored.cells == len(window) > 30
        assert np.array_equal(stored.valid[name], window.valid[name])
        assert np.array_equal(stored.values[name], window.features[name])
        assert stored.valid[name].all()
        assert np.ptp(stored.values[name].reshape(len(window), -1), axis=0).max() > 1e-3


def test_replay_gives_scores_of_all_and_says_what_is_missing(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = WeightsStore(weights)
    made = {name: EXTRACTORS[name]({}, store) for name in MODALITIES}
    tensors = initial_tensors({name: one.shape for name, one in made.items()}, len(CLASSES), 1)
    decoding = seeded_bundle().decoding
    specs = {name: dict(one.spec()) for name, one in made.items()}
    Bundle("four", specs, decoding, tensors, 151).save(tmp_path / "model")
    clip, report = str(film(tmp_path / "clip.mp4", 3.0)), tmp_path / "report"
    command = ["replay", clip, "--model", str(tmp_path / "model"), "--report", str(report), "--scores", "--weights"]
    assert earwitness.main([*command, str(weights)]) == 0
    with np.load(report / "scores.npz") as saved:
        scores = saved["clip.mp4"]
    assert scores.shape == (45, 3)
    assert np.isfinite(scores).all()
    assert scores.std(axis=0).min() > 0

    capsys.readouterr()
    assert earwitness.main([*command, str(tmp_path / "empty")]) == 1
    said = capsys.readouterr().err
    sha256 = specs["mn04"]["weights_sha256"][:8]
    assert said.count("\n") == 1
    assert f"mn04 weights with SHA-256 {sha256}... are not in {tmp_path}/empty; put them there with: earwitness" in said


@pytest.mark.slow
def test_mn04_and_its_scores_are_trained_with_and_the_bundle_has_the_mapping(tmp_path: Path, weights: Path) -> None:
    clips = {"train": 2, "weak": 1, "unlabeled": 1, "validation": 1, "test": 1}
    made, stored, run, model = (str(tmp_path / name) for name in ("corpus", "features", "run", "model"))
    corpus.make(make_recordings(tmp_path / "recordings", 3), Path(made), settings(clips=clips), workers=1)
    batch = {"strong": 1, "weak": 1, "unlabeled": 1}
    modalities = ["spectral", "mn04", "mn04_scores"]
    fit = {"modalities": modalities, "widths": {"mn04": 8, "mn04_scores": 4}, "steps": 1, "batch": batch, "threads": 1}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(fit))
    for command in (
        ["features", made, stored, "--modalities", *modalities, "--weights", str(weights), "--workers", "1"],
        ["fit", made, stored, run, "--config", str(tmp_path / "fit.yaml")],
        ["export", made, stored, run, model, "--weights", str(weights), "--workers", "1"],
    ):
        assert cli.main(command) == 0, command
    bundle = Bundle.load(Path(model))
    assert bundle.modalities == tuple(modalities)
    assert bundle.tensors["embeddings.mn04.project.weight"].shape == (8, 384)
    assert bundle.tensors["embeddings.mn04_scores.project.weight"].shape == (4, 10)
    written = json.loads((Path(model) / "bundle.json").read_text())["features"]["mn04_scores"]["classes"]
    assert written["Dog"]["audioset"] == default_classes()["Dog"].audioset
    assert bundle.factories(WeightsStore(weights))["mn04_scores"].shape == (10,)
