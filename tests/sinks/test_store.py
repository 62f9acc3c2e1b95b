"""The event store with real files: what it stores and refuses, and how it handles damaged files."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.decoding import ClassDecoding, Decoding
from streamer.errors import StoreError
from streamer.evidence import Evidence
from streamer.sinks.base import Numberer
from streamer.sinks.store import tables
from streamer.sinks.store.recovery import assumed_offset
from streamer.sinks.store.retention import Limits
from streamer.sinks.store.writing import Store
from streamer.sinks.wire import Message, OnsetMessage, StatusMessage, decode, topic
from tests import messages as make
from tests.listeners import ROOT

AMPLE = Limits(keep_days=10_000, keep_bytes=10**9)


@contextmanager
def opened(path: Path, limits: Limits = AMPLE) -> Iterator[Store]:
    with closing(Store(path, limits)) as store:
        yield store


def numbered(numberer: Numberer, message: tables.Storable) -> tables.Storable:
    done = numberer.number(message)
    assert isinstance(done, tables.Storable)
    return done


def event(numberer: Numberer, event_id: str, *, done: bool = True) -> list[tables.Storable]:
    onset = numbered(numberer, make.onset(event_id=event_id))
    return [onset, numbered(numberer, make.offset(event_id=event_id))] if done else [onset]


def content(path: Path) -> list[Message]:
    """All messages of a store, in order; also checks the file's integrity."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT stored_seq, topic, message FROM messages ORDER BY stored_seq").fetchall()
    found = [decode(data) for _, _, data in rows]
    assert [(one.stored_seq, topic(one)) for one in found] == [row[:2] for row in rows]
    return found


def test_numbers_continue_after_reopening(tmp_path: Path) -> None:
    path, numberer = tmp_path / "a" / "b" / "store.sqlite3", make.numberer()
    kept: list[tables.Storable] = []
    ids = set()
    for number in range(3):
        with opened(path) as store:
            assert store.is_new == (number == 0)
            ids.add(store.id)
            kept += store.append(event(numberer, f"e{number}"))
            kept += store.append([])
            kept += store.append([numbered(numberer, make.status())])
    assert [one.stored_seq for one in kept] == list(range(1, 10))
    assert {one.store for one in kept} == ids
    assert len(ids) == 1
    assert content(path) == kept


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "store.sqlite3"
    with opened(path) as store:
        store.append(event(make.numberer(), "a"))
        modes = {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
        assert modes == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_batch_is_stored_completely_or_not_at_all(tmp_path: Path) -> None:
    path, numberer = tmp_path / "store.sqlite3", make.numberer()
    with opened(path) as store:
        store.append(event(numberer, "a"))
        connection = sqlite3.connect(path)  # like a sqlite3 shell that was left open
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program is writing to it") as raised:
            store.append(event(numberer, "b"))
        assert raised.value.reason == "busy"
        connection.close()
        assert [one.stored_seq for one in store.append(event(numberer, "c"))] == [3, 4]
    assert [one.event_id for one in content(path) if isinstance(one, OnsetMessage)] == ["a", "c"]


FULL = """
import resource, sys
from pathlib import Path
from streamer.errors import StoreError
from streamer.sinks.store.retention import Limits
from streamer.sinks.store.writing import Store
from tests import messages as make
store, numberer = Store(Path(sys.argv[1]), Limits(1e4, 10**9)), make.numberer()
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
count, reasons = 0, set()
for _ in range(300):
    try:
        count += len(store.append([numberer.number(make.onset()), numberer.number(make.offset())]))
    except StoreError as error:
        reasons.add(error.reason)
        assert "\\n" not in str(error)
assert reasons <= {"full", "io"} and reasons, reasons
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
count += len(store.append([numberer.number(make.status())]))
print(count, store.through)
"""


def test_a_file_that_can_not_grow_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    count, through = map(int, done.stdout.split())
    assert count == through > 100
    assert [one.stored_seq for one in content(path)] == list(range(1, count + 1))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_that_gets_space_again(small_disk: Path) -> None:
    path, numberer = small_disk / "store.sqlite3", make.numberer()
    ballast = small_disk / "ballast"
    kept: list[Message] = []
    with opened(path) as store:
        kept += store.append(event(numberer, "a"))
        with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
            file.writelines([bytes(4096)] * 1000)
        with pytest.raises(StoreError, match="the disk is full; make room") as raised:
            kept += (one for _ in range(1000) for one in store.append(event(numberer, "b")))
        assert raised.value.reason == "full"
        ballast.unlink()
        kept += store.append(event(numberer, "c"))
        held = store.content()
        assert 0 < held.free_bytes < 1_000_000
        assert held.messages == len(kept)
    assert content(path) == kept


def test_a_damaged_store_is_renamed_and_a_new_one_is_created(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, numberer = tmp_path / "store.sqlite3", make.numberer()
    with opened(path) as store:
        first = store.id
        for number in range(200):
            store.append(event(numberer, f"e{number}"))
    data = bytearray(path.read_bytes())
    for broken in (
        bytes(data[:4096]) + os.urandom(len(data) - 4096),  # all but the first page
        bytes(len(data)),  # as after a power cut
        bytes(data[: len(data) // 2]),
    ):
        path.write_bytes(broken)
        caplog.clear()
        with opened(path) as store:
            assert store.is_new
            assert store.id != first
            assert [one.stored_seq for one in store.append(event(numberer, "new"))] == [1, 2]
        assert len(content(path)) == 2
        (logged,) = caplog.messages
        assert f"event store {path} is damaged: it was renamed to {path}.damaged-2" in logged
        assert Path(logged.split("renamed to ")[1].split(",")[0]).read_bytes() == broken


def test_a_store_of_a_newer_version_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with opened(path) as store:
        store.append(event(make.numberer(), "a"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=rf"newer earwitness \(schema 99; this one supports up to {tables.SCHEMA}\)"
    ) as raised:
        Store(path, AMPLE)
    assert raised.value.reason == "newer"
    assert path.read_bytes() == before


def test_a_file_that_is_not_a_store_is_not_changed(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("precious")
    other = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    (tmp_path / "folder").mkdir()
    for path in (notes, other, tmp_path / "folder"):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(StoreError, match=r"is not an earwitness event store; choose another `store.path`"):
            Store(path, AMPLE)
        assert not path.is_file() or path.read_bytes() == before


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    path.touch()
    with opened(path) as store:
        assert store.is_new


def test_only_one_daemon_can_open_it(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with opened(path):
        code = (
            "import sys; from pathlib import Path; from streamer.sinks.store.writing import Store\n"
            "from streamer.sinks.store.retention import Limits\n"
            "try: Store(Path(sys.argv[1]), Limits(1, 10**9))\n"
            "except Exception as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, check=True
        )
    assert done.stdout == (
        f"event store {path} is in use by another earwitness (process {os.getpid()}), so this one stores nothing; "
        "give each daemon its own `publisher` or `store.path`\n"
    )
    with opened(path) as store:
        assert not store.is_new


@pytest.mark.parametrize("place", ["/proc/no/store.sqlite3", "{}/file/store.sqlite3", "/sys/store.sqlite3"])
def test_an_unwritable_place_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"let this user write there, or set another `store.path`") as raised:
        Store(Path(place.format(tmp_path)), AMPLE)
    assert raised.value.reason == "denied"


def test_a_migration_is_applied_completely_or_not_at_all(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store", isolation_level=None)) as connection:
        tables.migrate(connection)
        tables.set_meta(connection, "store", "abc")
        steps = (*tables.MIGRATIONS, "CREATE TABLE extra (a); INSERT INTO extra VALUES (1)")
        with pytest.raises(sqlite3.OperationalError):
            tables.migrate(connection, (*steps[:-1], f"{steps[-1]}; CREATE TABLE extra (b)"))
        assert tables.schema_of(connection) == tables.SCHEMA
        assert connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
        tables.migrate(connection, steps)
        tables.migrate(connection, steps)
        assert tables.schema_of(connection) == tables.SCHEMA + 1
        assert connection.execute("SELECT a FROM extra").fetchall() == [(1,)]
        assert tables.get_meta(connection, "store") == "abc"


def aged(numberer: Numberer, *ages_s: float, now_s: float = 1_790_000_000.0) -> list[tables.Storable]:
    return [msgspec.structs.replace(numbered(numberer, make.status()), sent_utc_s=now_s - age_s) for age_s in ages_s]


def test_old_messages_are_removed_and_their_numbers_are_not_reused(tmp_path: Path) -> None:
    path, numberer, day_s = tmp_path / "store.sqlite3", make.numberer(), 86_400.0
    with opened(path, Limits(2, 10**9)) as store:
        store.append(aged(numberer, 5 * day_s, 4 * day_s, 3 * day_s))
        assert store.alive(1_790_000_000.0) == ("age", 3)
        assert store.alive(1_790_000_000.0) == ("", 0)
        assert store.content().oldest_utc_s is None
    with opened(path, Limits(2, 10**9)) as store:
        # The clock was 20 years behind until it was set: messages from that time are not removed for it.
        kept = store.append(aged(numberer, 1.0, 20 * 365 * day_s, 0.0))
        assert [one.stored_seq for one in kept] == [4, 5, 6]
        assert store.alive(1_790_000_000.0) == ("", 0)
        assert store.content().messages == 3


def test_statuses_do_not_displace_events(tmp_path: Path) -> None:
    path, numberer = tmp_path / "store.sqlite3", make.numberer()
    limits = Limits(10_000, 1_000_000)
    with opened(path, limits) as store:
        store.append([one for number in range(50) for one in event(numberer, f"e{number}")])
        most = 0
        for _ in range(60):
            store.append([numbered(numberer, make.status()) for _ in range(50)])
            store.alive(0.0)
            most = max(most, store.content().bytes)
        while store.alive(0.0)[0]:
            pass
        assert store.content().bytes <= limits.keep_bytes
        assert most < limits.keep_bytes * 1.2
    kept = content(path)
    assert sum(isinstance(one, OnsetMessage) for one in kept) == 50
    statuses = [one.stored_seq for one in kept if isinstance(one, StatusMessage)]
    assert statuses == list(range(statuses[0], 3101))
    # Nor do events displace statuses when they are many; and a lower limit shrinks the file.
    with opened(path, Limits(10_000, 500_000)) as store:
        for number in range(100):
            store.append([one for i in range(20) for one in event(numberer, f"f{number}-{i}")])
            store.alive(0.0)
        while store.alive(0.0)[0]:
            pass
        for _ in range(20):
            store.alive(0.0)
    kept = content(path)
    assert 0.3 < sum(isinstance(one, StatusMessage) for one in kept) / len(kept) < 0.7
    assert path.stat().st_size < 800_000


def test_evidence_is_removed_before_its_events(tmp_path: Path) -> None:
    path, numberer = tmp_path / "store.sqlite3", make.numberer()
    decoding = Decoding(("Dog",), (ClassDecoding(0.5, 0.4, 1),))
    scores = np.random.default_rng(1).random((800, 1), np.float32)  # does not compress well
    one = Evidence(decoding, 0, scores, np.ones(800, np.bool_))
    limits = Limits(10_000, 800_000)
    for _ in range(2):  # the content is counted when the store is opened
        with opened(path, limits) as store:
            for number in range(100):
                kept = store.append(event(numberer, f"e{number}"))
                store.explain([(message.stored_seq, one) for message in kept])
                store.alive(0.0)
            while store.alive(0.0)[0]:
                pass
            assert store.content().bytes <= limits.keep_bytes
    with closing(sqlite3.connect(path)) as connection:
        explained = [row[0] for row in connection.execute("SELECT stored_seq FROM evidence ORDER BY 1")]
    assert explained == list(range(explained[0], 401))  # the newest
    assert 20 < len(explained) < 300
    assert len(content(path)) == 400


def test_a_removed_file_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with opened(path) as store:
        assert not store.moved
        path.rename(tmp_path / "elsewhere")
        assert store.moved


def test_events_left_open_by_a_killed_run_are_found_by_the_next(tmp_path: Path) -> None:
    path, first, second = tmp_path / "store.sqlite3", make.numberer(run="r1"), make.numberer(run="r2")
    with opened(path) as store:
        store.append([*event(first, "a", done=False), *event(first, "b"), *event(first, "c", done=False)])
        store.alive(1_790_000_042.5)
    with opened(path) as store:
        store.append(event(second, "d", done=False))
        onsets, alive_utc_s = store.unfinished("r2")
        assert [one.event_id for one in onsets] == ["a", "c"]
        assert alive_utc_s == 1_790_000_000.0  # of the newest message
        assert store.newest_seq("r2") == 1
        assert store.newest_seq("r1") == 0
        store.append([numbered(second, assumed_offset(onset, 0.0, 1.0, "crash")) for onset in onsets])
        assert store.unfinished("r2")[0] == []
        assert [one.event_id for one in store.unfinished("r3")[0]] == ["d"]


@given(
    sent_utc_s=st.floats(1e9, 2e9),
    alive_utc_s=st.floats(0, 4e9),
    onset_utc_s=st.none() | st.floats(1e9, 2e9),
    score=st.floats(0, 1),
)
def test_a_crash_offset_is_a_lower_bound(
    sent_utc_s: float, alive_utc_s: float, onset_utc_s: float | None, score: float
) -> None:
    onset = msgspec.structs.replace(
        make.numberer().number(make.onset()), sent_utc_s=sent_utc_s, onset_utc_s=onset_utc_s, score=score
    )
    assert isinstance(onset, OnsetMessage)
    offset = assumed_offset(onset, alive_utc_s, 600.0, "crash")
    assert 0.0 <= offset.duration_s <= 600.0
    assert offset.duration_s <= max(0.0, alive_utc_s - sent_utc_s) + 1e-5
    assert offset.offset_s == pytest.approx(onset.onset_s + offset.duration_s)
    assert (offset.offset_utc_s is None) == (offset.offset_utc is None) == (onset_utc_s is None)
    assert (offset.confidence, offset.peak, offset.end_reason) == (score, score, "crash")
    decode(msgspec.json.encode(make.numberer().number(offset)))


def test_the_columns_match_the_message(tmp_path: Path) -> None:
    path, numberer = tmp_path / "store.sqlite3", make.numberer()
    sent: Sequence[tables.Storable] = [make.onset("c", "Töne, 1/2"), make.offset("c", "Töne, 1/2"), make.status("d")]
    with opened(path) as store:
        store.append([numbered(numberer, one) for one in sent])
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT kind, stream, class, event_id, at_utc_s, confidence, message FROM messages ORDER BY stored_seq"
        ).fetchall()
    assert [row[:-1] for row in rows] == [
        ("onset", "c", "Töne, 1/2", "e1", 1_790_000_001.5, 0.8),
        ("offset", "c", "Töne, 1/2", "e1", 1_790_000_001.5, 0.7),
        ("status", "d", None, None, 1_790_000_002.0, None),
    ]
    assert [json.loads(row[-1])["stored_seq"] for row in rows] == [1, 2, 3]
