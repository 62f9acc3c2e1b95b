"""What signals, a closed terminal and a reader that goes do to the programs, each in a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import COMMAND, ROOT
from tests.make_media import make_clip
from tests.models import bursts


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    return make_clip(path, audio="pcm", rate_hz=22_100, samples=bursts(30.0))


class Running:
    """`earwitness run` of a clip at its own speed, again and again, and the lines that it wrote."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self.path = folder / "events.jsonl"
        self._log = folder / "log"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def lines(self, *paths: Path) -> list[dict[str, Any]]:
        found = [path.read_bytes() for path in (paths or (self.path,)) if path.exists()]
        return [json.loads(line) for line in b"".join(found).split(b"\n")[:-1]]

    def open_events(self, *paths: Path) -> set[str]:
        told = self.lines(*paths)
        ids = {kind: {one["event_id"] for one in told if one["type"] == kind} for kind in ("onset", "offset")}
        return ids["onset"] - ids["offset"]

    def until(self, condition: Callable[[], object], seconds: float = 40.0) -> None:
        end_s = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it has ended:\n{self.log}"
            assert time.monotonic() < end_s, f"waited in vain:\n{self.log}"
            time.sleep(0.02)

    def ends_in_order(self) -> None:
        """It ends by itself, with an offset for each onset."""
        assert self.process.wait(10.0) == 0, self.log
        assert not self.open_events()
        assert "shutdown" in {one.get("end_reason") for one in self.lines()}
        assert [one["state"] for one in self.lines() if one["type"] == "status"][-1] == "stopped"


@contextmanager
def running(
    folder: Path, clip: Path, bundle: Path, *, prefix: tuple[str, ...] = (), terminal: int | None = None
) -> Iterator[Running]:
    """`terminal`: the slave of a pseudo-terminal that becomes the program's own."""

    def take_terminal() -> None:
        os.setsid()
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    arguments = [f"cam={clip}", "--model", str(bundle), "--publish", "off", "--metrics", "off"]
    (folder / "daemon.yaml").write_text(f"streams: {{cam: {{source: {clip}, realtime: true, loop: true}}}}\n")
    arguments[:1] = ["--config", str(folder / "daemon.yaml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*prefix, *COMMAND, "run", *arguments, "--jsonl", str(folder / "events.jsonl")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=take_terminal,
        )
    try:
        yield Running(process, folder)
    finally:
        process.kill()
        process.wait(10.0)


def test_sighup_reopens_and_no_signal_but_sigkill_loses_an_offset(tmp_path: Path, clip: Path, bundle: Path) -> None:
    with running(tmp_path, clip, bundle) as daemon:
        daemon.until(daemon.open_events)
        for index, number in enumerate((signal.SIGHUP, signal.SIGUSR1), 1):
            old = tmp_path / f"events.jsonl.{index}"
            daemon.path.rename(old)
            daemon.process.send_signal(number)
            daemon.until(lambda count=index: daemon.log.count("reopened outputs: jsonl") == count)  # type: ignore[misc]
            daemon.until(lambda: daemon.lines())
        names = "USR2 ALRM VTALRM PROF IO PWR STKFLT PIPE RTMIN RTMAX CHLD CONT WINCH URG"
        for name in names.split():
            daemon.process.send_signal(getattr(signal, f"SIG{name}"))
        seen = len(daemon.lines())
        daemon.until(lambda: len(daemon.lines()) > seen + 3 and daemon.open_events())
        daemon.process.send_signal(signal.SIGQUIT)
        assert daemon.process.wait(10.0) == 0
        paths = [tmp_path / "events.jsonl.1", tmp_path / "events.jsonl.2", daemon.path]
        assert not daemon.open_events(*paths)
        seqs = [one["seq"] for one in daemon.lines(*paths)]
        assert seqs == list(range(1, len(seqs) + 1)), "nothing was lost between the files"


def test_two_quick_signals_are_one_wish(tmp_path: Path, clip: Path, bundle: Path) -> None:
    """A terminal sends Ctrl-C to the whole group, and a wrapper in it sends it on."""
    with running(tmp_path, clip, bundle) as daemon:
        daemon.until(daemon.open_events)
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            daemon.process.send_signal(number)
            time.sleep(0.02)
        daemon.ends_in_order()


def test_a_terminal_that_closes_ends_it_in_order_and_sighup_alone_does_not(
    tmp_path: Path, clip: Path, bundle: Path
) -> None:
    master, slave = os.openpty()
    with running(tmp_path, clip, bundle, terminal=slave) as daemon:
        os.close(slave)
        daemon.until(daemon.lines)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: "reopened outputs" in daemon.log)
        time.sleep(1.5)
        daemon.until(daemon.open_events)
        os.close(master)
        daemon.ends_in_order()


def test_under_nohup_it_outlives_its_terminal(tmp_path: Path, clip: Path, bundle: Path) -> None:
    master, slave = os.openpty()
    with running(tmp_path, clip, bundle, prefix=("nohup",), terminal=slave) as daemon:
        os.close(slave)
        daemon.until(daemon.open_events)
        os.close(master)
        time.sleep(2.5)
        seen = len(daemon.lines())
        daemon.until(lambda: len(daemon.lines()) > seen and daemon.open_events())
        daemon.process.terminate()
        daemon.ends_in_order()


def piped(arguments: list[str], count: int) -> tuple[int, str, float]:
    """Read `count` lines of what a command prints, then close it: exit code, standard error, seconds from then."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for _ in range(count):
                assert process.stdout.readline()
            process.stdout.close()
            began_s = time.monotonic()
            code = process.wait(60.0)
            return code, process.stderr.read(), time.monotonic() - began_s
        finally:
            process.kill()


def test_run_into_head_ends_when_head_does(tmp_path: Path, clip: Path, bundle: Path) -> None:
    config = tmp_path / "daemon.yaml"
    config.write_text(f"streams: {{cam: {{source: {clip}, realtime: true, loop: true}}}}\n")
    arguments = ["run", "--config", str(config), "--model", str(bundle), "--metrics", "off", "--jsonl", "-"]
    code, said, took_s = piped([*arguments, "--publish", "off"], 3)
    assert code == 1
    assert took_s < 5.0
    assert said.count("the reader of standard output is gone") == 1
    assert said.splitlines()[-1].endswith("no sink is left")
    assert "Traceback" not in said


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_replay_into_head_ends_when_head_does(tmp_path: Path, clip: Path, bundle: Path, form: str) -> None:
    for index in range(600):
        (tmp_path / f"{index}.wav").symlink_to(clip)
    code, said, took_s = piped(["replay", str(tmp_path), "--model", str(bundle), "--format", form], 3)
    assert code == 1
    assert took_s < 60.0  # all of them take many minutes
    assert "Traceback" not in said
    assert "Exception" not in said
