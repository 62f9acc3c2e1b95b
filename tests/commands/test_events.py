"""`earwitness events` on a real store, with and without a daemon that writes to it."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from streamer.cli import main
from streamer.replay.truth import read_truth
from streamer.sinks.store.tables import Storable
from streamer.sinks.store.writing import Store
from streamer.sinks.wire import decode
from tests import messages as make
from tests.listeners import ROOT
from tests.sinks.test_store import AMPLE, numbered


def filled(path: Path) -> list[Storable]:
    """A store with three events, the last one open, and a status."""
    numberer = make.numberer()
    day_s = 86_400.0

    def at(message: Storable, later_s: float) -> Storable:
        changed = msgspec.structs.replace(message, onset_utc_s=1_790_000_001.5 + later_s)
        return numbered(numberer, changed)

    dog, speech = ("door", "Dog"), ("yard", "Male speech, 1/2")
    kept: list[Storable] = [
        at(make.onset(*dog, event_id="a"), 0.0),
        at(make.offset(*dog, event_id="a"), 0.0),
        at(make.onset(*speech, event_id="b"), day_s),
        numbered(numberer, make.status("door")),
        at(msgspec.structs.replace(make.offset(*speech, event_id="b"), confidence=0.3, end_reason="crash"), day_s),
        at(make.onset(*dog, event_id="c"), 2 * day_s),
    ]
    with closing(Store(path, AMPLE)) as store:
        return store.append(kept)


def printed(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> list[str]:
    assert main(["events", "--store", str(path), *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_readable_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "s")
    assert printed(capsys, tmp_path / "s") == [
        "2026-09-21 14:13:21.5Z  door  Dog     0.50 s  confidence 0.70",
        "2026-09-21 14:13:21.5Z  yard  Male speech, 1/2     0.50 s  confidence 0.30  (crash)",
        "2026-09-21 14:13:21.5Z  door  Dog     open    score 0.80",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--stream", "door"], "ac"),
        (["--stream", "door", "--stream", "yard"], "abc"),
        (["--class", "Male speech, 1/2"], "b"),
        (["--class", "Cat"], ""),
        (["--min-confidence", "0.5"], "ac"),
        (["--since", "2026-09-22"], "bc"),
        (["--until", "2026-09-22T14:13:21Z"], "a"),
        (["--since", "2026-09-22T16:13:21+02:00", "--until", "2026-09-23"], "b"),
        (["--since", "1h"], ""),
    ],
)
def test_matching_events_are_printed_as_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    kept = filled(tmp_path / "s")
    found = [decode(line.encode()) for line in printed(capsys, tmp_path / "s", "--format", "json", *arguments)]
    ends = {"a": kept[1], "b": kept[4], "c": kept[5]}
    assert found == [ends[event_id] for event_id in expected]


def test_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "s")
    rows = list(csv.DictReader(io.StringIO("\n".join(printed(capsys, tmp_path / "s", "--format", "csv")))))
    assert [(row["event_id"], row["class"], row["confidence"], row["end_reason"], row["offset_s"]) for row in rows] == [
        ("a", "Dog", "0.7", "silence", "2.0"),
        ("b", "Male speech, 1/2", "0.3", "crash", "2.0"),
        ("c", "Dog", "0.8", "", ""),
    ]


def test_the_dcase_format_is_read_by_our_truth_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path / "s")
    assert main(["events", "--store", str(tmp_path / "s"), "--format", "dcase"]) == 0
    out, err = capsys.readouterr()
    assert err == "earwitness: open events omitted: 1\n"
    (tmp_path / "truth.tsv").write_text(out)
    truth = read_truth(tmp_path / "truth.tsv")
    assert {
        name: [(one.onset_s, one.offset_s, one.label) for one in events] for name, events in truth.events.items()
    } == {
        "door-r1-0": [(1.5, 2.0, "Dog")],
        "yard-r1-0": [(1.5, 2.0, "Male speech, 1/2")],
    }


def test_reading_while_a_daemon_writes_and_from_a_read_only_folder(tmp_path: Path) -> None:
    path, numberer = tmp_path / "s", make.numberer()
    command = [sys.executable, "-m", "streamer.cli", "events", "--store", str(path), "--format", "json"]

    def lines() -> int:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        return len(done.stdout.splitlines())

    with closing(Store(path, AMPLE)) as store:
        for number in range(1500):
            store.append([numbered(numberer, make.offset(event_id=f"e{number}"))])
        assert lines() == 1500  # more than a page of events with the same onset
        store.append([numbered(numberer, make.offset(event_id="last"))])
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert lines() == 1501
    finally:
        tmp_path.chmod(0o700)


def test_bad_stores_and_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("precious " * 100)
    (tmp_path / "empty").touch()
    for name, expected in (
        ("nothing", "there is no event store "),
        ("notes", "damaged"),
        ("empty", "is empty: no daemon has written to it yet"),
        (".", "is not an earwitness event store"),
    ):
        assert main(["events", "--store", str(tmp_path / name)]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert expected in err
    for wrong in (["--since", "yesterday"], ["--min-confidence", "2"], ["--format", "xml"]):
        assert main(["events", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
