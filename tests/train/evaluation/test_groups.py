"""Which recordings are behind a clip: by a corpus's own table, by a video's name, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamer.errors import TruthError
from tests.train.test_cache import make_corpus
from tests.train.test_corpus import CLASSES
from train.data.dataset import Corpus
from train.evaluation.groups import of_names, of_table

TABLE = """part\tfilename\tlabel\tgroup\tuse
test\tone.flac\tbackground\troom\tship
test\tone.flac\tCat\tcat 1\tship
test\tone.flac\tDog\tdog 1\tship
test\ttwo.flac\tbackground\troom\tship
train\ttwo.flac\tCat\tcat of another part\tship
test\tthree.flac\tbackground\tstreet\tship
test\tthree.flac\tCat\tcat 1\tship
test\tthree.flac\tCat\tcat 2\tship
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "sources.tsv"
    path.write_text(TABLE)
    return path


def names_of(table: Path, clips: list[str]) -> list[list[list[set[str]]]]:
    """The names of each clip's and class's groups, by factor."""
    found = of_table(table, clips, CLASSES, part="test").groups
    return [
        [[{found.names[one] for one in of if one >= 0} for of in clip] for clip in factor.tolist()]
        for factor in found.factors
    ]


def test_a_class_counts_with_its_own_sounds_and_a_false_alarm_with_all_of_them(table: Path) -> None:
    sounds, backgrounds = names_of(table, ["one.flac", "two.flac", "three.flac"])
    assert sounds == [[{"cat 1"}, {"dog 1"}], [set(), set()], [{"cat 1", "cat 2"}, {"cat 1", "cat 2"}]]
    assert backgrounds == [[{"room"}] * 2, [{"room"}] * 2, [{"street"}] * 2]


def test_pictures_are_a_factor_of_their_own(table: Path) -> None:
    table.write_text(TABLE + "test\tone.flac\tpicture/Dog\tphoto 1\tship\ntest\tone.flac\tpicture/Cup\tphoto 2\tship\n")
    sounds, backgrounds, pictures = names_of(table, ["one.flac", "two.flac"])
    assert sounds[0] == [{"cat 1"}, {"dog 1"}]
    assert backgrounds == [[{"room"}] * 2] * 2
    assert pictures == [[{"photo 1", "photo 2"}, {"photo 1"}], [set(), set()]]


def test_another_suffix_of_a_clip_is_the_same_clip_and_an_unknown_one_is_an_error(table: Path) -> None:
    assert names_of(table, ["some/folder/one.wav"]) == names_of(table, ["one.flac"])
    with pytest.raises(TruthError, match=r"sources\.tsv: has no row of four\.flac"):
        names_of(table, ["four.flac"])


def test_what_is_written_is_read_again(table: Path, tmp_path: Path) -> None:
    clips = ["one.flac", "two.flac", "three.flac"]
    found = of_table(table, clips, CLASSES, part="test")
    (tmp_path / "groups.tsv").write_text(found.tsv(clips))
    assert [found.number(one) for one in (1, 2)] == ["1 group of recordings", "2 groups of recordings"]
    again = of_table(tmp_path / "groups.tsv", clips, CLASSES)
    assert again.groups.names == found.groups.names
    assert all(map(np.array_equal, again.groups.factors, found.groups.factors))


def test_clips_of_dcase_are_grouped_by_their_video_and_others_stand_alone(tmp_path: Path) -> None:
    clips = ["Y-abcdefghij_0.000_10.000.wav", "Y-abcdefghij_30.000_40.000.mp4", "Y0123456789A_0.000_10.000.wav"]
    videos = of_names(clips)
    assert (videos.number(2), videos.known, len(videos.groups.names)) == ("2 videos", True, 2)
    assert videos.groups.factors[0].tolist() == [[0], [0], [1]]
    (tmp_path / "groups.tsv").write_text(videos.tsv(clips))
    again = of_table(tmp_path / "groups.tsv", clips, CLASSES)
    assert again.groups.factors[0].tolist() == [[0], [0], [1]]
    alone = of_names([*clips, "else.wav"])
    assert (alone.unit, alone.known, len(alone.groups.names)) == ("clip", False, 4)


def test_every_clip_of_a_corpus_has_its_groups(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path)
    clips = [path.name for path in sorted((corpus / "audio" / "test").iterdir())]
    found = of_table(corpus / "metadata" / "sources.tsv", clips, Corpus.read(corpus).classes, part="test")
    assert found.known
    assert all(name.partition(":")[0] in (*CLASSES, "background/hum") for name in found.groups.names)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "can't read the groups of recordings: No such file"),
        ("filename\tlabel\n", "its first line has no column group"),
        ("filename\tgroup\na.wav\t\n", "line 2: has no file name or no group"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, text: str | None, what: str) -> None:
    if text is not None:
        (tmp_path / "groups.tsv").write_text(text)
    with pytest.raises(TruthError, match=what):
        of_table(tmp_path / "groups.tsv", ["a.wav"], CLASSES)
