"""A secret in a source never appears in the program's output, however the source is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from streamer import cli
from tests.canary import CANARY, MALFORMED, NASTY, WELL_FORMED
from tests.e2e.daemon import COMMAND, ROOT, Daemon
from tests.make_media import make_clip

RAW = [text.format(CANARY) for text in WELL_FORMED + MALFORMED]
ENCODED = [text.format(quote(NASTY, safe="")) for text in WELL_FORMED + MALFORMED]
VARIABLE = [text.format("${CANARY}") for text in WELL_FORMED + MALFORMED]
ENVIRON = {"CANARY": NASTY, "WHOLE": f"rtsp://user:{CANARY}@127.0.0.1:9/{CANARY}"}


def earwitness(*arguments: str, cwd: Path = ROOT, environ: dict[str, str] | None = None) -> str:
    """A command's exit code and output."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        capture_output=True,
        timeout=150,
        check=False,
    )
    return f"{done.returncode}\n{(done.stdout + done.stderr).decode(errors='replace')}"


def config_of(folder: Path, form: str) -> dict[str, Any]:
    """A daemon with each kind of source, given raw, encoded, or by a variable; and a working one."""
    clip = make_clip(folder / "clip.wav", seconds=2, audio="pcm")
    sources = {"raw": RAW, "encoded": ENCODED, "variable": [*VARIABLE, "${WHOLE}"]}[form]
    streams: dict[str, Any] = {f"s{number}": {"source": one} for number, one in enumerate(sources)}
    for stream in streams.values():
        stream |= {"open_timeout_s": 2.0, "ffmpeg": {"headers": "Authorization: Bearer ${CANARY}", "cookies": CANARY}}
    streams["good"] = {"source": str(clip), "realtime": True, "loop": True}
    return {"streams": streams, "log": {"level": "debug", "format": "json" if form == "raw" else "text"}}


@pytest.mark.parametrize("form", ["raw", "encoded", "variable"])
def test_the_daemon(form: str, tmp_path: Path, bundle: Path) -> None:
    lines = tmp_path / "messages.jsonl"
    arguments = ("--model", str(bundle), "--jsonl", str(lines))
    config = config_of(tmp_path, form)
    outputs: dict[str, str] = {}
    with Daemon(tmp_path, *arguments, config=config, environ=ENVIRON) as daemon:
        base = f"http://{daemon.metrics}"

        def all_tried() -> bool:
            states = [one for one in daemon.of("status") if one["state"] in ("backoff", "failed")]
            return {one["stream"] for one in states} >= set(config["streams"]) - {"good"}

        daemon.until(all_tried, 90.0)
        daemon.until(lambda: daemon.of("tags", "good"))
        for path in ("/readyz", "/healthz", "/metrics"):
            outputs[path] = httpx.get(base + path, timeout=30).text
        assert daemon.process is not None
        outputs["ps"] = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes().decode()
        daemon.terminate()
        assert daemon.listener is not None
        outputs["zmq"] = json.dumps(daemon.listener.messages)
        outputs["log"] = daemon.log
    outputs["jsonl"] = lines.read_text()
    for place, text in outputs.items():
        assert len(text) > 20, place
        assert CANARY not in text, place
    # Each failure is reported all the same.
    messages = map(json.loads, outputs["jsonl"].splitlines())
    assert {one["stream"] for one in messages if one.get("reason")} >= set(config["streams"]) - {"good"}


@pytest.mark.parametrize("form", ["raw", "encoded", "variable"])
def test_doctor(form: str, tmp_path: Path, bundle: Path) -> None:
    sources = {"raw": RAW, "encoded": ENCODED, "variable": [*VARIABLE, "${WHOLE}"]}[form]
    named = [f"s{number}={one}" for number, one in enumerate(sources)]
    (tmp_path / "c.yaml").write_text(json.dumps({"publish": {"zmq": "off"}, "metrics": "off"}))
    output = earwitness("doctor", *named, "--config", str(tmp_path / "c.yaml"), "--model", str(bundle), environ=ENVIRON)
    assert CANARY not in output
    for number in range(len(sources)):
        assert re.search(rf"^(fail|warn) +s{number} ", output, re.MULTILINE), output
    if form == "raw":
        assert output.count("/ as %2F") >= 10


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_replay(form: str, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, source in enumerate(RAW if form == "tsv" else ENCODED[::6]):
        report = tmp_path / f"{form}{number}"
        arguments = ["--model", str(bundle), "--report", str(report), "--format", form]
        assert cli.main(["replay", source, *arguments]) == 1
        output = "".join(capsys.readouterr())
        assert "error: " in output
        assert CANARY not in output
        files = [path.read_text() for path in report.iterdir()]
        assert len(files) >= 4
        assert CANARY not in "".join(files)


def test_replay_of_a_listing(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clip(tmp_path / "clip.wav", seconds=1, audio="pcm")
    for number, source in enumerate(RAW[::4]):
        listing = tmp_path / f"{number}.txt"
        for first in ("clip.wav\n", ""):
            listing.write_text(f"{first}{source}\n")
            assert cli.main(["replay", str(listing), "--model", str(bundle)]) != 0
            output = "".join(capsys.readouterr())
            assert "error: " in output
            assert CANARY not in output
    listing.write_text("\n".join(RAW))
    assert cli.main(["replay", str(listing), "--model", str(bundle)]) != 0
    assert CANARY not in "".join(capsys.readouterr())


WRONG_PLACES = [
    ["{}"],
    ["listen", "{}"],
    ["listen", "--topic", "x", "y", "{}"],
    ["listen", "--count", "{}"],
    ["run", "--publish", "{}", "x.wav"],
    ["run", "--metrics", "{}", "x.wav", "--publish", "off"],
    ["run", "--model", "{}", "x.wav"],
    ["run", "--config", "{}"],
    ["run", "--config={}"],
    ["run", "x.wav", "--metrics", "off", "door={}", "--jsonl", "off", "yard={}"],
    ["run", "a={}", "a={}"],
    ["run", "a door={}"],
    ["run", "--log-level", "{}"],
    ["run", "--unknown={}"],
    ["--debug", "run", "--config", "{}"],
    ["--debug", "listen", "{}"],
    ["doctor", "--model", "{}", "--publish", "{}", "--metrics", "{}"],
    ["replay", "x.wav", "--truth", "{}"],
    ["replay", "x.wav", "--model", "{}"],
    ["weights", "fetch", "vggish", "--url", "{}", "--weights", "w"],
    ["weights", "fetch", "vggish", "--file", "{}", "--weights", "w"],
    ["weights", "fetch", "{}"],
]


@pytest.mark.parametrize("words", WRONG_PLACES, ids=" ".join)
def test_a_url_in_the_wrong_argument(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clip(tmp_path / "x.wav", seconds=1, audio="pcm")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for url in (RAW[0], RAW[5], RAW[10], ENCODED[0], RAW[len(WELL_FORMED)], RAW[len(WELL_FORMED) + 13]):
            try:
                code: Any = cli.main([word.format(url) if "{" in word else word for word in words])
            except SystemExit as ended:
                code = ended.code
            output = "".join(capsys.readouterr())
            assert code != 0, output
            assert CANARY not in output
            assert output.strip()


@pytest.mark.parametrize("command", ["run", "doctor"])
@pytest.mark.parametrize("field", ["model", "weights", "metrics", "publish.zmq", "publish.jsonl"])
def test_a_url_in_the_wrong_field_of_a_config(
    command: str, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(make_clip(tmp_path / "x.wav", seconds=1, audio="pcm"))
    for url in (RAW[0], RAW[len(WELL_FORMED)], RAW[len(WELL_FORMED) + 13]):
        fields: dict[str, Any] = {"metrics": "off", "publish": {"zmq": "off"}, "streams": {"x": {"source": clip}}}
        section, dot, name = field.partition(".")
        fields[section] = {"zmq": "off", name: url} if dot else url
        (tmp_path / "c.yaml").write_text(json.dumps(fields))
        cli.main([command, "--config", str(tmp_path / "c.yaml")])
        assert CANARY not in "".join(capsys.readouterr())


def test_ps_shows_the_name_of_a_variable(tmp_path: Path, bundle: Path) -> None:
    """The one place where a program can't hide a secret: every user can read its command line."""
    source = "door=rtsp://user:${CANARY}@127.0.0.1:9/x"
    with Daemon(tmp_path, source, "--model", str(bundle), environ=ENVIRON) as daemon:
        daemon.until(lambda: [one for one in daemon.of("status", "door") if one["state"] == "backoff"])
        assert daemon.process is not None
        shown = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes().decode()
        assert "${CANARY}" in shown
        assert CANARY not in shown + daemon.log
        assert "`ps`" not in daemon.log
    with Daemon(tmp_path, f"door=rtsp://user:{CANARY}@127.0.0.1:9/x", "--model", str(bundle)) as daemon:
        daemon.until(lambda: "is shown by `ps` to every user" in daemon.log)
        assert CANARY not in daemon.log


def test_a_crash_reveals_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a library's exception that quotes the URL, or a part of it."""
    monkeypatch.setenv("CANARY", NASTY)
    texts = [NASTY, quote(NASTY, safe=""), f"user:{NASTY}@host", repr(NASTY), ascii(NASTY), f"/{CANARY}/?"]

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError(" and ".join(texts))

    monkeypatch.setattr("streamer.commands.run.load_model", broken)
    for debug in ([], ["--debug"]):
        assert cli.main([*debug, "run", "rtsp://user:${CANARY}@127.0.0.1:9/x"]) == 1
        output = capsys.readouterr().err
        assert "ZeroDivisionError" in output
        assert ("Traceback" in output) == bool(debug)
        assert CANARY not in output
