"""The features that training stores are those that a stream's pipeline gives its windows, to the last stored bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamer.features.base import want_of
from streamer.media.source import open_media
from streamer.pipeline import WHOLE_CLIP, WHOLE_CLIP_WINDOW, StreamPipeline
from streamer.types import Window
from tests.make_media import make_clip
from tests.models import factories, seeded_bundle
from train.data import cache
from train.data.hashes import media_sha256

MODALITIES = ("spectral", "vggish", "vgg16")


def streamed(path: Path, modalities: tuple[str, ...]) -> Window:
    """The one window of a whole clip, as `earwitness replay --mode clip` has it."""
    made = factories(modalities)
    decoding = seeded_bundle(modalities).decoding
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
    window = streamed(path, modalities)
    features = stored(path, tmp_path / "features", modalities, monkeypatch)
    assert len(window) > 10
    assert features.cells.tolist() == [len(window)]
    values, valid = features.batch([0], len(window))
    for name in modalities:
        assert np.array_equal(valid[name][0].numpy(), window.valid[name]), name
        assert np.array_equal(values[name][0].numpy(), window.features[name].astype(np.float16)), name
    assert any(flags.any() for flags in valid.values())
