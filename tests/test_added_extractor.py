"""Adding an extractor is one class and one registration: it then trains, replays and streams, alone or with others.

Everything here but `Loudness` and the line that registers it is what any modality goes through.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from streamer import cli as earwitness
from streamer.bundle import Bundle
from streamer.decoding import ClassDecoding
from streamer.features import EXTRACTORS
from streamer.types import CELL, SAMPLE_RATE_HZ, Cells, Chunk, Floats, Picture, Want
from tests.train.test_corpus import make_recordings, settings
from train import cli
from train.data import corpus


class Loudness:
    """The added modality, factory and extractor in one: the mean, the peak and the power of each cell's samples."""

    name = "loudness"
    shape: tuple[int, ...] = (3,)
    want = Want(rates_hz=frozenset({SAMPLE_RATE_HZ}))

    def __init__(self) -> None:
        self._samples = np.zeros(0, np.float32)
        self._next = 0

    def spec(self) -> Mapping[str, Any]:
        return {}

    def new(self) -> Loudness:
        return Loudness()

    def push(self, item: Chunk | Picture) -> Cells:
        assert isinstance(item, Chunk)
        hole = np.zeros(item.start - self._next * CELL - len(self._samples), np.float32)
        self._samples = np.concatenate([self._samples, hole, item.samples])
        return self._give(self._next + len(self._samples) // CELL)

    def flush(self, cells: int) -> Cells:
        return self._give(max(cells, self._next))

    def _give(self, stop: int) -> Cells:
        start, self._next = self._next, stop
        needed = (stop - start) * CELL
        taken, self._samples = self._samples[:needed], self._samples[needed:]
        cells = np.pad(taken, (0, needed - len(taken))).reshape(-1, CELL)
        values: Floats = np.stack([cells.mean(1), np.abs(cells).max(1), np.square(cells).mean(1)], axis=1)
        return Cells(start, values.astype(np.float32), np.ones(stop - start, np.bool_))


def register() -> None:
    """The one registration."""
    EXTRACTORS["loudness"] = lambda spec, weights: Loudness(**spec)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register()
    yield
    del EXTRACTORS["loudness"]


@pytest.mark.parametrize("modalities", [["loudness"], ["spectral", "loudness"]], ids=" ".join)
def test_an_added_extractor_trains_replays_and_streams(tmp_path: Path, modalities: list[str]) -> None:
    clips = {"train": 3, "weak": 1, "unlabeled": 1, "validation": 1, "test": 1}
    made, stored, run, model = (str(tmp_path / name) for name in ("corpus", "features", "run", "model"))
    corpus.make(make_recordings(tmp_path / "recordings", 3), Path(made), settings(clips=clips), workers=1)
    (tmp_path / "fit.yaml").write_text(
        yaml.safe_dump(
            {
                "modalities": modalities,
                "widths": {"loudness": 5},
                "steps": 2,
                "batch": {"strong": 2, "weak": 1, "unlabeled": 1},
                "threads": 1,
            }
        )
    )
    train = [
        ["features", made, stored, "--modalities", *modalities],
        ["fit", made, stored, run, "--config", str(tmp_path / "fit.yaml")],
        ["export", made, stored, run, model],
        ["evaluate", made, stored, "--model", model],
    ]
    for command in train:
        assert cli.main(command) == 0, command
    bundle = Bundle.load(Path(model))
    assert bundle.modalities == tuple(modalities)
    assert bundle.tensors["embeddings.loudness.project.weight"].shape == (5, 3)
    # Two steps teach nothing: thresholds that anything crosses, so that there is something to hear.
    anything = replace(bundle.decoding, per_class=tuple(ClassDecoding(1e-3, 1e-3, 1) for _ in bundle.classes))
    replace(bundle, decoding=anything).save(Path(model))

    clip = f"{made}/audio/test/test_00000.flac"
    for mode in ("clip", "stream"):
        report = tmp_path / mode
        assert earwitness.main(["replay", clip, "--model", model, "--mode", mode, "--report", str(report)]) == 0
        assert json.loads((report / "scores.json").read_text())["events"] > 0
    messages = tmp_path / "messages.jsonl"
    daemon = "import sys, tests.test_added_extractor as added; added.register()\n"
    daemon += "from streamer.cli import main; sys.exit(main(sys.argv[1:]))"
    outputs = ["--jsonl", str(messages), "--publish", "off", "--metrics", "off"]
    done = subprocess.run(
        [sys.executable, "-c", daemon, "run", f"clip={clip}", "--model", model, *outputs],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    types = {json.loads(line)["type"] for line in messages.read_text().splitlines()}
    assert {"onset", "offset", "tags"} <= types
