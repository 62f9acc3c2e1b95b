"""The pictures that corpora show: which are taken, how they are grouped, and what is said of bad ones."""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamer.errors import EarwitnessError
from tests.make_media import make_clip
from tests.train.photos import COLOURS, add_photos_to_manifest, make_photo, make_photos
from tests.train.test_corpus import make_recordings
from train.data.recordings import Recording
from train.film.gallery import open_clip, open_photo
from train.film.pictures import check_pictures, pool_of, read_pictures

CLASSES = ("Cat", "Dog", "Speech")


def read(*folders: Path, uses: tuple[str, ...] = ("ship",), leave_out: tuple[str, ...] = ()) -> list[Recording]:
    return read_pictures(folders, CLASSES, uses, leave_out)


def test_rows_of_a_manifest_are_taken_by_use_and_note(tmp_path: Path) -> None:
    source = add_photos_to_manifest(make_recordings(tmp_path / "source", groups=1), groups=2)
    with (source / "manifest.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    photos = {row["path"]: row for row in rows if row["kind"] == "image"}
    photos["images/Cat/0.png"]["use"] = "nc"
    photos["images/other/1.png"]["note"] = "LABEL DOUBT: a cat"
    with (source / "manifest.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    taken = {one.path.relative_to(source / "images").as_posix() for one in read(source, leave_out=("LABEL DOUBT",))}
    assert taken == {"Cat/1.png", "Dog/0.png", "Dog/1.png", "other/0.png"}
    assert len(read(source, uses=("ship", "nc"))) == 6


def test_photos_in_folders_are_grouped_by_content_and_by_scene(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "mine", groups=2, labels=("Cat", "other"))
    make_photo(folder / "Cat" / "kitchen" / "a.jpg", COLOURS["Cat"], 50)
    make_photo(folder / "Cat" / "kitchen" / "b.jpg", COLOURS["Cat"], 51)
    groups = {one.path.relative_to(folder).as_posix(): one.group for one in read(folder)}
    assert groups["Cat/kitchen/a.jpg"] == groups["Cat/kitchen/b.jpg"] == "mine:Cat/kitchen"
    assert len(set(groups.values())) == 5
    (folder / "Cat" / "0.png").rename(folder / "Cat" / "renamed.png")
    renamed = {one.path.relative_to(folder).as_posix(): one.group for one in read(folder)}
    assert renamed["Cat/renamed.png"] == groups["Cat/0.png"]


def test_an_identical_file_is_taken_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_photos(tmp_path / "mine", groups=2, labels=("Cat",))
    (folder / "Dog").mkdir()
    shutil.copy(folder / "Cat" / "1.png", folder / "Dog" / "copy.png")
    assert [one.path.name for one in read(folder)] == ["0.png", "1.png"]
    assert "Dog/copy.png: is the same picture as" in caplog.text


def test_files_that_are_no_pictures_and_misspelt_classes_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_photos(tmp_path / "mine", groups=1)
    (folder / "Cat" / "phone.heic").write_bytes(b"")
    (folder / "Cat" / ".DS_Store").write_bytes(b"")
    with caplog.at_level(logging.INFO):
        assert len(read(folder)) == 3
    assert "left out: .heic (1)" in caplog.text
    assert "unrelated pictures are those of other" in caplog.text
    (folder / "Dog").rename(folder / "dog")
    with pytest.raises(EarwitnessError, match="rename the folder to Dog"):
        read(folder)


def test_no_pictures_at_all_says_what_to_do(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "source", groups=1)
    with pytest.raises(EarwitnessError, match=r"source: no pictures: .*--pictures"):
        read(source)
    with pytest.raises(EarwitnessError, match=r"nowhere: can't be read"):
        read(tmp_path / "nowhere")


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "mine", groups=2)
    photo = folder / "Dog" / "1.png"
    photo.write_bytes(photo.read_bytes()[:200])
    with pytest.raises(EarwitnessError, match=r"Dog/1.png: is not a picture that can be decoded: .*: remove"):
        check_pictures(read(folder), workers=2)
    photo.unlink()
    make_clip(folder / "Dog" / "sound.mp4", seconds=1)
    with pytest.raises(EarwitnessError, match=r"sound.mp4: .*no video"):
        check_pictures(read(folder), workers=1)


def test_photos_are_upright_opaque_and_not_too_large(tmp_path: Path) -> None:
    pixels = np.zeros((600, 1200, 3), np.uint8)
    pixels[:, :600] = 255
    photo = Image.fromarray(pixels)
    turned = photo.getexif()
    turned[0x0112] = 6  # Orientation: the camera was held upright
    photo.save(tmp_path / "turned.jpg", exif=turned)
    upright = np.asarray(open_photo(tmp_path / "turned.jpg"))
    assert upright.shape == (640, 320, 3)
    assert upright[:300].mean() > 250
    assert upright[340:].mean() < 5
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(open_photo(tmp_path / "clear.png"))[20, 20].tolist() == [128, 128, 128]


def test_a_real_clip_is_read_by_the_daemons_reader(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", seconds=2, video="h264", fps=10, size=(240, 240))
    found = open_clip(clip)
    assert len(found.pixels) == len(found.at_s) == 20
    assert found.at_s[[0, 10]] == pytest.approx([0, 1])
    assert found.pixels[0].shape == (224, 224, 3)


def test_pictures_of_no_class_are_unrelated(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "mine", groups=3)
    pool = pool_of(read(folder), ("Cat", "Speech"))
    assert list(pool.classes) == ["Cat"]
    assert [len(pool.classes["Cat"]), len(pool.unrelated)] == [3, 6]
