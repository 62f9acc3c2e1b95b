"""Sound, VGGish and VGG16 together, with full-size networks: from a file, and live on a machine too small for it."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from streamer import cli
from streamer.bundle import Bundle
from streamer.networks.weights import WeightsStore
from tests.e2e.daemon import Daemon
from tests.limits import LATENCY_LIMIT_S
from tests.make_media import make_clip
from tests.models import bursts, seeded_bundle
from tests.weights import vgg16_tensors, vggish_tensors

MODALITIES = ("spectral", "vggish", "vgg16")
PICTURES = re.compile(r"pictures: (?:one every (\d+) cells|none)")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(vggish_tensors(1), folder / "vggish.pth")
    torch.save(vgg16_tensors(2), folder / "vgg16.pth")
    return folder


@pytest.fixture(scope="module")
def bundle(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded network whose embeddings' standardisation keeps random features from drowning the sound."""
    made = seeded_bundle(MODALITIES)
    tensors = dict(made.tensors)
    for name in ("vggish", "vgg16"):
        tensors[f"embeddings.{name}.std"] = torch.full_like(tensors[f"embeddings.{name}.std"], 10.0)
    specs = {name: dict(one.spec()) for name, one in made.factories(WeightsStore(weights, {})).items()}
    folder = tmp_path_factory.mktemp("bundle")
    Bundle("seeded", specs, made.decoding, tensors, made.window_cells).save(folder)
    return folder


def film(path: Path, seconds: float) -> Path:
    samples = bursts(seconds, 5, 44_100)
    return make_clip(path, audio="aac", rate_hz=44_100, video="h264", samples=samples, seconds=seconds)


@pytest.mark.slow
def test_replay_gives_scores_of_all_three(tmp_path: Path, weights: Path, bundle: Path) -> None:
    clip = film(tmp_path / "clip.mp4", 3.0)
    report = tmp_path / "report"
    command = [
        "replay",
        str(clip),
        "--model",
        str(bundle),
        "--weights",
        str(weights),
        "--report",
        str(report),
        "--scores",
    ]
    assert cli.main(command) == 0
    with np.load(report / "scores.npz") as saved:
        scores = saved["clip.mp4"]
    assert scores.shape == (45, 3)
    assert np.isfinite(scores).all()
    assert scores.std(axis=0).min() > 0


def test_other_weights_than_those_trained_with_are_refused(
    tmp_path: Path, weights: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    torch.save(vggish_tensors(9), other / "vggish.pth")
    (other / "vgg16.pth").symlink_to(weights / "vgg16.pth")
    clip = film(tmp_path / "clip.mp4", 2.0)
    assert cli.main(["replay", str(clip), "--model", str(bundle), "--weights", str(other)]) != 0
    said = capsys.readouterr().err
    assert "vggish" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_live_pictures_give_way_and_sound_stays_on_time(tmp_path: Path, weights: Path, bundle: Path) -> None:
    """Run it where nothing else runs: at full rate VGG16 alone needs several processors."""
    config = {"streams": {"cam": {"source": str(film(tmp_path / "film.mp4", 45.0)), "realtime": True}}}
    with Daemon(tmp_path, "--model", str(bundle), "--weights", str(weights), config=config) as daemon:
        daemon.until(lambda: len(daemon.of("onset", "cam")) >= 8, seconds=90)
        metrics = httpx.get(f"http://{daemon.metrics}/metrics").text
        assert daemon.wait(90) == 0
    strides = [one["picture_stride"] for one in daemon.of("status", "cam") if one["state"] == "streaming"]
    print("picture strides in status:", strides, "log:", PICTURES.findall(daemon.log))
    assert strides[0] == 16
    assert 1 not in strides
    steps = [16, 8, 4, 2, 1]
    assert all(abs(steps.index(a) - steps.index(b)) <= 1 for a, b in pairwise(strides) if a and b)
    assert re.search(r'earwitness_picture_stride\{stream="cam"\} (16|8|4|2|0)\.0', metrics)
    assert 'earwitness_dropped_total{reason="queue_audio",stream="cam"} 0.0' in metrics
    late_s = np.array([one["sent_utc_s"] - one["onset_utc_s"] for one in daemon.of("onset", "cam")])
    # VGGish sees 0.48 s ahead of a cell, so windows are due that much later than those of spectral input alone.
    limit_s = LATENCY_LIMIT_S + 0.48
    print(f"onset to message: p95 {np.percentile(late_s, 95):.2f} s of {len(late_s)}, limit {limit_s:.2f} s")
    assert np.percentile(late_s, 95) < limit_s
