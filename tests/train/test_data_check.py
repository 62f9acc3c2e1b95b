"""The files of DCASE 2018 task 4 and DESED: every row is read, what is wrong is said, and what is there is used."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

import numpy as np
import pytest
import yaml

from streamer.bundle import Bundle
from streamer.replay.truth import read_truth
from tests.make_media import make_clip, tone
from train import cli
from train.data import check, dcase
from train.data.config import CLASSES
from train.data.dataset import Corpus

PROFILE = Path(__file__).parents[2] / "configs" / "train" / "paper.yaml"
STRONG = "filename\tonset\toffset\tevent_label\n"
ID = string.ascii_letters + string.digits + "-_"


def clip(video: str, seconds: float = 2.0) -> str:
    return f"Y{video}_30.000_{30 + seconds:.3f}.wav"


WEAK = [clip("-_eeeeeeee1"), clip("__eeeeeeee2"), clip("weak_-_wea3")]
UNLABELLED = [clip("unlabelled1"), clip("-nlabelled_")]
TEST = [clip("test_test_1"), clip("test_test_2")]
EVAL = [clip("-val_eval_1"), clip("-val_eval_2"), clip("-val_eval_3")]


def make_root(root: Path, *, desed: bool = False) -> Path:
    """A tiny dataset in the layout of DCASE 2018 or of DESED, with videos and audio in several folders."""
    metadata, suffix = root / "metadata", "tsv" if desed else "csv"
    weak = "".join(f"{name}\tDog,Speech\n" if index else f"{name}\tCat\n" for index, name in enumerate(WEAK))
    test = "".join(f"{name}\t0.100\t1.500\tDog\n{name}\t0.5\t1.0\tSpeech\n" for name in TEST)
    evaluation = f"{EVAL[0]}\t0.000\t2.000\tFrying\n{EVAL[1]}\t\t\t\n{EVAL[2]}\t0.2\t0.9\tCat\n"
    texts = {
        "train/weak": "filename\tevent_labels\n" + weak,
        "train/unlabel_in_domain": "filename\n" + "".join(f"{name}\n" for name in UNLABELLED),
        "validation/test_dcase2018" if desed else "test/test": STRONG + test,
        "validation/eval_dcase2018" if desed else "eval/eval": STRONG + evaluation,
    }
    if desed:
        texts["validation/validation"] = STRONG + test + evaluation
        texts["eval/public"] = STRONG + "1Ro0FgMWTUE_120_122.wav\t0.0\t1.5\tBlender\n"
    for stem, text in texts.items():
        (metadata / stem).parent.mkdir(parents=True, exist_ok=True)
        (metadata / f"{stem}.{suffix}").write_text(text)
    for folder in ("audio/train/weak", "video/mine", "other"):
        (root / folder).mkdir(parents=True)
    put(root / "audio/train/weak", WEAK[0], ".wav")
    put(root / "video/mine", WEAK[1], ".mp4")
    put(root / "video/mine", WEAK[2], ".mkv")
    put(root / "other", UNLABELLED[0], ".FLAC")
    put(root / "other", UNLABELLED[1], ".ogg")
    for name in (*TEST, *EVAL):
        put(root / "video/mine", name, ".mkv")
    return root


def put(folder: Path, name: str, suffix: str, *, seconds: float = 2.0) -> Path:
    """The media of a row, under another suffix."""
    path = folder / (name.removesuffix(".wav") + suffix)
    codecs = {".mp4": ("aac", "h264"), ".mkv": ("flac", "mjpeg"), ".flac": ("flac", None), ".ogg": ("opus", None)}
    audio, video = codecs.get(suffix.lower(), ("pcm", None))
    container = {".flac": "flac"}.get(suffix.lower())
    return make_clip(path, seconds=seconds, audio=audio, video=video, size=(64, 48), fps=10, format=container)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("dcase") / "root")


@pytest.mark.parametrize("desed", [False, True])
def test_a_whole_root_is_well_in_both_layouts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, desed: bool
) -> None:
    root = make_root(tmp_path / "root", desed=desed)
    found = check.check(root, 1)
    rows = {one.table.name: (one.rows, one.clips, one.without_events, one.usable, one.pictures) for one in found.tables}
    assert rows["weak"] == (3, 3, 0, 3, 2)
    assert rows["unlabelled"] == (2, 2, 0, 2, 0)
    assert rows["test"] == (4, 2, 0, 2, 2)
    assert rows["eval"] == (3, 3, 1, 3, 3)
    assert rows["validation"] == ((7, 5, 1, 5, 5) if desed else (0, 0, 0, 0, 0))
    assert set(found.counts()) == ({"missing", "no picture"} if desed else {"no picture"})
    assert found.well
    assert cli.main(["data", "check", str(root), "--workers", "1", "--report", str(tmp_path / "all.tsv")]) == 0
    out = capsys.readouterr().out
    assert "no picture: 3 (harmless)" in out
    assert "everything runs on the usable clips" in out
    assert ("validation  not there: metadata/validation/validation.tsv" in out) is not desed
    assert len((tmp_path / "all.tsv").read_text().splitlines()) == 1 + len(found.findings)


def test_all_rows_of_files_as_large_as_the_published_ones_are_read(tmp_path: Path) -> None:
    """Names, numbers of rows, and clips without events as in the real files, written here by their format."""
    draw = random.Random(1)

    def names(count: int, *, whole_seconds: bool = False) -> list[str]:
        made = []
        for _ in range(count):
            video, start = "".join(draw.choices(ID, k=11)), draw.randrange(600)
            made.append(
                f"{video}_{start}_{start + 10}.wav" if whole_seconds else f"Y{video}_{start}.000_{start + 10}.000.wav"
            )
        return made

    def events(clips: list[str], empty: int = 0) -> str:
        rows = [f"{name}\t\t\t\n" for name in clips[:empty]]
        for name in clips[empty:]:
            for onset in (0.0, 2.618, 9.5)[: draw.randint(1, 3)]:
                rows.append(f"{name}\t{onset:.3f}\t{onset + 0.7:.3f}\t{draw.choice(CLASSES)}\n")  # some end after 10 s
        return STRONG + "".join(rows)

    test, evaluation = names(288), names(880)
    texts = {
        "train/weak.tsv": "filename\tevent_labels\n"
        + "".join(f"{name}\t{','.join(draw.sample(CLASSES, draw.randint(1, 3)))}\n" for name in names(1578)),
        "train/unlabel_in_domain.tsv": "filename\n" + "\n".join(names(14_412)) + "\n",
        "validation/test_dcase2018.tsv": events(test),
        "validation/eval_dcase2018.tsv": events(evaluation, empty=15),
        "validation/validation.tsv": events(test + evaluation),
        "eval/public.tsv": events(names(692, whole_seconds=True)),
    }
    for name, text in texts.items():
        (tmp_path / "metadata" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "metadata" / name).write_text(text)
    found = check.check(tmp_path, 1, rows_only=True)
    assert {one.table.name: one.clips for one in found.tables} == {
        "weak": 1578,
        "unlabelled": 14_412,
        "test": 288,
        "eval": 880,
        "validation": 1168,
        "public": 692,
    }
    for one in found.tables:
        assert one.rows == len(texts[one.file.removeprefix("metadata/")].splitlines()) - 1
    assert {one.table.name: one.without_events for one in found.tables if one.without_events} == {"eval": 15}
    assert found.counts() == {"missing": 1578 + 14_412 + 288 + 880 + 1168 + 692}
    assert not found.well  # there is no media at all
    assert len(Corpus.read(tmp_path).summary.split or {}) == 3


def test_names_are_sliced_not_split() -> None:
    assert dcase.clip_name("Y-_a_b-c_d_e_30.000_40.500.wav") == dcase.ClipName("-_a_b-c_d_e", 30.0, 40.5)
    assert dcase.clip_name("YYYYYYYYYYYY_1_2.wav") == dcase.ClipName("YYYYYYYYYYY", 1.0, 2.0)
    assert dcase.clip_name("1Ro0FgMWTUE_120_130.wav") == dcase.ClipName("1Ro0FgMWTUE", 120.0, 130.0)
    for wrong in ("Yshort_1_2.wav", "Yabcdefghijk_2_1.wav", "Yabcdefghijk_1_2.mp4", "Yabcdefghijk_1.wav"):
        assert dcase.clip_name(wrong) is None


ROWS: list[tuple[str, str, str, int, str]] = [
    ("table", "train/weak.csv", "name,labels\n", 1, "the first line must be the tab-separated header"),
    ("table", "test/test.csv", "filename\tevent_labels\nx\tCat\n", 1, "must be 'filename onset offset event_label'"),
    ("table", "eval/eval.csv", "\x00\x01", 1, "the first line must be"),
    ("fields", "test/test.csv", f"+{TEST[0]}\t0.1\t0.2\tDog\tmore\n", 6, "expected 4 tab-separated fields"),
    ("name", "train/unlabel_in_domain.csv", "+holiday.wav\n", 4, "'holiday.wav' is not the name of a clip"),
    ("times", "test/test.csv", f"+{TEST[0]}\t1.0\t0.5\tDog\n", 6, "0 <= onset < offset, not 1.0 and 0.5"),
    ("times", "test/test.csv", f"+{TEST[0]}\tearly\t0.5\tDog\n", 6, "must be seconds, not 'early' and '0.5'"),
    (
        "label",
        "test/test.csv",
        f"+{TEST[0]}\t0.1\t0.5\tdog\n",
        6,
        "'dog' is not one of the ten classes; did",
    ),
    ("label", "test/test.csv", f"+{TEST[0]}\t0.1\t0.5\t\n", 6, "the event has no event_label"),
    ("label", "train/weak.csv", f"+{clip('weak_weak_9')}\t\n", 5, "has no class"),
    ("duplicate", "train/weak.csv", f"+{WEAK[0]}\tCat\n", 5, f"{WEAK[0]} is in line 2 already"),
    ("duplicate", "test/test.csv", f"+{TEST[0]}\t0.1\t1.5\tDog\n", 6, "the same event of"),
    ("duplicate", "test/test.csv", f"+{TEST[0]}\t\t\t\n", 6, "has events in line 2, and none here"),
    ("beyond", "test/test.csv", f"+{TEST[0]}\t5.0\t6.0\tDog\n", 6, "begins at 5 s of a clip of 2 s"),
    ("two parts", "eval/eval.csv", f"+{TEST[0]}\t0.1\t0.5\tDog\n", 5, "is also in metadata/test/test.csv, line 2"),
    ("missing", "train/weak.csv", f"+{clip('weak_weak_9')}\tCat\n", 5, "there is no media of Yweak_weak_9"),
]


@pytest.mark.parametrize(("kind", "file", "text", "line", "says"), ROWS)
def test_each_kind_of_broken_row_has_file_line_and_what_to_do(
    whole: Path, tmp_path: Path, kind: str, file: str, text: str, line: int, says: str
) -> None:
    root = tmp_path / "root"
    for path in (whole / "metadata").rglob("*.csv"):
        copy = root / path.relative_to(whole)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "media").symlink_to(whole)
    for folder in ("audio", "video", "other"):
        (root / folder).symlink_to(whole / folder)
    path = root / "metadata" / file
    path.write_text(path.read_text() + text[1:] if text.startswith("+") else text)
    found = [one for one in check.check(root, 1, rows_only=True).findings if one.kind == kind and says in one.what]
    assert [(one.file, one.line) for one in found] == [(f"metadata/{file}", line)]
    assert str(found[0]).startswith(f"metadata/{file}, line {line}: {kind}: ")
    assert check.WHAT_TO_DO[kind] in str(found[0])


MEDIA: list[tuple[str, str]] = [
    ("empty", "the file has no bytes"),
    ("unreadable", "not an audio or video file"),
    ("two files", "is meant by"),
    ("unfinished", "is no finished media"),
    ("no sound", "it has no sound"),
    ("silent", "digital silence"),
    ("no picture", "it has no pictures"),
    ("too short", "has 1.0 s, its name says 2 s"),
    ("late event", "the event begins at 1.2 s, video/mine/Ytest_test_2_30.000_32.000.mkv ends at 1.0 s"),
    ("missing", "there is no media of"),
]
"""Kind of media, and what is said. Timestamps that jump are `unreadable` too."""


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> check.Check:
    root = make_root(tmp_path_factory.mktemp("dcase") / "root")
    video, audio, other = root / "video/mine", root / "audio/train/weak", root / "other"
    path_of = {path.name.rpartition(".")[0] + ".wav": path for path in dcase.media_in(root)}
    path_of[WEAK[0]].write_bytes(b"")
    path_of[WEAK[1]].write_bytes(b"this is not a video" * 50)
    put(other, WEAK[2], ".wav")  # and its .mkv
    path_of[UNLABELLED[0]].rename(other / (UNLABELLED[0].removesuffix(".wav") + ".mp4.part"))
    make_clip(path_of[EVAL[0]], seconds=2, audio=None, video="mjpeg", size=(64, 48))
    make_clip(path_of[EVAL[1]], audio="flac", video="mjpeg", size=(64, 48), samples=0 * tone(2, 48_000))
    put(video, TEST[1], ".mkv", seconds=1.0)
    test = root / "metadata/test/test.csv"
    test.write_text(test.read_text() + f"{TEST[1]}\t1.2\t1.4\tCat\n")
    assert audio.is_dir()
    return check.check(root, 1)


@pytest.mark.parametrize(("kind", "says"), MEDIA)
def test_each_kind_of_broken_media_has_file_and_what_to_do(damaged: check.Check, kind: str, says: str) -> None:
    found = [one for one in damaged.findings if one.kind == kind and says in one.what]
    assert len(found) == 1
    assert found[0].file
    assert check.WHAT_TO_DO[kind] in str(found[0])
    assert not damaged.well


def test_what_is_damaged_is_not_counted_as_usable(damaged: check.Check) -> None:
    assert {one.table.name: one.usable for one in damaged.tables if one.file} == {
        "weak": 0,
        "unlabelled": 1,
        "test": 2,
        "eval": 3,
    }
    assert {*(kind for kind, *_ in ROWS), *(kind for kind, _ in MEDIA)} == set(check.WHAT_TO_DO)  # every kind is tested


def test_a_folder_that_is_no_root_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "has none of the annotation files of DCASE 2018 or DESED: metadata/train/weak.tsv" in error
    assert error.count("\n") == 1


def test_training_and_scores_take_a_root_and_run_on_the_part_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = make_root(tmp_path / "root")
    (root / "video/mine" / (EVAL[2].removesuffix(".wav") + ".mkv")).write_bytes(b"broken")
    next((root / "other").glob("*.ogg")).unlink()  # one of the two unlabelled clips
    features, run, model = (str(tmp_path / name) for name in ("features", "run", "model"))
    assert cli.main(["features", str(root), features, "--workers", "1"]) == 0
    assert "left out" in caplog.text
    small = {"epochs": 0, "steps": 2, "validate_every": 1, "batch": {"weak": 2, "unlabeled": 1}, "threads": 1}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(PROFILE.read_text()), **small}))
    assert cli.main(["fit", str(root), features, run, "--config", str(path)]) == 0
    assert "1 of 2 clips in" in caplog.text
    assert cli.main(["export", str(root), features, run, model]) == 0
    assert "1 of 3 clips can't be read and are left out" in caplog.text
    capsys.readouterr()
    assert cli.main(["evaluate", str(root), features, "--model", model]) == 0
    out = capsys.readouterr().out
    subset = {one.table.name: one.subset_sha256 for one in check.check(root, 1).tables}
    assert f"2 of 3 annotated clips; sha256 of this subset: {subset['eval']}" in out
    scores = Bundle.load(Path(model)).scores["test_clip"]
    assert (scores["clips"], scores["annotated"], scores["subset_sha256"]) == (2, 3, subset["eval"])
    row = json.loads((Path(run) / "log.jsonl").read_text().splitlines()[-1])
    assert row["subset_sha256"] == subset["test"]
    provenance = Bundle.load(Path(model)).provenance
    assert provenance.split is not None
    assert provenance.split["test"] == [f"youtube -val_eval_{number}" for number in (1, 2, 3)]
    assert provenance.recordings["train"]["Dog"] == 2
    assert provenance.trained_on[0].recordings == 5

    put(root / "video/mine", EVAL[2], ".mkv")  # downloaded again: another subset, another hash
    assert cli.main(["features", str(root), features, "--workers", "1"]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(root), features, "--model", model]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 annotated clips" in out
    assert subset["eval"] not in out

    assert cli.main(["fit", str(root), features, str(tmp_path / "default")]) == 1
    assert "DCASE 2018 has no strongly labelled training clips" in capsys.readouterr().err


def test_the_hash_of_a_subset_depends_on_its_clips_and_their_annotations_alone(whole: Path) -> None:
    table = next(one for one in dcase.TABLES if one.name == "eval")
    path = dcase.path_of(whole, table)
    assert path is not None
    truth = read_truth(path)
    names = list(truth.tags)
    assert truth.subset_sha256(names) == truth.subset_sha256(reversed(names))
    hashes = {truth.subset_sha256(names[:count]) for count in range(len(names) + 1)}
    assert len(hashes) == len(names) + 1
    assert np.array_equal(sorted(names), sorted(EVAL))
