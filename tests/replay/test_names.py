"""Which name is meant by a clip, and what clips are called."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.replay.names import AmbiguousNameError, NameIndex, distinct_names, parts_of


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("/data/kitchen/001.wav", "kitchen/001.wav"),
        ("/data/bath/001.wav", "bath/001.wav"),
        ("/data/hall/001.wav", None),
        ("001.wav", None),
        ("/data/kitchen/001.mp4", "kitchen/001.wav"),
        ("/other/deep/down/002.wav", "002.wav"),
        ("/other/deep/down/002.FLAC", "002.wav"),
        ("/data/attic/002.wav", "attic/002.wav"),
        ("/root/only/003.wav", "/root/only/003.wav"),
        ("/data/root/only/003.wav", None),
        ("http://host/a/002.wav?token=a/b", "002.wav"),
        ("/data/cam.front", "cam.front"),
        ("/data/cam.back", None),  # .front and .back are no suffixes of media
        ("/data/Y-a_30.000_40.000.mp4", "Y-a_30.000_40.000.wav"),
        ("/data/Yc_0.000_10.000.wav", "Yc_0.000_10.000"),
        ("/data/Yc_0.000_20.000.wav", None),
        ("/data/xattic/002.wav", "002.wav"),  # parts are compared whole
        ("/data/x002.wav", None),
        (unicodedata.normalize("NFD", "/data/café.wav"), "café.wav"),
    ],
)
def test_the_longest_end_of_the_path_is_meant(clip: str, name: str | None) -> None:
    rows = ["kitchen/001.wav", "bath/001.wav", "002.wav", "attic/002.wav", "/root/only/003.wav", "cam.front"]
    rows += ["Y-a_30.000_40.000.wav", "Yc_0.000_10.000", "café.wav"]
    assert NameIndex(rows).find(clip) == name


def test_of_two_names_that_differ_in_the_suffix_the_same_one_is_meant_or_none() -> None:
    index = NameIndex(["b.wav", "b.flac", "kitchen/b.wav"])
    assert index.find("/x/b.flac") == "b.flac"
    assert index.find("/x/kitchen/b.mp4") == "kitchen/b.wav"
    with pytest.raises(AmbiguousNameError, match=r"^b\.wav and b\.flac$"):
        index.find("/x/b.mp4")


def test_dots_and_double_slashes_are_no_parts() -> None:
    assert parts_of("./a//b/../c.wav") == parts_of("../a/c.wav") == ("a", "c.wav")
    assert parts_of("//a/c.wav") == parts_of("/a/c.wav") == ("", "a", "c.wav")


def test_clips_are_called_by_as_much_of_their_path_as_tells_them_apart() -> None:
    paths = ["/d/kitchen/001.wav", "/d/bath/001.wav", "/d/bath/002.wav", "/d/001.wav", "http://h/x/003.wav?a=1"]
    names = list(distinct_names(paths).values())
    assert names == [
        "kitchen/001.wav",
        "bath/001.wav",
        "002.wav",
        "d/001.wav",
        "003.wav",
    ]
    assert distinct_names(["/d/classes"], taken=["classes"]) == {"/d/classes": "d/classes"}
    assert list(distinct_names(["https://user:pa/ss@host"]).values()) == ["***"]
    assert list(distinct_names(["https://u:p@host/Xw7rk0Ugh2?x"]).values()) == ["host"]
    with pytest.raises(AmbiguousNameError):
        distinct_names(["http://h/x.wav?id=1", "http://h/x.wav?id=2"])


paths = st.lists(st.sampled_from(["a", "b", "c.wav", "c.flac"]), min_size=1, max_size=5).map("/".join)


@given(st.sets(paths.map("/{}".format), min_size=1, max_size=12))
def test_names_are_distinct_and_each_means_its_clip(clips: set[str]) -> None:
    names = distinct_names(clips)
    assert len(set(names.values())) == len(clips)
    index = NameIndex(names.values())
    assert {clip: index.find(clip) for clip in clips} == names
