"""A report is written clip by clip: what was found is there when a replay is killed or the disk is full."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamer.replay.journal import Asked, Journal
from streamer.replay.report import FILES
from streamer.replay.truth import read_truth
from tests.make_media import make_clip
from tests.models import bursts

CLIPS = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short clips and, in the middle, one that takes a while: a replay can be ended there."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(CLIPS):
        seconds = 16.0 if number == 3 else 2.0
        samples = np.tile(bursts(2.0, number, 22_100), round(seconds / 2))
        make_clip(folder / f"{number}.wav", audio="pcm", rate_hz=22_100, samples=samples)
    return folder


@pytest.fixture(scope="module")
def whole(bundle: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a replay that nothing interrupted."""
    report = tmp_path_factory.mktemp("whole") / "report"
    done = replayed(bundle, [clips], report)
    assert (done.returncode, done.stderr) == (0, "")
    return report


def command(bundle: Path, clips: Sequence[Path], report: Path, *options: str) -> list[str]:
    argv = [sys.executable, "-m", "streamer.cli", "replay", *map(str, clips), "--model", str(bundle)]
    return [*argv, "--report", str(report), "--scores", *options]


def replayed(
    bundle: Path, clips: Sequence[Path], report: Path, *options: str, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    argv = command(bundle, clips, report, *options)
    return subprocess.run(argv, capture_output=True, text=True, preexec_fn=before)


def ended_in_the_middle(bundle: Path, clips: Path, report: Path, by: signal.Signals) -> tuple[int, str, str]:
    """A replay that gets a signal while the long clip is on: exit code, standard output and error."""
    argv = command(bundle, [clips], report)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeds_ctrl_c) as process:
        deadline_s = time.monotonic() + 60
        while not (report / "clips.jsonl").exists() or (report / "clips.jsonl").read_text().count('"clip"') < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.send_signal(by)
        out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def heeds_ctrl_c() -> None:
    """What a shell starts in the background ignores it, and so would our child."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def same(report: Path, whole: Path) -> bool:
    """Whether both hold the same results."""
    texts = [[(folder / name).read_text() for name in ("events.tsv", "tags.tsv")] for folder in (report, whole)]
    first, second = (json.loads((folder / "scores.json").read_text()) for folder in (report, whole))
    figures = [{name: value for name, value in one.items() if name != "command"} for one in (first, second)]
    with np.load(report / "scores.npz") as a, np.load(whole / "scores.npz") as b:
        cells = list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)
    return texts[0] == texts[1] and figures[0] == figures[1] and cells


def test_a_killed_replay_has_kept_each_clip_and_is_resumed(
    bundle: Path, clips: Path, whole: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    code, out, _ = ended_in_the_middle(bundle, clips, report, signal.SIGKILL)
    assert code == -signal.SIGKILL
    first = read_truth(whole / "events.tsv").events
    kept = read_truth(report / "events.tsv").events
    assert set(kept) == set(read_truth(report / "tags.tsv").tags) == {"0.wav", "1.wav", "2.wav"}
    assert all(first[name] == events for name, events in kept.items())
    assert "1.wav" in out  # what is printed is not held back either; the third was written and perhaps not yet printed
    assert not (report / "scores.json").exists()

    refused = replayed(bundle, [clips], report)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "holds a replay that was interrupted after 3 clips; resume it with --resume" in refused.stderr
    assert read_truth(report / "events.tsv").events == kept

    other = replayed(bundle, [clips], report, "--mode", "clip", "--resume")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "can't be resumed: its --mode is stream, not clip" in other.stderr

    with (report / "clips.jsonl").open("a") as journal:
        journal.write('{"type":"clip","na')  # as it is when the power goes
    resumed = replayed(bundle, [clips], report, "--resume")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert same(report, whole)
    assert resumed.stdout == (whole / "events.tsv").read_text()
    assert not (report / "scores.part").exists()


def test_ctrl_c_writes_the_report_of_what_is_through(bundle: Path, clips: Path, whole: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    code, _, error = ended_in_the_middle(bundle, clips, report, signal.SIGINT)
    assert code == 130
    assert error == (
        f"earwitness: interrupted: 3 of {CLIPS} clips are done; their report is in {report}, and --resume replays "
        "the others\n"
    )
    figures = json.loads((report / "scores.json").read_text())
    assert (figures["complete"], figures["clips"], set(figures["tags"])) == (False, 3, {"0.wav", "1.wav", "2.wav"})
    assert "**interrupted**: 3 of 6 clips are missing" in (report / "report.md").read_text()
    with np.load(report / "scores.npz") as scores:
        assert set(scores) == {"classes", "0.wav", "1.wav", "2.wav"}
    assert replayed(bundle, [clips], report, "--resume").returncode == 0
    assert same(report, whole)


def test_a_full_disk_is_said_at_once_with_what_is_kept(bundle: Path, clips: Path, tmp_path: Path) -> None:
    few = [clips / f"{number}.wav" for number in (0, 1, 2)]
    report = tmp_path / "report"

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    done = replayed(bundle, few, report, before=small_files)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("earwitness: error")]  # coverage fails too
    assert len(lines) == 1
    assert f"--report {report}: can't write" in lines[0]
    assert "File too large" in lines[0]
    resumed = replayed(bundle, few, report, "--resume")
    assert resumed.returncode == 0
    assert set(read_truth(report / "events.tsv").events) == {"0.wav", "1.wav", "2.wav"}


def test_a_full_standard_output_is_one_line(bundle: Path, clips: Path) -> None:
    argv = [sys.executable, "-m", "streamer.cli", "replay", str(clips / "0.wav"), "--model", str(bundle)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == ("earwitness: error: can't write the results to standard output: No space left on device\n")


def test_a_new_report_leaves_nothing_of_the_old_one(bundle: Path, clips: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert replayed(bundle, [clips / "0.wav", clips / "1.wav"], report).returncode == 0
    assert {path.name for path in report.iterdir()} == set(FILES) - {"counts.tsv"}  # which needs a truth
    argv = [one for one in command(bundle, [clips / "2.wav"], report) if one != "--scores"]
    assert subprocess.run(argv, capture_output=True).returncode == 0
    assert {path.name for path in report.iterdir()} == set(FILES) - {"counts.tsv", "scores.npz"}
    assert set(read_truth(report / "events.tsv").events) == {"2.wav"}
    done = replayed(bundle, [clips / "2.wav"], report, "--resume")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is complete; omit --resume" in done.stderr


def test_a_clip_that_has_changed_is_replayed_anew(bundle: Path, clips: Path, tmp_path: Path) -> None:
    own = tmp_path / "clips"
    own.mkdir()
    for number in (0, 1):
        (own / f"{number}.wav").write_bytes((clips / f"{number}.wav").read_bytes())
    report = tmp_path / "report"
    (own / "2.wav").write_text("broken")
    assert replayed(bundle, [own], report).returncode == 1
    journal = (report / "clips.jsonl").read_text().splitlines(keepends=True)
    (report / "clips.jsonl").write_text("".join(journal[:-1]))  # as if it had been killed at its end
    (own / "1.wav").write_bytes((clips / "2.wav").read_bytes())
    (own / "2.wav").write_bytes((clips / "4.wav").read_bytes())  # a broken clip is tried once more
    argv = [one for one in command(bundle, [own], report, "--resume") if one != "--scores"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "can't be resumed: its --scores is True, not False" in done.stderr
    assert not (report / "scores.part").exists()
    assert replayed(bundle, [own], report, "--resume").returncode == 0
    assert replayed(bundle, [own], tmp_path / "fresh").returncode == 0
    assert same(report, tmp_path / "fresh")


def test_a_report_that_does_not_tell_its_preset_is_named_so(tmp_path: Path) -> None:
    asked = Asked(model="m", model_sha256="a" * 64, mode="stream", scores=False)
    (tmp_path / "clips.jsonl").write_bytes(msgspec.json.encode(asked) + b"\n")
    journal = Journal(tmp_path / "clips.jsonl", msgspec.structs.replace(asked, preset="balanced"))
    assert journal.difference() == "its --preset is not recorded, not balanced"
    journal.close()


def test_two_replays_do_not_write_one_report(bundle: Path, clips: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    argv = command(bundle, [clips], report)
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        while not (report / "tags.tsv").exists():
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # it must not end before the second one has looked
        second = replayed(bundle, [clips], report)
        first.kill()
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert "another replay is writing its report there" in second.stderr


def test_a_truth_or_listing_in_the_report_is_not_written_over(bundle: Path, clips: Path, whole: Path) -> None:
    before = (whole / "events.tsv").read_text()
    for more, options in (([], ["--truth", str(whole / "events.tsv")]), ([whole / "tags.tsv"], [])):
        done = replayed(bundle, [clips, *more], whole, *options)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "would be overwritten" in done.stderr
    assert (whole / "events.tsv").read_text() == before


def test_a_folder_that_can_not_be_written_is_said_before_the_first_clip(
    bundle: Path, clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "events.tsv").mkdir()
    done = replayed(bundle, [clips], tmp_path / "report")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert os.fspath(tmp_path / "report") in done.stderr
