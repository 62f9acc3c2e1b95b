"""The features that training stores are those that a stream's pipeline gives its windows, to the last stored bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import EarwitnessError
from streamer.features.base import ExtractorFactory, want_of
from streamer.features.pictures import Pictures, PictureSpec
from streamer.media.source import open_media
from streamer.networks.backends import TorchNetwork
from streamer.pipeline import WHOLE_CLIP, WHOLE_CLIP_WINDOW, StreamPipeline
from streamer.types import Window
from tests.features.test_pictures import Corner
from tests.make_media import make_clip
from tests.models import factories, seeded_bundle
from train.data import cache
from train.data.hashes import media_sha256

MODALITIES = ("spectral", "vggish", "vgg16")


def streamed(path: Path, made: Mapping[str, ExtractorFactory]) -> Window:
    """The one window of a whole clip, as `earwitness replay --mode clip` has it."""
    decoding = seeded_bundle(tuple(made)).decoding
    pipeline = StreamPipeline("clip", made, decoding, WHOLE_CLIP_WINDOW, WHOLE_CLIP, lambda: "id")
    windows: list[Window] = []
    with open_media(str(path), want_of(made.values())) as media:
        pipeline.source_has(audio=media.has_audio, pictures=media.has_video)
        for item in media:
            windows += pipeline.push(item)
    windows += pipeline.finish("silence")
    (window,) = windows
    return window


def stored(path: Path, folder: Path, modalities: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> cache.Features:
    """The clip's stored features, each modality added by a run of its own."""
    made = factories(MODALITIES)
    monkeypatch.setattr(cache, "EXTRACTORS", {name: lambda *_, name=name: made[name] for name in MODALITIES})
    clips = {path: media_sha256(path)}
    for name in modalities:
        cache.add(folder, clips, [name], folder, workers=1)
    return cache.read(folder, clips, modalities)


CASES = [
    (modalities, kind)
    for modalities in (
        ("spectral",),
        ("vggish",),
        ("vgg16",),
        ("spectral", "vggish"),
        ("spectral", "vgg16"),
        ("vggish", "vgg16"),
        MODALITIES,
    )
    for kind in ("both", "sound", "pictures", "short pictures")
    if (kind, modalities) != ("sound", ("vgg16",))  # a model of pictures alone refuses a clip without them
    and (kind != "pictures" or "vgg16" in modalities)
]


@pytest.mark.parametrize(("modalities", "kind"), CASES)
def test_stored_features_are_those_of_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modalities: tuple[str, ...], kind: str
) -> None:
    path = make_clip(
        tmp_path / "clip.mkv",
        seconds=2.3,
        audio=None if kind == "pictures" else "pcm",
        video=None if kind == "sound" else "mjpeg",
        fps=10,
        picture_retime=(lambda t: t if t < 1.2 else None) if kind == "short pictures" else None,
    )
    window = streamed(path, factories(modalities))
    features = stored(path, tmp_path / "features", modalities, monkeypatch)
    assert len(window) > 10
    assert features.cells.tolist() == [len(window)]
    values, valid = features.batch([0], len(window))
    for name in modalities:
        assert np.array_equal(valid[name][0].numpy(), window.valid[name]), name
        assert np.array_equal(values[name][0].numpy(), window.features[name].astype(np.float16)), name
    assert any(flags.any() for flags in valid.values())


def test_pictures_that_are_still_keep_their_vector_in_training_and_streaming_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(tmp_path / "clip.mkv", seconds=4, audio="pcm", video="mjpeg", fps=15)
    networks = Corner(), Corner(), Corner()
    every, mine, theirs = (
        Pictures("vgg16", 4096, PictureSpec(still=still), TorchNetwork(network))
        for still, network in zip((0.0, 4.0, 4.0), networks, strict=True)
    )
    window = streamed(path, {"vgg16": theirs})
    monkeypatch.setattr(cache, "EXTRACTORS", {"vgg16": lambda *_: mine})
    cache.add(tmp_path / "features", {path: media_sha256(path)}, ["vgg16"], tmp_path, workers=1)
    made = cache.read(tmp_path / "features", {path: media_sha256(path)}, ["vgg16"])
    values = made.batch([0], len(window))[0]["vgg16"][0].numpy()
    assert np.array_equal(values, window.features["vgg16"].astype(np.float16))
    assert not np.array_equal(window.features["vgg16"], streamed(path, {"vgg16": every}).features["vgg16"])
    assert 1 < sum(networks[2].batches) < sum(networks[0].batches)
    # A model that was trained with it is not scored without it, nor the other way round.
    assert made.specs["vgg16"]["still"] == 4.0
    cache.check_specs(made, {"vgg16": mine.spec()}, "a bundle")
    with pytest.raises(
        EarwitnessError, match="a bundle needs vgg16 features with still=null, these were made with still=4"
    ):
        cache.check_specs(made, {"vgg16": every.spec()}, "a bundle")
    cache.check_specs(made, {"vgg16": {"hold_s": 1.0}}, "the configuration", partial=True)
