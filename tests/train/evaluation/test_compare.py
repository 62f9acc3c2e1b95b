"""`compare`: the difference of two reports over the same clips, or one line that says why there is none."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamer.replay.counts import counts_tsv
from streamer.replay.scoring import ClipCounts, ClipPrediction, count
from streamer.replay.truth import LabelledEvent, Truth
from train import cli
from train.evaluation.compare import MACRO, MICRO, compare

CLASSES = ("Cat", "Dog")
NAMES = tuple(f"clip_{number:03d}.wav" for number in range(60))


def counts_of(found: float, seed: int = 0, *, classes: tuple[str, ...] = CLASSES) -> ClipCounts:
    """Two events a clip, of which a share is found: the same ones for the same seed, and more for a higher share."""
    rng = np.random.default_rng(seed)
    events = {
        name: tuple(LabelledEvent(1 + 3 * i, 2 + 3 * i, label) for i, label in enumerate(CLASSES)) for name in NAMES
    }
    truth = Truth("truth", events, {name: frozenset(CLASSES) for name in NAMES}, strong=True)
    predictions = {}
    for name, row in events.items():
        kept = tuple(one for one in row if rng.random() < found)
        predictions[name] = ClipPrediction(kept, frozenset(one.label for one in kept))
    return count(truth, predictions, classes, dict.fromkeys(NAMES, 10.0))


def evaluation(folder: Path, **modes: ClipCounts) -> Path:
    """The folder of `evaluate --report`, as far as `compare` reads it."""
    folder.mkdir()
    for mode, counts in modes.items():
        (folder / f"counts-{mode}.tsv").write_text(counts_tsv(counts))
    return folder


def replayed(folder: Path, mode: str, counts: ClipCounts) -> Path:
    """The folder of `replay --report`."""
    folder.mkdir()
    (folder / "counts.tsv").write_text(counts_tsv(counts))
    (folder / "scores.json").write_text(f'{{"mode": "{mode}", "clips": 60}}')
    return folder


def test_each_score_of_each_class_has_its_difference_interval_and_numbers(tmp_path: Path) -> None:
    worse, better = counts_of(0.5), counts_of(0.8)
    one = evaluation(tmp_path / "one", clip=worse, stream=worse)
    other = evaluation(tmp_path / "other", clip=better, stream=worse)
    clip, stream = compare(one, other, None, draws=300)
    assert (clip.modes, stream.modes) == (("clip", "clip"), ("stream", "stream"))
    assert [(row.kind, row.label) for row in clip.rows] == [
        (kind, label) for kind in ("clip", "segment", "event") for label in (MICRO, MACRO, *CLASSES)
    ]
    for row in clip.rows:
        assert row.change.value == pytest.approx(row.second.value - row.first.value)
        assert row.change.apart
        assert 0 < row.change.low < row.change.value < row.change.high
        assert row.n == (120 if row.label in (MICRO, MACRO) else 60)
        assert row.groups == 60
    micro = next(row for row in clip.rows if (row.kind, row.label) == ("event", MICRO))
    assert (micro.first.value, micro.second.value) == (
        worse.report().micro_f1("event"),
        better.report().micro_f1("event"),
    )
    assert all(row.change.value == 0 and not row.change.apart for row in stream.rows)


def test_the_table_marks_what_differs_and_says_what_was_resampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = evaluation(tmp_path / "a", clip=counts_of(0.5)), evaluation(tmp_path / "b", clip=counts_of(0.8))
    assert cli.main(["compare", str(one), str(other), "--draws", "200"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == f"A: {one}   B: {other}"
    assert "clip mode: 60 clips, resampling 60 clips: nothing is known of their recordings (--groups TSV)" in lines[2]
    row = next(line for line in lines if line.startswith("event F1 micro"))
    assert re.fullmatch(r"event F1 micro +\d+\.\d +\d+\.\d +\+\d+\.\d +\[\+\d+\.\d, \+\d+\.\d\] +\* +120 +60", row)
    groups = tmp_path / "groups.tsv"
    rows = [f"{name}\t\trecording {number % 6}\n" for number, name in enumerate(NAMES)]
    groups.write_text("filename\tlabel\tgroup\n" + "".join(rows))
    assert cli.main(["compare", str(one), str(other), "--groups", str(groups), "--draws", "200"]) == 0
    assert "resampling 6 groups of recordings\n" in capsys.readouterr().out
    shutil.copy(groups, other / "groups.tsv")  # a report brings its own
    assert cli.main(["compare", str(one), str(other), "--draws", "200"]) == 0
    assert "resampling 6 groups of recordings\n" in capsys.readouterr().out


def test_reports_of_replay_are_compared_too_even_in_different_modes(tmp_path: Path) -> None:
    one, other = replayed(tmp_path / "a", "clip", counts_of(0.5)), replayed(tmp_path / "b", "stream", counts_of(0.8))
    (found,) = compare(one, other, None, draws=100)
    assert found.modes == ("clip", "stream")
    assert found.text().startswith("A in clip mode, B in stream mode")
    third = evaluation(tmp_path / "c", clip=counts_of(0.5), stream=counts_of(0.6))
    (found,) = compare(other, third, None, draws=100)
    assert found.modes == ("stream", "stream")


def test_only_clips_and_classes_of_both_are_compared(tmp_path: Path) -> None:
    full = counts_of(0.5)
    fewer = replace(full, names=full.names[:40], seconds=full.seconds[:40], counts=full.counts[:40])
    more = counts_of(0.5, classes=("Dog", "Bird", "Cat"))
    one, other = evaluation(tmp_path / "a", clip=fewer), evaluation(tmp_path / "b", clip=more)
    (found,) = compare(one, other, None, draws=100)
    assert (found.clips, found.left_out) == (40, 20)
    assert "; 20 clips are only in one of the reports" in found.text()
    assert {row.label for row in found.rows} == {MICRO, MACRO, *CLASSES}
    assert all(row.change.value == 0 for row in found.rows)


def test_against_a_truth_without_times_only_clips_are_compared(tmp_path: Path) -> None:
    weak = replace(counts_of(0.5), strong=False)
    one, other = evaluation(tmp_path / "a", clip=weak), evaluation(tmp_path / "b", clip=counts_of(0.8))
    (found,) = compare(one, other, None, draws=100)
    assert {row.kind for row in found.rows} == {"clip"}


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["compare", *map(str, arguments)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_can_not_be_compared_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = evaluation(tmp_path / "a", clip=counts_of(0.5))
    assert "nowhere: holds no counts: make a report with" in error(capsys, one, tmp_path / "nowhere")
    both = evaluation(tmp_path / "stream", stream=counts_of(0.5))
    third = evaluation(tmp_path / "both", clip=counts_of(0.5), stream=counts_of(0.5))
    (third / "counts-stream.tsv").rename(third / "counts.tsv")
    (third / "scores.json").write_text('{"mode": "other"}')
    assert "has scores in mode clip, other, " in error(capsys, third, both)
    (third / "scores.json").unlink()
    assert "does not contain a report of `earwitness replay --report`" in error(capsys, third, both)
    full = counts_of(0.5)
    others = replace(full, names=tuple(f"x{name}" for name in full.names))
    assert "have no clips in common" in error(capsys, one, evaluation(tmp_path / "c", clip=others))
    classes = replace(full, classes=("Bird", "Cow"))
    assert "have no classes in common" in error(capsys, one, evaluation(tmp_path / "d", clip=classes))
    changed = full.counts.copy()
    changed[7, 0, 2, 0] += 1
    unlike = evaluation(tmp_path / "e", clip=replace(full, counts=changed))
    assert "different truths: clip_007.wav does not have the same events in both" in error(capsys, one, unlike)
    (tmp_path / "e" / "counts-clip.tsv").write_text("x\n")
    assert "is not a table of counts" in error(capsys, one, unlike)
    assert "groups.tsv: can't read the groups" in error(capsys, one, one, "--groups", tmp_path / "groups.tsv")
