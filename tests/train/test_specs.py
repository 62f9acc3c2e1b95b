"""How features are computed is a setting: what a configuration chooses is what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streamer.features.vggish import VggishSpec
from tests.make_media import make_clip
from tests.train.test_cache import make_corpus
from tests.weights import vggish_tensors
from train import cli
from train.data import cache
from train.data.hashes import media_sha256


def test_the_papers_alignment_and_vggishs_last_relu_are_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(vggish_tensors(1), tmp_path / "vggish.pth")
    clip = make_clip(tmp_path / "one.wav", seconds=1, audio="pcm")
    media = {clip: media_sha256(clip)}
    values = {}
    for alignment, last_relu in (("centered", False), ("paper", False), ("paper", True)):
        spec: dict[str, dict[str, object]] = {"vggish": {"alignment": alignment, "last_relu": last_relu}}
        folder = tmp_path / f"{alignment} {last_relu}"
        assert cache.add(folder, media, ["vggish"], tmp_path, 1, spec) == 1
        made = cache.read(folder, media, ["vggish"])
        assert made.specs["vggish"]["alignment"] == alignment
        assert VggishSpec(**made.specs["vggish"]).last_relu == last_relu
        values[alignment, last_relu] = made.batch([0], 15)[0]["vggish"]
    assert not torch.allclose(values["centered", False], values["paper", False])
    assert (values["paper", False] < 0).any()
    assert torch.equal(values["paper", True], values["paper", False].clamp_min(0))
    path = tmp_path / "wrong.yaml"
    source = make_corpus(tmp_path)
    for wrong, says in {"{alignment: left}": "alignment is 'left'", "{hop: 3}": "unexpected keyword"}.items():
        path.write_text(f"modalities: [vggish]\nfeatures: {{vggish: {wrong}}}\n")
        command = ["features", str(source), str(tmp_path / "new"), "--config", str(path), "--weights", str(tmp_path)]
        assert cli.main(command) == 2
        assert says in capsys.readouterr().err
