"""Stored features: of the clips that are there now, by the spec that the model takes, whatever was interrupted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import soundfile
import torch

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.features import EXTRACTORS, spectral
from streamer.networks.inputs import SpectralInput
from streamer.networks.weights import WeightsStore, default_weights_folder
from streamer.types import Floats
from tests.make_media import make_clip
from tests.models import Energy
from tests.train.test_corpus import make_recordings, settings
from tests.train.test_resume import arguments
from train import cli
from train.data import cache, corpus, store
from train.data.clip import clip_cells
from train.data.dataset import Corpus, PartData
from train.data.hashes import media_sha256


@pytest.fixture
def energy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second modality of audio that costs nothing."""
    monkeypatch.setitem(EXTRACTORS, "vggish", lambda spec, weights: Energy())


def make_corpus(folder: Path, seed: int = 0, **fields: object) -> Path:
    if not (folder / "recordings").exists():
        make_recordings(folder / "recordings", groups=3)
    out = folder / f"corpus-{seed}"
    clips = {"train": 4, "weak": 2, "unlabeled": 2, "validation": 2, "test": 2}
    corpus.make(
        folder / "recordings", out, settings(**{"seed": seed, "clips": clips, "clip_s": 3.0, **fields}), workers=1
    )
    return out


def features(source: Path, out: Path, *more: str) -> int:
    return cli.main(["features", str(source), str(out), "--workers", "1", *more])


def stored(out: Path, modality: str = "spectral") -> list[str]:
    return [json.loads(line)["sha256"] for line in (out / modality / "clips.jsonl").read_text().splitlines()]


def batches(source: Path, out: Path, modalities: tuple[str, ...] = ("spectral",)) -> dict[str, torch.Tensor]:
    made: dict[str, torch.Tensor] = {}
    for part in ("train", "validation", "test"):
        data: PartData = Corpus.read(source).part(part, out, modalities)
        values, valid = data.features.batch(range(len(data)), int(data.features.cells.max()))
        made |= {f"{part} {name}": one for name, one in values.items()}
        made |= {f"{part} {name} valid": one for name, one in valid.items()}
    return made


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_features_of_another_corpus_are_added_and_each_corpus_gets_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = make_corpus(tmp_path, 0), make_corpus(tmp_path, 1)
    both = tmp_path / "features"
    assert features(one, both) == 0
    capsys.readouterr()
    assert cli.main(arguments([str(other), str(both)], tmp_path / "run", steps=1)) == 1
    assert "has no spectral features of 4 of 4 clips" in capsys.readouterr().err
    assert features(other, both) == 0
    assert len(stored(both)) == len(set(stored(both))) == 24
    assert features(other, tmp_path / "alone") == 0
    assert same(batches(other, both), batches(other, tmp_path / "alone"))
    assert not same(batches(one, both), batches(other, both))


@pytest.mark.usefixtures("energy")
def test_another_modality_is_added_and_nothing_computed_twice(tmp_path: Path) -> None:
    source, out = make_corpus(tmp_path), tmp_path / "features"
    assert features(source, out) == 0
    before = (out / "spectral" / "values.f16").stat()
    assert features(source, out, "--modalities", "spectral", "vggish") == 0
    after = (out / "spectral" / "values.f16").stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    assert stored(out, "vggish") == stored(out)
    assert features(source, tmp_path / "at once", "--modalities", "vggish", "spectral") == 0
    both = ("vggish", "spectral")
    assert same(batches(source, out, both), batches(source, tmp_path / "at once", both))


def test_a_changed_clip_alone_is_computed_again_and_never_taken_for_what_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_corpus(tmp_path), tmp_path / "features"
    assert features(source, out) == 0
    shutil.copy(source / "audio" / "train" / "train_00000.flac", source / "audio" / "test" / "test_00000.flac")
    make_clip(source / "audio" / "test" / "test_00001.flac", seconds=2, audio="flac", rate_hz=22_050)
    capsys.readouterr()
    assert cli.main(arguments([str(source), str(out)], tmp_path / "run", steps=1)) == 0
    assert cli.main(["export", str(source), str(out), str(tmp_path / "run"), str(tmp_path / "bundle")]) == 1
    assert "has no spectral features of 1 of 2 clips" in capsys.readouterr().err
    assert features(source, out) == 0
    assert len(stored(out)) == 13  # the copy is known already
    assert features(source, tmp_path / "fresh") == 0
    assert same(batches(source, out), batches(source, tmp_path / "fresh"))


def test_features_of_another_spec_or_version_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_corpus(tmp_path), tmp_path / "features"
    assert features(source, out) == 0
    assert cli.main(arguments([str(source), str(out)], tmp_path / "run", steps=1)) == 0
    export = ["export", str(source), str(out), str(tmp_path / "run"), str(tmp_path / "bundle"), "--workers", "1"]
    assert cli.main(export) == 0
    store = out / "spectral" / "store.json"
    key = json.loads(store.read_text())
    evaluate = ["evaluate", str(source), str(out), "--model", str(tmp_path / "bundle")]
    assert cli.main(evaluate) == 0
    store.write_text(json.dumps({**key, "spec": {**key["spec"], "window": 1024}}))
    for command in (evaluate, export):
        capsys.readouterr()
        assert cli.main(command) == 1
        assert "needs spectral features with window=2048, these were made with window=1024" in capsys.readouterr().err
    assert features(source, out) == 1
    assert "its features have window=1024, not window=2048" in capsys.readouterr().err
    store.write_text(json.dumps({**key, "version": 0}))
    assert features(source, out) == 1
    assert "were made by version 0 of the extractors" in capsys.readouterr().err
    assert cli.main(evaluate) == 1
    assert "was made by version 0 of the extractors" in capsys.readouterr().err
    store.write_text("{")
    assert cli.main(evaluate) == 1
    assert "store.json: can't be read" in capsys.readouterr().err
    assert Bundle.load(tmp_path / "bundle").feature_specs == {"spectral": key["spec"]}


def test_features_that_are_killed_are_gone_on_with_to_the_same_bits(tmp_path: Path) -> None:
    source = make_corpus(tmp_path, clips={"train": 60, "weak": 2, "unlabeled": 2, "validation": 2, "test": 2})
    out = tmp_path / "features"
    lines = out / "spectral" / "clips.jsonl"
    command = [sys.executable, "-m", "train.cli", "features", str(source), str(out), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (lines.exists() and len(lines.read_bytes().splitlines()) >= 5):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        os.kill(process.pid, signal.SIGKILL)
        assert not psutil.wait_procs(workers, timeout=20)[1], "a worker outlives the command"
    finally:
        process.kill()
        process.wait()
    done = len(lines.read_bytes().splitlines())
    assert 5 <= done < 68
    with lines.open("ab") as file:  # as if it had been killed within a line, and before within a clip's cells
        file.write(b'{"sha256":"00')
    with (out / "spectral" / "values.f16").open("ab") as file:
        file.write(b"\x00" * 1000)
    with (out / "spectral" / "valid.u8").open("ab") as file:
        file.write(b"\x01" * 7)
    assert features(source, out) == 0
    assert len(stored(out)) == len(set(stored(out))) == 68
    assert features(source, tmp_path / "whole") == 0
    assert same(batches(source, out), batches(source, tmp_path / "whole"))


def test_weights_are_looked_for_where_earwitness_weights_puts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert features(make_corpus(tmp_path), tmp_path / "features", "--modalities", "vggish") == 1
    assert f"are not in {default_weights_folder(os.environ)}" in capsys.readouterr().err
    assert default_weights_folder(os.environ).is_relative_to(tmp_path)


def test_two_at_once_do_not_write_into_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = make_corpus(tmp_path), tmp_path / "features"
    holder = "import sys, time, pathlib; from train.lock import only_writer\n"
    holder += "with only_writer(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holder, str(out)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert features(source, out) == 1
        assert "another earwitness-train is writing there" in capsys.readouterr().err
        process.kill()
    assert features(source, out) == 0


def test_a_clip_that_can_not_be_read_is_said_in_one_line_and_the_others_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_corpus(tmp_path), tmp_path / "features"
    (source / "audio" / "weak" / "weak_00001.flac").write_text("no sound")
    assert features(source, out) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("earwitness-train: error: ")
    assert "weak_00001.flac" in last
    assert len(stored(out)) == 11
    assert np.isfinite(np.fromfile(out / "spectral" / "values.f16", np.float16)).all()


def test_what_it_takes_is_said_before_anything_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = make_corpus(tmp_path), tmp_path / "features"
    caplog.set_level("INFO")
    assert features(source, out, "--dry-run") == 0
    assert not out.exists()
    assert "0 of 12 clips have all features already" in caplog.text
    assert re.search(
        r"spectral +12 +554 kB +\d+ s", caplog.text
    )  # 45 cells of 4 x 128 float16, and whether each is valid
    assert re.search(r"with 1 worker, measured on 2 of the clips; [\d.]+ .B are free", caplog.text)
    caplog.clear()
    assert features(source, out) == 0
    assert "554 kB" in caplog.text
    assert sum(path.stat().st_size for path in (out / "spectral").glob("v*")) == 12 * 45 * 1025
    caplog.clear()
    (source / "audio" / "test" / "test_00000.flac").unlink()
    make_clip(source / "audio" / "test" / "test_00000.flac", seconds=2, audio="flac", rate_hz=22_050)
    assert features(source, out, "--dry-run") == 0
    assert "11 of 12 clips have all features already" in caplog.text
    assert re.search(r"spectral +1 +", caplog.text)
    assert len(stored(out)) == 12


def test_a_disk_that_is_too_small_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = make_corpus(tmp_path), tmp_path / "features"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=553_000))
    assert features(source, out) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the features need 554 kB (spectral alone 554 kB), and only 553 kB are free" in last
    assert not (out / "spectral").exists()
    monkeypatch.undo()
    assert features(source, out) == 0


def test_float16_moves_a_log_mel_value_by_less_than_a_thousandth() -> None:
    rng = np.random.default_rng(0)
    for peak, most in ((1000.0, 1.1e-3), (3.0, 4e-3), (0.01, 7e-3)):  # the last two are below -45 and -95 dBFS
        magnitudes = (peak * 10 ** rng.uniform(-9, 0, (1, 151, 4, 128))).astype(np.float32)
        rounded = np.zeros_like(magnitudes)
        store.widened(store.narrowed(magnitudes, "float16"), rounded)
        valid = torch.ones(1, 151, dtype=torch.bool)
        before, after = (SpectralInput(128).log(torch.from_numpy(one), valid) for one in (magnitudes, rounded))
        assert 0 < (before - after).abs().max() < most
        assert np.array_equal(rounded, magnitudes.astype(np.float16))


@pytest.mark.parametrize("value", [1e5, float("inf"), float("nan")])
def test_what_float16_can_not_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="can't be stored as float16"):
        store.narrowed(np.array([1.0, value], np.float32), "float16")


def test_a_clip_that_is_far_too_loud_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = 1e6 * np.random.default_rng(0).standard_normal(22_050).astype(np.float32)
    loud, quiet = tmp_path / "loud.wav", tmp_path / "quiet.wav"
    soundfile.write(loud, samples, 22_050, subtype="FLOAT")
    soundfile.write(quiet, samples / 1e7, 22_050, subtype="FLOAT")
    clips = {path: media_sha256(path) for path in (loud, quiet)}
    with pytest.raises(EarwitnessError, match=r"loud.wav: its spectral values up to \S+ can't be stored as float16"):
        cache.add(tmp_path / "features", clips, ["spectral"], tmp_path, 1)
    assert stored(tmp_path / "features") == [clips[quiet]]
    assert cache.add(tmp_path / "tolerant", clips, ["spectral"], tmp_path, 1, tolerant=True) == 1
    assert list(cache.broken(tmp_path / "tolerant")) == [clips[loud]]


def test_features_of_version_0_3_are_read_and_extended_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = make_corpus(tmp_path), tmp_path / "features"
    clip = source / "audio" / "train" / "train_00000.flac"
    whole = clip_cells(clip, {"spectral": spectral.factory({}, WeightsStore(tmp_path))}).values["spectral"]
    folder = out / "spectral"
    folder.mkdir(parents=True)
    # Byte for byte what that version wrote.
    (folder / "store.json").write_text(
        '{"version": 1, "spec": {"window": 2048, "mels": 128}, "shape": [4, 128], "pictures_alone": false}\n'
    )
    entry = {"sha256": media_sha256(clip), "start": 0, "cells": len(whole), "picture_cells": 0}
    (folder / "clips.jsonl").write_text(json.dumps(entry) + "\n")
    (folder / "values.f32").write_bytes(whole.tobytes())
    (folder / "valid.u8").write_bytes(b"\x01" * len(whole))
    old = batch_of(out, {clip: media_sha256(clip)}, len(whole))
    assert np.array_equal(old, whole)
    assert features(source, out) == 0
    assert len(stored(out)) == 12
    assert not (folder / "values.f16").exists()
    other = source / "audio" / "train" / "train_00001.flac"
    exact = clip_cells(other, {"spectral": spectral.factory({}, WeightsStore(tmp_path))}).values["spectral"]
    assert np.array_equal(batch_of(out, {other: media_sha256(other)}, len(exact)), exact)
    assert features(source, tmp_path / "new") == 0
    assert np.array_equal(
        batch_of(tmp_path / "new", {other: media_sha256(other)}, len(exact)), exact.astype(np.float16)
    )
    parts = [Corpus.read(source).part("train", folder, ["spectral"]) for folder in (out, tmp_path / "new")]
    assert parts[0].sha256 != parts[1].sha256  # a run that changes from one to the other says so


def batch_of(out: Path, clips: dict[Path, str], cells: int) -> Floats:
    return cache.read(out, clips, ["spectral"]).batch([0], cells)[0]["spectral"][0].numpy()


def test_numbers_of_a_later_version_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = make_corpus(tmp_path), tmp_path / "features"
    assert features(source, out) == 0
    path = out / "spectral" / "store.json"
    path.write_text(path.read_text().replace("float16", "float8"))
    assert features(source, out) == 1
    assert "store.json: can't be read: Invalid enum value 'float8'" in capsys.readouterr().err
