"""Which clips a command line names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamer.errors import UsageError
from streamer.replay.clips import Clip, clips_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.WAV", "a.mp4", "notes.md", "sub/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_s_media_by_name_and_each_file_once(folder: Path) -> None:
    found = clips_of([f"{folder}/./b.WAV", str(folder), "http://h/c?token=x/y"])
    assert found == [
        Clip(f"{folder}/./b.WAV", "b.WAV"),
        Clip(f"{folder}/a.mp4", f"{folder.name}/a.mp4"),
        Clip(f"{folder}/sub/a.mp4", "sub/a.mp4"),
        Clip("http://h/c?token=x/y", "c"),
    ]


def test_a_listing_s_paths_are_relative_to_it(folder: Path) -> None:
    listing = folder / "list.csv"
    odd = os.fsdecode(b"caf\xe9.wav")
    listing.write_bytes(
        b"\xef\xbb\xbffilename\tonset\toffset\tevent_label\r\na.mp4\t0\t1\tDog\r\na.mp4\t1\t2\tDog\r\n"
        b"caf\xe9.wav\r\n" + rb"caf\xe9.wav" + b"\r\nsub/a.mp4"
    )
    assert [clip.path for clip in clips_of([str(listing), str(folder)])] == [
        str(folder / name) for name in ("a.mp4", odd, "sub/a.mp4", "b.WAV")
    ]


def test_what_names_no_clip_or_two_alike_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="no clips in this folder"):
        clips_of([str(folder / "empty")])
    with pytest.raises(UsageError, match=r"http://h/x\?id=1 and http://h/x\?id=2 would have the same name"):
        clips_of(["http://h/x?id=1", "http://h/x?id=2"])
