from __future__ import annotations

import argparse
import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from streamer import cli
from streamer.commands import logs
from streamer.commands.known import KnownSecrets


def earwitness(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamer.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert "example: earwitness" in " ".join(capsys.readouterr().out.split())


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert all(command in out for command in cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "earwitness: error: the following arguments are required: COMMAND"),
        (["rnu"], "invalid choice: 'rnu'"),
        (["run", "--modle", "x"], "unrecognized arguments: --modle"),
        (["run"], "no source to listen to"),
        (["run", "a=x.mp4", "a=y.mp4"], "two streams are named 'a'"),
        (["run", "--config", "/gone.yaml"], "config /gone.yaml: No such file"),
        (["listen", "--count", "x"], "argument --count: 'x' is not a whole number from 1"),
        (["listen", "--timeout", "-1"], "argument --timeout: '-1' is not a number of seconds above 0"),
        (["replay", "x.mp4", "--threads", "0"], "argument --threads: '0' is not a whole number from 1"),
        (["run", "x.mp4", "--publish", "off", "--model", "/gone"], "bundle /gone: there is no such folder"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: int | str | None = cli.main(arguments)
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert expected in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_an_unknown_config_field(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("streams:\n  door:\n    source: x\n    transprot: udp\n")
    line = one_line(earwitness("run", "--config", str(tmp_path / "c.yaml")), 2)
    assert line.endswith("c.yaml:4: unknown field 'streams.door.transprot'; did you mean 'transport'?")


def test_an_error_that_should_not_happen_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(args: argparse.Namespace) -> None:
        raise ZeroDivisionError("rtsp://user:secret@h/x")  # as a library's text that quotes its argument

    monkeypatch.setattr("streamer.commands.run.main", broken)
    assert cli.main(["run", "rtsp://user:secret@h/x"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "ZeroDivisionError" in error
    assert "secret" not in error
    assert cli.main(["--debug", "run", "door=rtsp://user:secret@h/x"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "secret" not in error


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_lines_are_single_and_redacted(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    try:
        known = KnownSecrets()
        known.learn_arguments(["door=rtsp://user:secret@h/x"])
        logs.set_up("info", form, known)
        logging.getLogger("streamer.x").info("lost %s\nreally", "rtsp://user:secret@h/x")
        logging.getLogger("streamer.x").debug("not said")
    finally:
        logging.getLogger().handlers[:] = before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "secret" not in lines[0]
    if form == "json":
        entry = json.loads(lines[0])
        assert (entry["level"], entry["message"]) == ("info", "lost rtsp://***@h/x really")
    else:
        assert lines[0].endswith("Z INFO    lost rtsp://***@h/x really")


def test_doctor_says_what_fails_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no film")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = earwitness(
            *("doctor", f"text={tmp_path / 'notes.txt'}", "cam=rtsp://user:secret@127.0.0.1:9/x"),
            *("--model", str(tmp_path), "--publish", f"tcp://127.0.0.1:{port}", "--metrics", f"127.0.0.1:{port}"),
        )
    assert done.returncode == 1
    assert done.stderr == ""
    table = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()}
    assert {name for name, verdict in table.items() if verdict == "fail"} == {
        "model",
        "publish",
        "metrics",
        "text",
        "cam",
    }
    assert table["torch"] == table["av"] == "ok"
    assert "secret" not in done.stdout
