"""Corpora with video: what is recorded is what is on the screen, split by photo, the same for the same seed."""

from __future__ import annotations

import csv
import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import EarwitnessError, SourceError
from streamer.features import EXTRACTORS
from streamer.media.source import open_media
from streamer.networks.weights import WeightsStore
from streamer.types import SAMPLE_RATE_HZ, Chunk, Floats, Picture, Want
from tests.train.photos import COLOURS, add_photos_to_manifest, make_photos
from tests.train.test_corpus import CLASSES, contents, make_recordings, settings
from train import config
from train.data import corpus
from train.data.clip import clip_cells
from train.data.config import CorpusConfig
from train.data.dataset import Corpus
from train.data.summary import read_summary
from train.film.config import VideoConfig
from train.split import read_pin

PLAIN: dict[str, object] = {
    "wrong": 0, "unseen": 0, "silent": 0, "unrelated": {0: 1}, "dark": 0, "frozen": 0, "missing": 0, "rooms": 0,
    "infrared": 0, "shaky": 0, "blurred": 0, "drift": 0, "noise": (0, 0), "cut": 0, "full": 1, "still": 1,
    "sizes": ((128, 96),), "fps": (10,),
}  # fmt: skip
"""Every event is seen, nothing else is, and the camera is perfect."""


def filmed(video: Mapping[str, object] | None = None, **fields: object) -> CorpusConfig:
    return settings(**{"clips": {"train": 4, "test": 3}, "video": {**PLAIN, **(video or {})}, **fields})


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "metadata" / f"{name}.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def pictures(clip: Path) -> tuple[np.ndarray, np.ndarray]:
    """The times in seconds (n,), and the pictures (n, 224, 224, 3), as the daemon reads them."""
    with open_media(str(clip), Want(pictures=True)) as media:
        found = [item for item in media if isinstance(item, Picture)]
    return np.array([one.at for one in found]) / SAMPLE_RATE_HZ, np.stack([one.pixels for one in found])


def samples(clip: Path) -> Floats:
    with open_media(str(clip), Want(frozenset({SAMPLE_RATE_HZ}))) as media:
        return np.concatenate([item.samples for item in media if isinstance(item, Chunk)])


def looks_like(picture: np.ndarray) -> str:
    """The label of the nearest colour."""
    colour = picture.reshape(-1, 3).mean(axis=0)
    return min(COLOURS, key=lambda label: float(np.abs(colour - COLOURS[label]).sum()))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_photos_to_manifest(make_recordings(tmp_path_factory.mktemp("source")))


def test_the_same_seed_gives_the_same_corpus_with_any_number_of_workers(source: Path, tmp_path: Path) -> None:
    everything = settings(video={"sizes": ((128, 96),), "fps": (5,)}, clips={"train": 12, "weak": 2, "test": 3})
    corpus.make(source, tmp_path / "a", everything, workers=1)
    corpus.make(source, tmp_path / "b", everything, workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sum(path.suffix == ".mp4" for path in (tmp_path / "a").rglob("*")) == 17


def test_video_does_not_change_what_is_heard(source: Path, tmp_path: Path) -> None:
    corpus.make(source, tmp_path / "seen", filmed(), workers=1)
    corpus.make(source, tmp_path / "heard", settings(clips={"train": 4, "test": 3}), workers=1)
    for part in ("train", "test"):
        heard = (tmp_path / "heard" / "metadata" / f"{part}.tsv").read_text()
        assert (tmp_path / "seen" / "metadata" / f"{part}.tsv").read_text() == heard.replace(".flac", ".mp4")
    flac, mp4 = (
        samples(tmp_path / name / "audio" / "test" / f"test_00001.{suffix}")
        for name, suffix in (("heard", "flac"), ("seen", "mp4"))
    )
    assert np.corrcoef(flac, mp4[: len(flac)])[0, 1] > 0.95
    told = json.loads((tmp_path / "heard" / "corpus.json").read_text())
    assert set(told) == {"config", "groups", "recordings", "split"}
    assert "video" not in told["config"]
    assert {path.name for path in (tmp_path / "heard" / "metadata").iterdir()}.isdisjoint({"video.tsv", "seen.tsv"})


def test_what_is_recorded_is_on_the_screen(source: Path, tmp_path: Path) -> None:
    video = {"wrong": 0.3, "unseen": 0.2, "silent": 0.3}
    corpus.make(source, tmp_path / "a", filmed(video, clips={"test": 8}), workers=1)
    seen = rows(tmp_path / "a", "seen")
    assert {"agrees", "wrong", "background"} <= {row["role"] for row in seen}
    looked = 0
    for name in {row["filename"] for row in seen}:
        times, shown = pictures(tmp_path / "a" / "audio" / "test" / name)
        shots = [row for row in seen if row["filename"] == name and row["onset"]]
        front = [row for row in shots if row["role"] != "background"]
        for at_s, picture in zip(times, shown, strict=True):
            within = [row for row in front if float(row["onset"]) <= at_s < float(row["offset"])]
            edge = any(abs(at_s - float(row[end])) < 0.6 for row in front for end in ("onset", "offset"))
            if edge or len(within) > 1:  # it comes or goes, or is partly hidden
                continue
            looked += 1
            assert looks_like(picture) == (within[0]["seen"] if within else "other")
    assert looked > 200


def test_dark_frozen_and_missing_pictures_are_what_they_are_called(source: Path, tmp_path: Path) -> None:
    for name, since in (("dark", 0.08), ("frozen", 0.0)):
        noisy = {name: 1, "noise": (2, 2), "still": 0, "full": 0}
        corpus.make(source, tmp_path / name, filmed(noisy, clips={"train": 3}), workers=1)
        for row in rows(tmp_path / name, "video"):
            assert row["condition"] == name
            times, shown = pictures(tmp_path / name / "audio" / "train" / row["filename"])
            late = shown[times >= float(row["since"])].astype(np.int16)
            if name == "dark":
                assert late.mean() < since * 255 + 5
            else:  # the encoder may still refine a frozen picture; nothing moves
                assert np.abs(np.diff(late, axis=0)).mean(axis=(1, 2, 3)).max(initial=0) < 2.5
                assert np.abs(late[len(late) // 2 :] - late[-1]).mean() < 2
    corpus.make(source, tmp_path / "missing", filmed({"missing": 1}, clips={"train": 2}), workers=1)
    clip = tmp_path / "missing" / "audio" / "train" / "train_00000.mp4"
    assert len(samples(clip)) > 5 * SAMPLE_RATE_HZ
    with pytest.raises(SourceError, match="no video"):
        pictures(clip)
    assert {(row["condition"], row["fps"]) for row in rows(tmp_path / "missing", "video")} == {("missing", "")}
    assert {row["role"] for row in rows(tmp_path / "missing", "seen")} == {"unseen"}


def test_a_still_scene_hardly_changes_and_a_shaky_camera_does(source: Path, tmp_path: Path) -> None:
    changes = {}
    for name, fields in (("still", {"noise": (1, 1), "drift": 0.06}), ("shaky", {"shaky": 1, "shake_px": (2, 2)})):
        quiet = filmed({"fps": (15,), "sizes": ((192, 144),), **fields}, clips={"train": 1}, events={0: 1})
        corpus.make(source, tmp_path / name, quiet, workers=1)
        _, shown = pictures(tmp_path / name / "audio" / "train" / "train_00000.mp4")
        changes[name] = np.abs(np.diff(shown.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    assert np.median(changes["still"]) < 0.3 < np.median(changes["shaky"])  # levels of 255
    assert changes["still"].max() > 0


def test_no_photo_is_seen_in_two_parts(source: Path, tmp_path: Path) -> None:
    always = filmed({"silent": 1, "unrelated": {2: 1}}, clips={"train": 6, "weak": 2, "validation": 4, "test": 4})
    corpus.make(source, tmp_path / "a", always, workers=2)
    seen = defaultdict(set)
    for row in rows(tmp_path / "a", "sources"):
        if row["label"].startswith("picture/"):
            assert (row["licence"], row["source"], row["use"]) == ("CC BY", "a camera", "ship")
            seen["train" if row["part"] in ("weak", "unlabeled") else row["part"]].add(row["group"])
    assert {len(groups) > 0 for groups in seen.values()} == {True}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]
    parts = read_pin(tmp_path / "a").parts
    assert all(parts[group] == part for part, groups in seen.items() for group in groups)
    told = read_summary(tmp_path / "a").pictures
    assert told is not None
    assert sorted(group for of in told.values() for groups in of.values() for group in groups) == sorted(
        f"photo of {label}:{number}" for label in COLOURS for number in range(5)
    )


def test_known_photos_keep_their_part_when_others_are_added(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "source")
    photos = make_photos(tmp_path / "photos", groups=4)
    corpus.make(source, tmp_path / "old", filmed(), workers=1, picture_folders=[photos])
    make_photos(photos, groups=12)
    pin = read_pin(tmp_path / "old")
    corpus.make(source, tmp_path / "new", filmed(), workers=1, pin=pin, picture_folders=[photos])
    new = read_pin(tmp_path / "new")
    assert not pin.moved(new)
    assert len([group for group in new.parts if group.startswith("photo:")]) == 36


def test_classes_without_pictures_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_recordings(tmp_path / "source")
    photos = make_photos(tmp_path / "photos", groups=4, labels=("Dog", "other"))
    make_photos(photos, groups=1, labels=("Cat",))
    with caplog.at_level(logging.INFO):
        corpus.make(source, tmp_path / "a", filmed(), workers=1, picture_folders=[photos])
    assert read_summary(tmp_path / "a").without_pictures == {"train": [], "validation": ["Cat"], "test": ["Cat"]}
    assert "test: 1 groups of pictures of 1 classes, 1 of unrelated pictures; none of Cat" in caplog.text
    assert "events: " in caplog.text
    for row in rows(tmp_path / "a", "seen"):
        if row["part"] == "test" and row["event_label"]:
            assert row["role"] == ("no_picture" if row["event_label"] == "Cat" else "agrees")


def test_the_clips_are_a_corpus_like_any_other(source: Path, tmp_path: Path) -> None:
    corpus.make(source, tmp_path / "a", filmed(clip_s=10.0), workers=1)
    made = Corpus.read(tmp_path / "a")
    assert made.classes == CLASSES
    assert len(made.media(tmp_path / "features")) == 7
    clip = next(iter(made.media(tmp_path / "features")))
    cells = clip_cells(clip, {"spectral": EXTRACTORS["spectral"]({}, WeightsStore(tmp_path, {}))})
    assert cells.cells == 151
    assert cells.valid["spectral"].all()
    listed = {(one.source, one.licence) for one in made.sources()}
    assert listed == {("here", "CC0"), ("a camera", "CC BY")}


def test_pictures_without_video_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(EarwitnessError, match=r"add `video: \{\}`"):
        corpus.make(source, tmp_path / "a", settings(), workers=1, picture_folders=[source])


def test_the_example_is_valid_and_states_the_defaults() -> None:
    example = config.load(Path(__file__).parents[2] / "configs/train/corpus-audiovisual.yaml", CorpusConfig).video
    assert example is not None
    assert example.model_copy(update={"leave_out": VideoConfig().leave_out}) == VideoConfig()
