"""No group of recordings changes parts, however they grow: a model is never judged by what it learned from."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from tests.train.test_cache import features
from tests.train.test_corpus import make_recordings, settings
from tests.train.test_resume import arguments, killed
from train import cli
from train.data import corpus
from train.data.summary import Summary, read_summary
from train.split import Known, Pin, check_split, pin_of, read_pin

CLIPS = {"train": 3, "weak": 1, "unlabeled": 1, "validation": 2, "test": 2}
SETTINGS = settings(clips=CLIPS, clip_s=3.0)


def make(folder: Path, name: str, groups: int, *more: str) -> Path:
    """A corpus of the first `groups` groups of every class."""
    path = folder / "corpus.yaml"
    path.write_text(
        "clips: {train: 3, weak: 1, unlabeled: 1, validation: 2, test: 2}\nclip_s: 3\nclasses: [Cat, Dog]\n"
    )
    source = make_recordings(folder / f"recordings-{groups}", groups)
    command = ["corpus", str(source), str(folder / name), "--config", str(path), "--workers", "1"]
    assert cli.main([*command, *more]) == 0
    return folder / name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of few groups; a grown one, dealt anew and pinned; their features; a run and a bundle of the first."""
    folder = tmp_path_factory.mktemp("split")
    few = make(folder, "few", 6)
    make(folder, "grown", 24)
    make(folder, "pinned", 24, "--split", str(few))
    for name in ("few", "grown", "pinned"):
        assert features(folder / name, folder / "features") == 0
    assert cli.main(arguments([str(few), str(folder / "features")], folder / "run", steps=1)) == 0
    export = ["export", str(few), str(folder / "features"), str(folder / "run"), str(folder / "bundle")]
    assert cli.main([*export, "--workers", "1"]) == 0
    return folder


def test_a_corpus_that_is_pinned_keeps_known_groups_where_they_were(trained: Path) -> None:
    few, grown, pinned = (pin_of(read_summary(trained / name)) for name in ("few", "grown", "pinned"))
    assert few.moved(grown)  # the same seed and shares: that was all that was compared
    assert not few.moved(pinned)
    assert set(pinned.parts) == set(grown.parts)
    counts = {part: len(groups) for part, groups in pinned.json().items()}
    assert counts == {part: len(groups) for part, groups in grown.json().items()}
    assert read_summary(trained / "pinned").split_from == "few"
    assert read_pin(trained / "bundle") == few


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(command) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_group_that_changed_sides_is_refused_wherever_a_model_meets_a_corpus(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored, bundle, run = str(trained / "features"), str(trained / "bundle"), trained / "run"
    grown = [str(trained / "grown"), stored]
    says = "groups of recordings in different parts"
    assert says in refused([*arguments(grown, tmp_path / "new", steps=2), "--from", bundle], capsys)
    assert says in refused(arguments(grown, run, steps=2), capsys)
    assert says in refused(["export", *grown, str(run), str(tmp_path / "made")], capsys)
    parts = pin_of(read_summary(trained / "grown")).parts
    read = {parts[group] for group in pin_of(read_summary(trained / "few")).moved(Pin(parts))} - {"train"}
    assert read
    for part in ("validation", "test"):
        command = ["evaluate", *grown, "--model", bundle, "--part", part]
        if part in read:
            assert says in refused(command, capsys)
        else:
            assert cli.main(command) == 0
    assert not (tmp_path / "made").exists()


def test_a_model_goes_on_with_a_grown_corpus_that_is_pinned_to_its_own(trained: Path, tmp_path: Path) -> None:
    pinned, stored = str(trained / "pinned"), str(trained / "features")
    command = [*arguments([pinned, stored], tmp_path / "run", steps=2), "--from", str(trained / "bundle")]
    assert cli.main(command) == 0
    assert cli.main(["export", pinned, stored, str(tmp_path / "run"), str(tmp_path / "made"), "--workers", "1"]) == 0
    made = Bundle.load(tmp_path / "made")
    assert read_pin(tmp_path / "made") == pin_of(read_summary(trained / "pinned"))
    assert not made.provenance.split_unchecked
    assert cli.main(["evaluate", pinned, stored, "--model", str(tmp_path / "made")]) == 0


def old(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle as a version wrote it that pinned no groups."""
    return replace(bundle, provenance=msgspec.structs.replace(bundle.provenance, split=None, **changes))


def test_a_model_that_gives_only_counts_is_compared_by_them_and_what_can_not_be_checked_is_said(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    bundle = old(Bundle.load(trained / "bundle"))
    bundle.save(tmp_path / "old")
    few, grown, pinned = ([str(trained / name), str(trained / "features")] for name in ("few", "grown", "pinned"))
    begin = ["--from", str(tmp_path / "old")]
    with caplog.at_level(logging.WARNING):
        assert cli.main([*arguments(few, tmp_path / "a", steps=2), *begin]) == 0
    assert "so moved groups can't be detected" in caplog.text
    assert "the number of groups are the same" in caplog.text
    assert "split_unchecked" in (tmp_path / "a" / "fit.json").read_text()
    assert "trained on other recordings" in refused([*arguments(grown, tmp_path / "b", steps=2), *begin], capsys)
    assert cli.main([*arguments(pinned, tmp_path / "c", steps=2), *begin]) == 0  # it says what it was pinned to
    seed = {**bundle.provenance.corpus, "seed": 99}
    old(bundle, corpus=seed).save(tmp_path / "other")
    command = [*arguments(few, tmp_path / "d", steps=2), "--from", str(tmp_path / "other")]
    assert "another seed" in refused(command, capsys)
    assert "only how many" in refused(
        ["corpus", str(trained / "recordings-6"), str(tmp_path / "e"), "--split", str(tmp_path / "old")], capsys
    )


def test_a_corpus_that_pinned_nothing_is_read_by_its_parts_groups() -> None:
    groups = {
        "train": {"Cat": ["a", "b", "v"], "background/x": ["x"]},
        "validation": {"Cat": ["v"]},
        "test": {"Cat": ["t"]},
    }
    summary = Summary({"classes": ["Cat"], "train_on_validation": True}, groups, {})
    assert pin_of(summary).json() == {"train": ["a", "b", "x"], "validation": ["v"], "test": ["t"]}


def test_only_the_parts_that_are_read_must_hold_recordings_that_the_model_does_not_know() -> None:
    def split(**parts: str) -> dict[str, list[str]]:
        return {part: list(groups) for part, groups in parts.items()}

    known = Known("mine", Pin.of_json(split(train="ab", validation="v", test="t")), ({"train_on_validation": True},))
    apart = Summary({"classes": ["Cat"]}, {}, {}, split=split(train="ab", validation="v", test="t"))
    assert check_split(known, apart, ["test"])
    with pytest.raises(EarwitnessError, match="another train_on_validation"):
        check_split(known, apart, ["validation"])
    moved = Summary(
        {"classes": ["Cat"], "train_on_validation": True}, {}, {}, split=split(train="a", validation="b", test="t")
    )
    assert check_split(known, moved, ["test"])
    with pytest.raises(EarwitnessError, match="1 groups of recordings in different parts"):
        check_split(known, moved, ["validation"])
    learnt = Summary({"classes": ["Cat"], "train_on_validation": True}, {}, {}, split=split(train="a", test="bt"))
    with pytest.raises(EarwitnessError, match="'b': train there, test here"):
        check_split(known, learnt, ["test"])


def test_what_says_nothing_of_its_corpora_is_not_called_certain(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not check_split(Known("mine", None, ()), Summary({"classes": ["Cat"]}, {}, {}))
    assert "mine does not record what it was trained on" in caplog.text


def test_a_corpus_that_is_killed_half_way_is_none_and_can_be_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_recordings(tmp_path / "recordings", 3)
    path = tmp_path / "corpus.yaml"
    path.write_text("clips: {train: 2000, weak: 1, unlabeled: 1, validation: 2, test: 2}\nclasses: [Cat, Dog]\n")
    half = tmp_path / "corpus.part"
    killed(
        ["corpus", str(source), str(tmp_path / "corpus"), "--config", str(path), "--workers", "2"],
        lambda: len(list((half / "audio" / "train").glob("*"))) >= 5,
    )
    assert not (tmp_path / "corpus").exists()
    assert "is not a complete corpus" in refused(["features", str(half), str(tmp_path / "features")], capsys)
    (half / "audio" / "train" / "left over.flac").write_bytes(b"")
    corpus.make(source, tmp_path / "corpus", SETTINGS, workers=1)
    assert not half.exists()
    assert {one.name for one in (tmp_path / "corpus").iterdir()} == {"audio", "metadata", "corpus.json"}
    assert len(list((tmp_path / "corpus" / "audio" / "train").iterdir())) == 3


def test_a_folder_that_is_no_corpus_is_left_alone(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "recordings", 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(EarwitnessError, match="already exists and is not a corpus"):
        corpus.make(source, tmp_path / "mine", SETTINGS, workers=1)
    assert [one.name for one in (tmp_path / "mine").iterdir()] == ["notes.txt"]
