"""Truth files: what is read, what is written, and which clip is meant by a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamer.errors import TruthError
from streamer.replay.truth import LabelledEvent, Truth, labelled, read_truth, strong_tsv, weak_tsv
from streamer.types import SAMPLE_RATE_HZ, Offset


def test_a_strong_truth_is_read_with_odd_names_and_clips_without_events(tmp_path: Path) -> None:
    path = tmp_path / "eval.csv"
    path.write_bytes(
        b"\xef\xbb\xbffilename\tonset\toffset\tevent_label\r\n"
        b"Y-6p32k2WUCs_0.000_10.000.wav\t0.5\t10.250\tDog\r\n"
        b"Y__32k2WUC-s_30.000_40.000.wav\t\t\t\r\n"
        b"empty.wav\r\n"
        b"\r\n"
        b"audio/eval/1Ro0FgMWTUE_120_130.wav\t0.000\t2.081\tCat\r\n"
        b"audio/eval/1Ro0FgMWTUE_120_130.wav\t1.000\t3.000\tCat\r\n"
    )
    truth = read_truth(path)
    assert truth.strong
    assert truth.events == {
        "Y-6p32k2WUCs_0.000_10.000.wav": (LabelledEvent(0.5, 10.25, "Dog"),),
        "Y__32k2WUC-s_30.000_40.000.wav": (),
        "empty.wav": (),
        "audio/eval/1Ro0FgMWTUE_120_130.wav": (LabelledEvent(0, 2.081, "Cat"), LabelledEvent(1, 3, "Cat")),
    }
    assert truth.tags["audio/eval/1Ro0FgMWTUE_120_130.wav"] == {"Cat"}
    written = tmp_path / "again.tsv"
    written.write_text(strong_tsv(truth.events))
    assert read_truth(written).events == truth.events


def test_a_weak_truth_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "weak.csv"
    path.write_text("filename\tevent_labels\nYKK227gPpRn4_30.000_40.000.wav\tCat,Speech\nb.wav\t\n")
    truth = read_truth(path)
    assert not truth.strong
    assert truth.tags == {"YKK227gPpRn4_30.000_40.000.wav": {"Cat", "Speech"}, "b.wav": frozenset()}
    assert weak_tsv(truth.tags) == path.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must be the tab-separated header"),
        ("filename\n a.wav\n", "lists clips, but has no annotations"),
        ("filename,onset,offset,event_label\n", "first line must be"),
        ("filename\tonset\toffset\tevent_label\na.wav\tx\t1\tDog\n", "line 2: onset and offset must be seconds"),
        ("filename\tonset\toffset\tevent_label\na.wav\t2\t1\tDog\n", "line 2: an event must have 0 <= onset < offset"),
        ("filename\tonset\toffset\tevent_label\na.wav\t0\tnan\tDog\n", "line 2: an event must have"),
        ("filename\tonset\toffset\tevent_label\na.wav\t0\t1\t\n", "line 2: the event has no event_label"),
        ("filename\tonset\toffset\tevent_label\n\t0\t1\tDog\n", "line 2: expected 4 tab-separated fields"),
        ("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\tx\n", "line 2: expected 4 tab-separated fields"),
    ],
)
def test_a_broken_truth_is_one_line_that_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "truth.tsv"
    path.write_text(text)
    with pytest.raises(TruthError, match=message) as caught:
        read_truth(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_truth_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TruthError, match="No such file"):
        read_truth(tmp_path / "none.tsv")
    (tmp_path / "sound.wav").write_bytes(b"RIFF\xff\xfe\x00")
    with pytest.raises(TruthError, match="not UTF-8"):
        read_truth(tmp_path / "sound.wav")


def truth_of(*names: str) -> Truth:
    return Truth("truth.tsv", dict.fromkeys(names, ()), dict.fromkeys(names, frozenset()), strong=True)


def test_a_name_with_a_folder_is_of_the_clip_in_that_folder(tmp_path: Path) -> None:
    path = tmp_path / "truth.tsv"
    path.write_text(
        "filename\tonset\toffset\tevent_label\n"
        "kitchen/001.wav\t1\t2\tDog\n./bath/001.wav\t0.5\t2\tSpeech\nbath//001.wav\t3\t7\tCat\n"
    )
    truth = read_truth(path)
    assert truth.tags == {"kitchen/001.wav": {"Dog"}, "bath/001.wav": {"Speech", "Cat"}}
    assert truth.name_of("/data/kitchen/001.wav") == "kitchen/001.wav"
    assert truth.name_of("/data/hall/001.wav") is None
    assert truth.names_of(["/data/bath/001.flac", "/data/hall/001.wav"]) == {"/data/bath/001.flac": "bath/001.wav"}


def test_what_could_be_meant_twice_is_refused_with_both_names() -> None:
    with pytest.raises(TruthError, match=r"^truth\.tsv: /d/b\.mp4 matches b\.wav and b\.flac"):
        truth_of("b.wav", "b.flac").name_of("/d/b.mp4")
    with pytest.raises(TruthError, match=r"^truth\.tsv: /d/x\.wav and /d/x\.flac both match x\.mp4"):
        truth_of("x.mp4").names_of(["/d/x.wav", "/d/x.flac"])
    with pytest.raises(TruthError, match=r"^truth\.tsv: /d/a/1\.wav and /d/b/1\.wav both match 1\.wav"):
        truth_of("1.wav").names_of(["/d/a/1.wav", "/d/b/1.wav"])


@pytest.mark.parametrize(
    "name",
    [b"caf\xe9.wav", b"a\tb\nc.wav", b'"a".wav', b" a\\t.wav ", b"\xe2\x80\xaea.wav", b"a\xc2\x85b.wav"],
)
def test_any_name_is_one_row_and_comes_back(tmp_path: Path, name: bytes) -> None:
    clip, path = os.fsdecode(name), tmp_path / "truth.tsv"
    events = {clip: (LabelledEvent(1, 2, "Dog"), LabelledEvent(3, 4, "Cat")), "other.wav": ()}
    path.write_text(strong_tsv(events))
    assert len(path.read_text().splitlines()) == 4
    assert read_truth(path).events == events
    path.write_text(weak_tsv({clip: {"Dog"}}))
    assert read_truth(path).tags == {clip: {"Dog"}}


def test_names_byte_by_byte_and_in_quotes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weak.tsv"
    path.write_bytes(b'filename\tevent_labels\ncaf\xe9.wav\tDog\n"say ""hi"".wav"\tCat\nfilm.wav"\tCat\n')
    assert set(read_truth(path).tags) == {os.fsdecode(b"caf\xe9.wav"), 'say "hi".wav', 'film.wav"'}


def test_tracked_events_in_seconds_by_onset() -> None:
    offsets = [
        Offset("2", "door", 0, "Dog", 2 * SAMPLE_RATE_HZ, 3 * SAMPLE_RATE_HZ, 0.5, 0.6, "silence"),
        Offset("1", "door", 0, "Cat", SAMPLE_RATE_HZ, 5 * SAMPLE_RATE_HZ, 0.5, 0.6, "silence"),
    ]
    assert labelled(offsets) == (LabelledEvent(1, 5, "Cat"), LabelledEvent(2, 3, "Dog"))
