"""A part's clips and its annotations belong together, or it is said: targets are never zero for want of a name."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.make_media import make_clip
from tests.train.test_cache import features, make_corpus
from tests.train.test_corpus import CLASSES
from tests.train.test_resume import arguments, log
from train import cli
from train.data import targets
from train.data.dataset import Corpus


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    source = make_corpus(tmp_path, events={1: 1.0})
    assert features(source, tmp_path / "features") == 0
    return source, tmp_path / "features"


def rename(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def strong_targets(source: Path, features: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    part = Corpus.read(source).part("train", features, ["spectral"])
    assert part.truth is not None
    return targets.strong(part.truth, part.rows, CLASSES, int(part.features.cells.max()))


def test_annotations_of_other_suffixes_make_the_same_targets_everywhere(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    source, stored = data
    before = strong_targets(*data)
    assert before.sum() > 0
    command = arguments([str(source), str(stored)], tmp_path / "one", steps=2)
    assert cli.main(command) == 0
    assert cli.main(["export", str(source), str(stored), str(tmp_path / "one"), str(tmp_path / "bundle")]) == 0
    for part in ("train", "weak", "unlabeled", "validation", "test"):
        rename(source / "metadata" / f"{part}.tsv", ".flac", ".wav")
    assert np.array_equal(strong_targets(*data), before)
    assert cli.main(arguments([str(source), str(stored)], tmp_path / "two", steps=2)) == 0
    assert [row["cost"] for row in log(tmp_path / "two")] == [row["cost"] for row in log(tmp_path / "one")]
    assert cli.main(["export", str(source), str(stored), str(tmp_path / "two"), str(tmp_path / "bundle2")]) == 0
    assert cli.main(["evaluate", str(source), str(stored), "--model", str(tmp_path / "bundle2")]) == 0


@pytest.mark.parametrize("part", ["train", "weak", "unlabeled", "validation"])
def test_a_part_in_which_nothing_matches_is_an_error(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    source, stored = data
    rename(source / "metadata" / f"{part}.tsv", f"{part}_", "other_")
    assert cli.main(arguments([str(source), str(stored)], tmp_path / "run", steps=1)) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{part}.tsv: annotates none of the" in last
    assert "other_00000.flac" in last


def test_clips_without_a_row_and_rows_without_a_clip_are_counted(
    data: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    source, stored = data
    rename(source / "metadata" / "train.tsv", "train_00002.", "elsewhere.")
    with caplog.at_level(logging.WARNING):
        part = Corpus.read(source).part("train", stored, ["spectral"])
    assert [clip.name for clip in part.clips] == ["train_00000.flac", "train_00001.flac", "train_00003.flac"]
    text = caplog.text
    assert "1 of 4 clips in" in text
    assert "have no row in" in text
    assert "1 of 4 clips in" in text
    assert "the first is train_00002.flac" in text
    assert "the first is elsewhere.flac" in text


def test_two_clips_of_one_row_are_refused(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, stored = data
    audio = source / "audio" / "train"
    (audio / "train_00000.mka").write_bytes((audio / "train_00000.flac").read_bytes())
    rename(source / "metadata" / "train.tsv", "train_00000.flac", "train_00000.wav")
    assert cli.main(arguments([str(source), str(stored)], tmp_path / "run", steps=1)) == 1
    assert "both match train_00000.wav" in capsys.readouterr().err


def test_events_behind_their_clips_end_are_counted(data: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    source, stored = data
    with (source / "metadata" / "train.tsv").open("a") as file:
        file.write("train_00001.flac\t7.0\t8.0\tCat\n")
    with caplog.at_level(logging.WARNING):
        Corpus.read(source).part("train", stored, ["spectral"])
    assert "1 events in" in caplog.text
    assert "begin after their clip has ended" in caplog.text


@pytest.mark.parametrize(
    ("part", "text", "says"),
    [
        ("train", "filename\tevent_labels\ntrain_00000.flac\tCat\n", "has no onsets and offsets"),
        ("train", "filename\ntrain_00000.flac\n", "has no annotations"),
        ("train", "filename\tonset\toffset\tevent_label\ntrain_00000.flac\t1\t2\tcat\n", "did you mean Cat?"),
        ("train", None, "train.tsv: there is no such file"),
        ("weak", "filename\tevent_labels\nweak_00000.flac\tBird\n", "class 'Bird' of weak_00000.flac"),
    ],
)
def test_annotations_of_another_kind_are_said_in_one_line(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, text: str | None, says: str
) -> None:
    source, stored = data
    path = source / "metadata" / f"{part}.tsv"
    path.unlink() if text is None else path.write_text(text)
    assert cli.main(arguments([str(source), str(stored)], tmp_path / "run", steps=1)) == 1
    assert says in capsys.readouterr().err


def test_the_papers_kinds_of_clips_alone_are_enough(data: tuple[Path, Path], tmp_path: Path) -> None:
    source, stored = data
    (source / "metadata" / "unlabeled.tsv").rename(source / "metadata" / "unlabel_in_domain.tsv")
    (source / "metadata" / "train.tsv").unlink()
    command = arguments(
        [str(source), str(stored)], tmp_path / "run", steps=4, batch={"weak": 2, "unlabeled": 2}, mixup=0.5
    )
    assert cli.main(command) == 0
    assert all(np.isfinite(row["cost"]) for row in log(tmp_path / "run"))
    assert cli.main(["export", str(source), str(stored), str(tmp_path / "run"), str(tmp_path / "bundle")]) == 0


def test_the_unlabelled_clips_are_those_of_dcases_list(data: tuple[Path, Path]) -> None:
    source, stored = data
    (source / "metadata" / "unlabeled.tsv").unlink()
    assert len(Corpus.read(source).part("unlabeled", stored, ["spectral"])) == 2
    (source / "metadata" / "unlabel_in_domain.tsv").write_text("filename\nunlabeled_00001.wav\n")
    part = Corpus.read(source).part("unlabeled", stored, ["spectral"])
    assert [clip.name for clip in part.clips] == ["unlabeled_00001.flac"]


def test_clips_without_sound_are_counted_and_found_silent(
    data: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    source, stored = data
    for part in ("train", "validation", "test"):
        (source / "audio" / part / f"{part}_00000.flac").unlink()
        make_clip(source / "audio" / part / f"{part}_00000.mkv", seconds=1, audio=None, video="mjpeg")
    assert features(source, stored) == 0
    with caplog.at_level(logging.WARNING):
        assert cli.main(arguments([str(source), str(stored)], tmp_path / "run", steps=2)) == 0
    assert "1 of 4 clips in" in caplog.text
    assert "have no media for spectral; the first is train_00000.mkv" in caplog.text
    assert cli.main(["export", str(source), str(stored), str(tmp_path / "run"), str(tmp_path / "bundle")]) == 0
    (source / "audio" / "test" / "test_00001.flac").unlink()
    make_clip(source / "audio" / "test" / "test_00001.mkv", seconds=2, audio=None, video="mjpeg")
    assert features(source, stored) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(source), str(stored), "--model", str(tmp_path / "bundle")]) == 1
    assert "2 of 2 clips in" in capsys.readouterr().err


def test_a_width_of_what_has_none_is_refused(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments([str(path) for path in data], tmp_path / "run", widths={"spectral": 8})
    assert cli.main(command) == 2
    assert "widths: spectral has none: only embeddings are projected" in capsys.readouterr().err


@pytest.mark.parametrize("batch", [{}, {"unlabeled": 4}, {"strong": 0}])
def test_a_batch_without_labels_is_refused(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: dict[str, int]
) -> None:
    assert cli.main(arguments([str(path) for path in data], tmp_path / "run", batch=batch)) == 2
    assert "strong or weak must be at least 1" in capsys.readouterr().err
