"""`earwitness demo`: runs the daemon on the shipped recording and compares the detected events with the truth."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.commands.options import PRESET_HELP
from streamer.errors import EarwitnessError, WeightsError
from streamer.models import DEFAULT, FUSED, bundle_path, model_help
from streamer.replay.truth import LabelledEvent, read_truth
from streamer.windows import PRESETS

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from streamer.networks.weights import WeightsStore

_FOLDER = Path(__file__).parent.parent / "demo"
_STREAM = "demo"
_PATIENCE_S = 10.0
"""How long the daemon and the subscriber may take to end after SIGTERM."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An event as the subscriber received it."""

    event: LabelledEvent
    said_s: float  # when its onset was published, on the recording's clock


@dataclass(frozen=True, slots=True)
class Matched:
    """A true event and the events of its class that overlap it, in the order they were heard."""

    true: LabelledEvent
    heard: tuple[Heard, ...]


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="run the daemon on the shipped recording and compare its events with the truth",
        description="Runs the daemon on the demo recording at its own speed, prints what a subscriber in another "
        "process receives, and compares it with the recording's truth.",
        epilog="example: earwitness demo --model spectral --preset fast",
    )
    parser.add_argument(
        "--model",
        metavar="NAME|BUNDLE",
        help=f"{model_help(None)}; default: {FUSED} if its weights are there, else {DEFAULT}",
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), help=PRESET_HELP)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the demo; returns 0, or raises `EarwitnessError` if the model can't be read or the daemon failed."""
    from streamer.bundle import Bundle
    from streamer.networks.weights import WeightsStore, default_weights_folder

    model = args.model
    if model is None:
        model, line = chosen(FUSED, WeightsStore(default_weights_folder(os.environ)))
        _say(line)
    Bundle.load(bundle_path(model))  # a fault is told here, not by the daemon
    recording = _FOLDER / "demo.mp4"
    truth = read_truth(_FOLDER / "truth.tsv").events[recording.name]
    endpoint = f"tcp://127.0.0.1:{_free_port()}"
    _say(f"The daemon listens to {recording.name} like a camera; a subscriber to {endpoint} prints its messages.")
    with tempfile.TemporaryDirectory(prefix="earwitness-demo-") as folder:
        config = Path(folder) / "demo.yaml"
        config.write_text(json.dumps(settings(recording, endpoint, model, args.preset)))  # JSON is YAML
        command = [sys.executable, "-m", "streamer.cli"]
        listener = subprocess.Popen(
            [*command, "listen", endpoint, "--topic", "event/"], stdout=subprocess.PIPE, text=True
        )
        daemon = subprocess.Popen([*command, "run", "--config", str(config)])
        try:
            heard = _follow(daemon, listener)
        finally:
            codes = [_end(process) for process in (daemon, listener)]
    if codes[0] != 0:
        raise EarwitnessError(
            f"the daemon ended with exit code {codes[0]}; its error is above; `earwitness doctor` checks this machine"
        )
    _say("")
    _say(table(truth, heard))
    return 0


def chosen(fused: str, weights: WeightsStore) -> tuple[str, str]:
    """The model to show if none is named, and a line about it: `fused`, if the weights that it needs are there."""
    from streamer.bundle import Bundle

    bundle = Bundle.load(bundle_path(fused))
    try:
        bundle.factories(weights)
    except WeightsError as error:
        return DEFAULT, f"The model is `{DEFAULT}`. `{fused}` is better, but {error}."
    return fused, f"The model is `{fused}`, which fuses {', '.join(bundle.modalities)}."


def settings(recording: Path, endpoint: str, model: str | None, preset: str | None) -> dict[str, Any]:
    """The config of the demo's daemon; `model` and `preset`: as `run` takes them, None: the default."""
    return {
        "streams": {_STREAM: {"source": str(recording), "realtime": True}},
        "publish": {"zmq": endpoint},
        "store": {"path": "off"},
        "metrics": None,
        "log": {"level": "warning"},
        "model": str(bundle_path(model).absolute()),
        **({"windows": {"preset": preset}} if preset else {}),
    }


def table(truth: Sequence[LabelledEvent], heard: Sequence[Heard]) -> str:
    """A table of the true events beside what was heard, one row each, and a summary line.

    A true event is heard if an event of its class overlaps it; an event that overlaps no true event of
    its class is a false alarm. "said after" is the time from a true onset to the message of its onset; there is none
    where the event of an earlier one went on.
    """
    matches = [Matched(true, tuple(one for one in heard if _overlap(one.event, true))) for true in truth]
    false = [one.event for one in heard if not any(_overlap(one.event, true) for true in truth)]
    rows = [
        ("true event", "from", "to", "heard from", "to", "said after"),
        ("-" * 26, "-----", "-----", "----------", "-----", "----------"),
    ]
    told: set[Heard] = set()
    for match in matches:
        true, span = match.true, ("not heard", "", "")
        if match.heard:
            first, last = match.heard[0], match.heard[-1].event
            late = "went on" if first in told else f"{first.said_s - true.onset_s:.1f} s"
            span = (f"{first.event.onset_s:.1f}", f"{last.offset_s:.1f}", late)
            told.update(match.heard)
        rows.append((true.label, f"{true.onset_s:.1f}", f"{true.offset_s:.1f}", *span))
    rows += [
        (f"(false alarm) {one.label}"[:40], "", "", f"{one.onset_s:.1f}", f"{one.offset_s:.1f}", "") for one in false
    ]
    lines = [f"{row[0]:<42} {row[1]:>6} {row[2]:>6}   {row[3]:>10} {row[4]:>6} {row[5]:>11}" for row in rows]
    count = sum(bool(match.heard) for match in matches)
    return "\n".join([*lines, "", f"heard {count} of {len(truth)} events, {len(false)} false alarms"])


def _follow(daemon: subprocess.Popen[bytes], listener: subprocess.Popen[str]) -> list[Heard]:
    """Print each message as it arrives until the daemon has ended; returns the complete events."""
    assert listener.stdout is not None
    threading.Thread(target=_end_after, args=(daemon, listener), daemon=True).start()
    heard: list[Heard] = []
    said_s: dict[str, float] = {}  # by event id
    for line in listener.stdout:
        message = json.loads(line)
        if message["type"] == "onset":
            late_s = message["sent_utc_s"] - message["onset_utc_s"]
            said_s[message["event_id"]] = message["onset_s"] + late_s
            _say(f"  {message['onset_s']:6.1f} s  {message['class']} begins   (published {late_s:.1f} s later)")
        elif message["type"] == "offset":
            _say(f"  {message['offset_s']:6.1f} s  {message['class']} ends     (lasted {message['duration_s']:.1f} s)")
            event = LabelledEvent(message["onset_s"], message["offset_s"], message["class"])
            heard.append(Heard(event, said_s[message["event_id"]]))
    return sorted(heard, key=lambda one: one.event.onset_s)


def _end_after(daemon: subprocess.Popen[bytes], listener: subprocess.Popen[str]) -> None:
    """End the subscriber once the daemon has ended and its last messages have had time to arrive."""
    daemon.wait()
    time.sleep(1.0)
    listener.terminate()


def _end(process: subprocess.Popen[Any]) -> int:
    process.terminate()
    try:
        return process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _overlap(one: LabelledEvent, other: LabelledEvent) -> bool:
    return one.label == other.label and one.onset_s < other.offset_s and other.onset_s < one.offset_s


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
