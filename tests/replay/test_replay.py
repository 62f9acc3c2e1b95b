"""`earwitness replay` on real files, as its command line is called."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from streamer.commands import replay
from streamer.errors import BundleError, EarwitnessError, TruthError, UsageError
from streamer.replay.clips import clips_of
from streamer.replay.replayer import clip_name
from streamer.replay.truth import read_truth
from streamer.sinks.wire import OffsetMessage, OnsetMessage, ScoresMessage, TagsMessage, decode
from streamer.types import cells_in
from tests.make_media import make_clip
from tests.models import CLASSES, bursts, seeded_bundle

RATE_HZ = 22_100


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    seeded_bundle().save(folder)
    return folder


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
    args = parser.parse_args(argv, argparse.Namespace(argv=argv))
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


def test_a_jump_of_the_media_goes_on_behind_the_first_epoch(bundle: Path, tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "jump.mkv",
        audio="flac",
        samples=bursts(6.0, 2, 48_000),
        seconds=6.0,
        retime=lambda time_s: time_s if time_s < 3 else time_s + 20,
    )
    assert called([clip, "--model", bundle, "--report", tmp_path / "report"]) == 0
    figures = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert figures["seconds"] == pytest.approx(6.0, abs=0.2)
    events = read_truth(tmp_path / "report" / "events.tsv").events["jump.mkv"]
    assert any(event.onset_s > 3 for event in events)
    assert all(event.offset_s < 6.3 for event in events)


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
        (["{clips}", "--scores"], UsageError, "--report DIR"),
        (["{clips}", "--model", "{clips}"], BundleError, "bundle.json can't be read"),
        (["{clips}", "--truth", "{clips}/notes.md"], TruthError, "the first line must be"),
        (["{tmp}/empty"], UsageError, "the folder holds no clips"),
        (["{tmp}/list.tsv"], UsageError, "neither a clip nor a listing of clips"),
        (["{tmp}/blank.txt"], UsageError, "the listing names no clips"),
        (["{tmp}/other.tsv", "--truth", "{tmp}/foreign.tsv"], TruthError, "class 'Bog' of -c.mp4 .* did you mean Dog"),
        (["{tmp}/other.tsv", "--truth", "{tmp}/nothing.tsv"], TruthError, "speaks of none of the clips"),
        (["{clips}", "--report", "{clips}/notes.md"], UsageError, "can't make the folder"),
        (["{clips}/-c.mp4", "{tmp}/-c.mp4"], UsageError, "have the same file name"),
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
    assert called(["rtsp://user:secret@127.0.0.1/x", long, "--model", bundle, "--mode", "clip"]) == 1
    err = capsys.readouterr().err
    assert "rtsp://***@127.0.0.1/x: is a live source; listen to it with: earwitness run" in err
    assert "secret" not in err
    assert "longer than 10 min can't be one window; use --mode stream" in err


def test_a_listing_s_paths_are_relative_to_it_and_each_clip_comes_once(clips: Path, tmp_path: Path) -> None:
    listing = clips / "list.csv"
    listing.write_text("filename\tonset\toffset\tevent_label\n-c.mp4\t0\t1\tDog\n-c.mp4\t1\t2\tDog\n")
    assert clips_of([str(listing), str(clips)]) == [
        str(clips / name) for name in ("-c.mp4", "Y-a_b-c_d-e_0.000_4.000.wav", "Y__b_2.000_4.400.flac")
    ]
    listing.unlink()
    assert clip_name("http://host/folder/clip.mp4?token=x/y") == "clip.mp4"
