"""`earwitness replay` on real files, as its command line is called."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from streamer.commands import replay
from streamer.commands.known import KnownSecrets
from streamer.errors import BundleError, EarwitnessError, TruthError, UsageError
from streamer.escapes import escaped
from streamer.replay.counts import read_counts
from streamer.replay.truth import read_truth
from streamer.sinks.wire import OffsetMessage, OnsetMessage, ScoresMessage, TagsMessage, decode
from streamer.types import cells_in
from tests.make_media import make_clip
from tests.models import CLASSES, bursts
from tests.send import http_server, live_ts

RATE_HZ = 22_100


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips with names as in the real data; one with a picture, one shorter than the others."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, (name, seconds) in enumerate({"Y-a_b-c_d-e_0.000_4.000.wav": 4.0, "Y__b_2.000_4.400.flac": 2.4}.items()):
        make_clip(
            folder / name,
            audio="pcm" if name.endswith("wav") else "flac",
            rate_hz=48_000,
            samples=bursts(seconds, seed, 48_000),
        )
    make_clip(folder / "-c.mp4", audio="aac", video="h264", samples=bursts(4.0, 7, 48_000), seconds=4.0)
    (folder / "notes.md").write_text("not a clip")
    return folder


def called(arguments: Sequence[str | Path]) -> int:
    argv = ["replay", *map(str, arguments)]
    parser = argparse.ArgumentParser()
    replay.add_parser(parser.add_subparsers())
    args = parser.parse_args(argv, argparse.Namespace(argv=argv, known=KnownSecrets()))
    status: int = args.main(args)
    return status


def test_a_folder_of_clips_gives_its_events_as_tsv(
    bundle: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called([clips, "--model", bundle]) == 0
    printed = tmp_path / "events.tsv"
    printed.write_text(capsys.readouterr().out)
    found = read_truth(printed)
    assert set(found.events) == {"Y-a_b-c_d-e_0.000_4.000.wav", "Y__b_2.000_4.400.flac", "-c.mp4"}
    assert sum(map(len, found.events.values())) > 3
    assert max(event.offset_s for event in found.events["Y__b_2.000_4.400.flac"]) <= 2.4 + 0.067


@pytest.mark.parametrize("mode", ["clip", "stream"])
def test_scoring_against_its_own_events_is_perfect(
    bundle: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    assert called([clips, "--model", bundle, "--mode", mode, "--report", tmp_path / "first"]) == 0
    truth = tmp_path / "first" / "events.tsv"
    report = tmp_path / "second"
    assert called([clips, "--model", bundle, "--mode", mode, "--truth", truth, "--report", report, "--scores"]) == 0
    assert "| **macro**" in capsys.readouterr().out
    figures = json.loads((report / "scores.json").read_text())
    assert figures["scores"]["event_f1"] == 1
    assert figures["scores"]["segment_f1"] == 1
    assert figures["scores"]["clips"] == figures["clips"] == 3
    assert read_counts(report / "counts.tsv").report().json()["classes"] == figures["scores"]["classes"]
    assert figures["coverage"] == 1
    assert figures["seconds"] == pytest.approx(10.4, abs=0.1)
    assert figures["command"].startswith("earwitness replay ")
    assert (report / "events.tsv").read_text() == truth.read_text()
    assert "| **macro**" in (report / "report.md").read_text()
    assert not read_truth(report / "tags.tsv").strong
    with np.load(report / "scores.npz") as scores:
        assert tuple(scores["classes"]) == CLASSES
        assert scores["Y-a_b-c_d-e_0.000_4.000.wav"].shape == (cells_in(4 * RATE_HZ), len(CLASSES))
        assert scores["Y__b_2.000_4.400.flac"].shape == (cells_in(round(2.4 * RATE_HZ)), len(CLASSES))


def test_json_lines_are_the_messages_of_a_live_stream(
    bundle: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = clips / "Y-a_b-c_d-e_0.000_4.000.wav"
    assert called([clip, "--model", bundle, "--format", "jsonl"]) == 0
    messages = [decode(line.encode()) for line in capsys.readouterr().out.splitlines()]
    assert {type(message) for message in messages} == {OnsetMessage, OffsetMessage, TagsMessage, ScoresMessage}
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    rows = [row for message in messages if isinstance(message, ScoresMessage) for row in message.scores]
    assert len(rows) == cells_in(4 * RATE_HZ)
    opened = {message.event_id for message in messages if isinstance(message, OnsetMessage)}
    assert opened == {message.event_id for message in messages if isinstance(message, OffsetMessage)}


def test_a_broken_clip_is_one_line_and_the_others_go_on(
    bundle: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "empty.wav").touch()
    good = clips / "Y__b_2.000_4.400.flac"
    report = tmp_path / "report"
    broken = [tmp_path / "text.wav", tmp_path / "empty.wav", tmp_path / "none.wav"]
    assert called([*broken, good, "--model", bundle, "--report", report]) == 1
    out, err = capsys.readouterr()
    assert "Y__b_2.000_4.400.flac" in out
    lines = [line for line in err.splitlines() if line.startswith("earwitness: error: ")]
    assert [path.name for path in broken] == [next(p.name for p in broken if p.name in line) for line in lines]
    assert "Traceback" not in err
    assert len(json.loads((report / "scores.json").read_text())["broken"]) == 3


def test_times_behind_a_jump_are_the_recording_s_and_the_hole_is_said(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(
        tmp_path / "jump.mkv",
        audio="flac",
        samples=bursts(6.0, 2, 48_000),
        seconds=6.0,
        retime=lambda time_s: time_s if time_s < 3 else time_s + 20,
    )
    assert called([clip, "--model", bundle, "--report", tmp_path / "report"]) == 0
    figures = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert figures["seconds"] == pytest.approx(26.0, abs=0.2)
    assert capsys.readouterr().err == "earwitness: jump.mkv: 20.0 of 26.0 s have no media\n"
    assert figures["notes"] == {"jump.mkv": ["20.0 of 26.0 s have no media"]}
    assert "jump.mkv: 20.0 of 26.0 s have no media" in (tmp_path / "report" / "report.md").read_text()
    events = read_truth(tmp_path / "report" / "events.tsv").events["jump.mkv"]
    assert {event.onset_s > 3 for event in events} == {False, True}
    assert all(event.offset_s < 3.1 or event.onset_s > 22.9 for event in events)
    assert all(event.offset_s < 26.1 for event in events)


def test_a_clip_of_which_not_all_is_heard_has_a_note(
    bundle: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut short, damaged in the middle, silent, nearly silent: none of these looks like a quiet room."""
    source = (clips / "Y__b_2.000_4.400.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(source[: len(source) // 3])
    damaged = bytearray(source)
    damaged[len(source) // 2 : len(source) // 2 + 20_000] = bytes(20_000)
    (tmp_path / "damaged.flac").write_bytes(damaged)
    long = make_clip(tmp_path / "cut.mp4", audio="aac", video="h264", samples=bursts(6.0, 7, 48_000), seconds=6.0)
    moved = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", long, "-c", "copy", "-movflags", "+faststart", tmp_path / "fast.mp4"]
    )
    assert moved.returncode == 0
    data = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "fast.mp4").unlink()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    make_clip(tmp_path / "silent.wav", audio="pcm", samples=np.zeros(96_000, np.float32))
    make_clip(tmp_path / "quiet.wav", audio="pcm", samples=bursts(2.0, 1, 48_000) * 1e-4)
    make_clip(tmp_path / "whole.wav", audio="pcm", samples=bursts(2.0, 1, 48_000))
    code = called([tmp_path, "--model", bundle])
    notes = dict(
        line.removeprefix("earwitness: ").split(": ", 1)
        for line in capsys.readouterr().err.splitlines()
        if "error" not in line
    )
    assert code == 0
    assert set(notes) == {"cut.flac", "damaged.flac", "cut.mp4", "silent.wav", "quiet.wav"}
    assert notes["silent.wav"].startswith("digital silence, ")
    assert re.match(r"quieter than any room \(-\d+ dBFS\): ", notes["quiet.wav"])
    for name in ("cut.flac", "cut.mp4"):
        assert re.fullmatch(r"only \d\.\d of its \d\.\d s are present: .*", notes[name]) or "damaged" in notes[name]
    assert "damaged" in notes["damaged.flac"] or "no media" in notes["damaged.flac"]


def test_clips_and_truth_need_not_be_the_same(
    bundle: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.tsv"
    truth.write_text("filename\tonset\toffset\tevent_label\n-c.wav\t1.0\t2.0\tDog\nother.wav\t\t\t\n")
    assert called([clips, "--model", bundle, "--truth", truth, "--mode", "clip"]) == 0
    out, err = capsys.readouterr()
    assert "2 of 3 clips are not in" in err
    assert "1 of 2 clips in" in err
    assert "| Dog" in out


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["{clips}", "--scores"], UsageError, "--report FOLDER"),
        (["{clips}", "--model", "{clips}"], BundleError, "bundle.json can't be read"),
        (["{clips}", "--truth", "{clips}/notes.md"], TruthError, "the first line must be"),
        (["{tmp}/empty"], UsageError, "no clips in this folder"),
        (["{tmp}/list.tsv"], UsageError, "neither a clip nor a listing of clips"),
        (["{tmp}/blank.txt"], UsageError, "the listing names no clips"),
        (["{tmp}/other.tsv", "--truth", "{tmp}/foreign.tsv"], TruthError, "class 'Bog' of -c.mp4 .* did you mean Dog"),
        (["{tmp}/other.tsv", "--truth", "{tmp}/nothing.tsv"], TruthError, "has none of the clips"),
        (["{clips}", "--report", "{clips}/notes.md"], UsageError, "can't create the folder"),
        (["http://h/x.wav?id=1", "http://h/x.wav?id=2"], UsageError, "would have the same name"),
        (["{clips}/-c.mp4", "{tmp}/-c.mp4", "--truth", "{tmp}/c.tsv"], TruthError, "-c.mp4 and .*-c.mp4 both match -c"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    bundle: Path, clips: Path, tmp_path: Path, arguments: list[str], error: type[EarwitnessError], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.tsv").write_text("filename\nnone.wav\n")
    (tmp_path / "blank.txt").write_text("\n")
    (tmp_path / "-c.mp4").touch()
    (tmp_path / "other.tsv").write_text("filename\n-c.mp4\n")
    (tmp_path / "c.tsv").write_text("filename\tonset\toffset\tevent_label\n-c.wav\t1\t2\tDog\n")
    (tmp_path / "foreign.tsv").write_text("filename\tonset\toffset\tevent_label\n-c.mp4\t1\t2\tBog\n")
    (tmp_path / "nothing.tsv").write_text("filename\tonset\toffset\tevent_label\nx.wav\t\t\t\n")
    filled = [argument.format(clips=clips, tmp=tmp_path) for argument in arguments]
    if "--model" not in filled:
        filled += ["--model", str(bundle)]
    with pytest.raises(error, match=message) as caught:
        called(filled)
    assert "\n" not in str(caught.value)


def test_a_live_source_and_a_long_clip_in_one_window_are_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = make_clip(tmp_path / "long.flac", audio="flac", rate_hz=8000, samples=np.zeros(8000 * 601, np.float32))
    film = make_clip(tmp_path / "film.ts", audio="aac", rate_hz=48_000, samples=bursts(3.0, 1, 48_000))
    with live_ts(film) as url:
        login = url.replace("://", "://user:secret@")
        assert called([login, long, "--model", bundle, "--mode", "clip"]) == 1
    err = capsys.readouterr().err
    assert f"{url.replace('://', '://***@')}: is a live source; listen to it with: earwitness run" in err
    assert "secret" not in err
    assert "longer than 10 min can't be one window; use --mode stream" in err


def test_an_ended_playlist_and_standard_input_are_recordings(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same sound as a file, as a playlist on a web server and through a pipe: the same events."""
    make_clip(
        tmp_path / "vod.m3u8",
        audio="aac",
        rate_hz=48_000,
        samples=bursts(8.0, 3, 48_000),
        options={"hls_time": "2", "hls_list_size": "0"},
    )
    whole = tmp_path / "whole.ts"
    whole.write_bytes(b"".join(part.read_bytes() for part in sorted(tmp_path.glob("vod*.ts"))))
    rows = []
    with http_server(tmp_path) as base:
        for clip in (whole, f"{base}/vod.m3u8"):
            assert called([clip, "--model", bundle]) == 0
            rows.append([line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()])
    piped = subprocess.run(
        [sys.executable, "-m", "streamer.cli", "replay", "-", "--model", str(bundle)],
        input=whole.read_bytes(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    rows.append([line.split("\t")[1:] for line in piped.stdout.decode().splitlines()])
    assert len(rows[0]) > 3
    assert rows[0] == rows[1] == rows[2]


def test_clips_of_one_name_in_two_folders_are_two_clips(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is scored against the row of its own folder, and is called by it in results."""
    for seed, folder in enumerate(("kitchen", "bath")):
        (tmp_path / folder).mkdir()
        make_clip(tmp_path / folder / "001.wav", audio="pcm", samples=bursts(3.0, seed, 48_000))
    assert called([tmp_path, "--model", bundle, "--report", tmp_path / "one"]) == 0
    found = read_truth(tmp_path / "one" / "events.tsv").events
    assert set(found) == {"kitchen/001.wav", "bath/001.wav"}
    assert found["kitchen/001.wav"] != found["bath/001.wav"]
    truth = tmp_path / "one" / "events.tsv"
    for clip in (tmp_path, tmp_path / "kitchen" / "001.wav"):
        report = tmp_path / "two"
        assert called([clip, "--model", bundle, "--truth", truth, "--report", report, "--scores"]) == 0
        assert json.loads((report / "scores.json").read_text())["scores"]["event_f1"] == 1


ODD_NAMES = [
    b"caf\xe9.wav",
    b"a\tb\nc.wav",
    b'"quoted" .wav',
    b"\xe2\x80\xaevaw.wav",
    b"file",
    b"classes",
    b"caf\xc3\xa9.wav",
]


def test_names_of_any_bytes_are_written_and_read_back(bundle: Path, tmp_path: Path) -> None:
    """By the real command, its output to a pipe in ASCII: table, report and scores; scored against themselves."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for seed, name in enumerate(ODD_NAMES):
        make_clip(tmp_path / "clip.wav", audio="pcm", samples=bursts(1.5, seed, 48_000))
        (tmp_path / "clip.wav").rename(clips / os.fsdecode(name))
    named = [os.path.join(clips, os.fsdecode(name)) for name in ODD_NAMES]
    broken = os.path.join(clips, os.fsdecode(b"br\xf6ken.wav"))
    Path(broken).write_text("hello")
    report, again = tmp_path / "report", tmp_path / "again"
    command = [sys.executable, "-m", "streamer.cli", "replay", "--model", str(bundle), "--scores"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}
    done = subprocess.run(
        [*command, "--report", str(report), "--", *named, broken],
        capture_output=True,
        text=True,
        encoding="ascii",
        env=env,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert r"br\xf6ken.wav: not an audio or video file" in done.stderr
    table = tmp_path / "printed.tsv"
    table.write_text(done.stdout)
    found = read_truth(report / "events.tsv").events
    names = {*map(os.fsdecode, ODD_NAMES)} - {"classes"} | {"clips/classes"}
    assert set(found) == set(read_truth(table).events) == set(read_truth(report / "tags.tsv").tags) == names
    figures = json.loads((report / "scores.json").read_text())
    assert set(figures["tags"]) == {escaped(name) for name in names}
    assert r"br\xf6ken.wav" in (report / "report.md").read_text()
    with np.load(report / "scores.npz") as scores:
        assert set(scores) == {"classes", *map(escaped, names)}
    truth = [*command, "--report", str(again), "--truth", str(report / "events.tsv"), "--", *named]
    done = subprocess.run(truth, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads((again / "scores.json").read_text())["scores"]["event_f1"] == 1


def test_json_lines_of_clips_with_odd_names_tell_them_apart(bundle: Path, tmp_path: Path) -> None:
    names = ["a b.wav", "a_b.wav", os.fsdecode(b"a\xe9b.wav"), f"{'x' * 80}1.wav", f"{'x' * 80}2.wav"]
    for seed, name in enumerate(names):
        make_clip(tmp_path / "clip.wav", audio="pcm", samples=bursts(1.5, seed, 48_000))
        (tmp_path / "clip.wav").rename(tmp_path / name)
    command = [sys.executable, "-m", "streamer.cli", "replay", str(tmp_path), "--model", str(bundle), "--format"]
    done = subprocess.run([*command, "jsonl"], capture_output=True, check=True)
    streams = {decode(line).stream for line in done.stdout.splitlines()}  # type: ignore[union-attr]
    assert "a_b.wav" in streams
    assert len(streams) == len(names)
