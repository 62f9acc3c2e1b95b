"""Hashes of media that are remembered: a changed file is noticed, and nothing but time depends on the file."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from streamer.errors import EarwitnessError
from train.data.hashes import FILE, hashed, media_sha256


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Media that were written a while ago."""
    paths = [tmp_path_factory.mktemp("media") / f"{number}.wav" for number in range(6)]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    settle(*paths)
    return paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the features."""
    (tmp_path / "features").mkdir()
    return tmp_path / "features"


def settle(*paths: Path) -> None:
    """Set the times of modification back, and wait until those of change, which can't be set, are old enough."""
    for path in paths:
        os.utime(path, (1e9, 1e9))
    time.sleep(2.1)


def remembered(folder: Path) -> dict[str, list[object]]:
    return json.loads((folder / FILE).read_text())["media"]  # type: ignore[no-any-return]


def forge(folder: Path, path: Path, sha256: str) -> None:
    """Write another hash into the file, to see whether it is taken from there."""
    whole = json.loads((folder / FILE).read_text())
    whole["media"][str(path)][-1] = sha256
    (folder / FILE).write_text(json.dumps(whole))


def test_media_that_have_not_changed_are_not_read_again(clips: list[Path], folder: Path) -> None:
    expected = {path: media_sha256(path) for path in clips}
    assert hashed(clips, folder) == expected
    assert {name: one[-1] for name, one in remembered(folder).items()} == {str(p): h for p, h in expected.items()}
    forge(folder, clips[2], "forged")
    assert hashed(clips, folder) == {**expected, clips[2]: "forged"}


def test_a_changed_file_is_noticed_whatever_its_times_say(folder: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    settle(*paths)
    hashed(paths, folder)
    for path in paths:
        forge(folder, path, "forged")
    paths[0].write_bytes(b"longer" * 2000)
    paths[1].write_bytes(b"x" + paths[1].read_bytes()[1:])  # the same size, another time
    paths[2].write_bytes(b"x" + paths[2].read_bytes()[1:])  # the same size, and the time set back
    os.utime(paths[2], (1e9, 1e9))
    new = tmp_path / "new"
    new.write_bytes(b"x" + paths[3].read_bytes()[1:])  # another file under its name
    os.utime(new, (1e9, 1e9))
    new.replace(paths[3])
    assert hashed(paths, folder) == {**{path: media_sha256(path) for path in paths[:4]}, paths[4]: "forged"}


def test_a_file_that_may_still_be_written_is_not_remembered(clips: list[Path], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new.wav").write_bytes(b"just now")
    hashed([tmp_path / "new.wav", clips[1]], folder)
    assert list(remembered(folder)) == [str(clips[1])]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b'{"format": 2, "media": {}}', b'{"format":1,"media":{"a":[1]}}']
)
def test_a_damaged_file_is_said_in_one_line_and_made_again(
    clips: list[Path], folder: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    (folder / FILE).write_bytes(damage)
    assert hashed(clips, folder) == {path: media_sha256(path) for path in clips}
    assert "hashes.json: can't be read" in caplog.text
    assert "\n" not in caplog.messages[0]
    assert len(remembered(folder)) == 6


def test_several_processes_remember_all_that_each_has_read(clips: list[Path], folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=hashed, args=(clips[number::3], folder)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(remembered(folder)) == 6


def test_names_that_are_no_text_and_folders_that_are_not_there(clips: list[Path], folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.wav")
    odd.write_bytes(b"odd")
    assert hashed([odd, clips[0]], tmp_path / "nowhere") == {p: media_sha256(p) for p in (odd, clips[0])}
    assert not (tmp_path / "nowhere").exists()
    settle(odd)
    for _ in range(2):
        assert hashed([odd], folder) == {odd: media_sha256(odd)}
    with pytest.raises(EarwitnessError, match=r"gone.wav: can't be read"):
        hashed([tmp_path / "gone.wav"], folder)


def test_a_folder_that_can_not_be_written_costs_time_alone(
    clips: list[Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / ".hashes.lock").mkdir()
    assert hashed(clips, folder) == {path: media_sha256(path) for path in clips}
    assert "hashes.json: can't be written (Is a directory): media are read at every start" in caplog.text
