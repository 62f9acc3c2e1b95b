"""`earwitness explain` on the store of a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from streamer.onsets import EARLY_CELLS
from streamer.windows import StreamSettings
from tests.e2e.daemon import COMMAND, ROOT
from tests.make_media import make_clip
from tests.models import bursts


@pytest.fixture(scope="module")
def state(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a daemon that processed a recording, and the messages that it published."""
    folder = tmp_path_factory.mktemp("state")
    make_clip(folder / "clip.wav", audio="pcm", rate_hz=48_000, samples=bursts(20, 0, 48_000))
    command = ["run", f"clip={folder / 'clip.wav'}", "--model", str(bundle), "--publish", "off", "--metrics", "off"]
    subprocess.run(
        [*COMMAND, *command, "--jsonl", str(folder / "published.jsonl")],
        check=True,
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(folder)},
        capture_output=True,
        timeout=90,
    )
    return folder


def explain(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "XDG_STATE_HOME": str(state)}
    return subprocess.run(
        [*COMMAND, "explain", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )


def published(state: Path, kind: str) -> list[dict[str, Any]]:
    lines = (state / "published.jsonl").read_text().splitlines()
    return [message for line in lines if (message := json.loads(line))["type"] == kind]


def test_the_filtered_scores_cross_the_thresholds_at_onset_and_offset(state: Path) -> None:
    onsets = {one["event_id"]: one for one in published(state, "onset") if not one["early"]}
    offsets = [
        one
        for one in published(state, "offset")
        if one["event_id"] in onsets and one["end_reason"] == "silence" and one["offset_s"] < 18
    ]
    assert offsets
    offset = offsets[-1]
    done = explain(state, str(offset["event_id"]), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    onset = onsets[offset["event_id"]]
    at_onset = found["start_s"].index(onset["onset_s"])
    at_trigger = found["start_s"].index(onset["trigger_s"])
    at_offset = found["start_s"].index(offset["offset_s"])
    assert found["filtered"][at_trigger] == onset["score"] >= found["onset_threshold"] - 1e-4
    assert found["trigger_s"] == onset["trigger_s"] >= offset["onset_s"] == onset["onset_s"]
    assert found["filtered"][at_onset] >= found["onset_threshold"] - 1e-4
    assert found["filtered"][at_offset] <= found["offset_threshold"]
    assert found["class"] == offset["class"]


def test_an_early_event_is_explained_by_the_scores_of_that_time(state: Path) -> None:
    onset = next(one for one in published(state, "onset") if one["early"])
    found = json.loads(explain(state, onset["event_id"], "--json").stdout)
    assert found["early"]
    last = found["start_s"].index(onset["trigger_s"])
    scores = [row[found["classes"].index(onset["class"])] for row in found["scores"]]
    assert min(scores[last + 1 - EARLY_CELLS : last + 1]) == onset["score"] >= StreamSettings().early_threshold
    text = explain(state, onset["event_id"]).stdout
    assert f"early: {EARLY_CELLS} scores in a row were at least {onset['score']:.2f}, though not final yet" in text


def test_text_format(state: Path) -> None:
    early = {one["event_id"] for one in published(state, "onset") if one["early"]}
    offset = [one for one in published(state, "offset") if one["event_id"] not in early][-1]
    done = explain(state, str(offset["event_id"]))
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"{offset['class']} on clip, ")
    assert any("reached the onset threshold" in line for line in rest)
    assert any(f"{offset['level_dbfs']:.1f} dBFS" in line for line in rest)
    assert any(line.startswith(">  +0.00") for line in rest)


def test_an_unknown_event_is_one_line(state: Path) -> None:
    done = explain(state, "nosuch")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "has no event 'nosuch'" in done.stderr
