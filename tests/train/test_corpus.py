"""Corpora: whole groups in one part, exact labels, the same for the same seed."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer.errors import ConfigError, EarwitnessError
from train import config
from train.data import corpus, mixing
from train.data.config import CorpusConfig
from train.data.recordings import RATE_HZ, active_spans, read_manifest, split
from train.data.summary import read_summary

CLASSES = ("Cat", "Dog")


def make_recordings(folder: Path, groups: int = 6) -> Path:
    """Two classes and a background: a burst of a tone, of noise, and quiet noise; two recordings a group."""
    rng = np.random.default_rng(0)
    rows = []
    for label in (*CLASSES, "background/hum"):
        for group in range(groups):
            for take in range(2):
                samples = 0.001 * rng.standard_normal(3 * RATE_HZ)
                if label == "Cat":
                    samples[RATE_HZ : 2 * RATE_HZ] += 0.3 * np.sin(np.arange(RATE_HZ) * (0.1 + 0.01 * group))
                elif label == "Dog":
                    samples[RATE_HZ : 2 * RATE_HZ] += 0.2 * rng.standard_normal(RATE_HZ)
                path = folder / f"{label.replace('/', '_')}_{group}_{take}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, samples, RATE_HZ)
                rows.append(
                    [path.name, label, "audio", "r", f"{label}:{group}", "ship", "CC0", "here", "p", "3", RATE_HZ, ""]
                )
    header = [
        "path",
        "class",
        "kind",
        "recording_id",
        "group",
        "use",
        "licence",
        "source_repo",
        "original_path",
        "seconds",
        "sample_rate",
        "note",
    ]
    with (folder / "manifest.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([header, *rows])
    return folder


def settings(**fields: object) -> CorpusConfig:
    clips = {"train": 6, "weak": 3, "unlabeled": 2, "validation": 3, "test": 3}
    return CorpusConfig.model_validate(
        {"classes": CLASSES, "clips": clips, "clip_s": 6.0, "event_s": (0.25, 5.0), **fields}
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_corpus_with_any_number_of_workers(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "recordings")
    corpus.make(source, tmp_path / "a", settings(), workers=1)
    corpus.make(source, tmp_path / "b", settings(), workers=2)
    corpus.make(source, tmp_path / "c", settings(seed=1), workers=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_no_group_is_heard_in_two_parts(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "recordings")
    corpus.make(source, tmp_path / "a", settings(), workers=1)
    heard = defaultdict(set)
    with (tmp_path / "a" / "metadata" / "sources.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            heard["train" if row["part"] in ("weak", "unlabeled") else row["part"]].add(row["group"])
    assert heard["train"]
    assert not heard["train"] & heard["test"]
    assert not heard["train"] & heard["validation"]
    assert not heard["validation"] & heard["test"]


def test_validation_recordings_can_be_trained_on_and_test_recordings_never(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "recordings")
    for folder, too in (("apart", False), ("both", True)):
        corpus.make(source, tmp_path / folder, settings(train_on_validation=too), workers=1)
    groups = {name: read_summary(tmp_path / name).groups for name in ("apart", "both")}
    for label in CLASSES:
        apart, both = ({part: set(of[label]) for part, of in groups[name].items()} for name in ("apart", "both"))
        assert both["train"] == apart["train"] | apart["validation"]
        assert not both["train"] & both["test"]
    names = [f"metadata/{name}.tsv" for name in ("validation", "test")]
    assert all((tmp_path / "apart" / name).read_bytes() == (tmp_path / "both" / name).read_bytes() for name in names)


def test_files_are_in_dcases_form_and_every_clip_is_there(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "recordings")
    corpus.make(source, tmp_path / "a", settings(events={0: 1.0}), workers=1)
    metadata = tmp_path / "a" / "metadata"
    assert (metadata / "validation.tsv").read_text().splitlines()[0] == "filename\tonset\toffset\tevent_label"
    assert len((metadata / "validation.tsv").read_text().splitlines()) == 1 + 3  # clips without events have a row
    assert (metadata / "weak.tsv").read_text().splitlines()[:2] == ["filename\tevent_labels", "weak_00000.flac\t"]
    assert (metadata / "unlabeled.tsv").read_text().splitlines() == [
        "filename",
        "unlabeled_00000.flac",
        "unlabeled_00001.flac",
    ]
    assert set(json.loads((tmp_path / "a" / "corpus.json").read_text())) == {"config", "groups", "recordings", "split"}


def test_labels_lie_where_the_sound_is(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "recordings")
    loud = settings(events={1: 1.0}, distractors={0: 1.0}, snr_db=(30.0, 30.0), extend=0.0)
    recordings = read_manifest(source, ["ship"])
    pool = mixing.read_pool(recordings, loud)
    for seed in range(20):
        clip = mixing.mix(pool, loud, np.random.default_rng(seed), training=False)
        (label,) = clip.labels
        parts = active_spans(clip.samples, 25, 0.5, 0.2)
        assert len(parts) == 1
        assert parts[0][0] / RATE_HZ == pytest.approx(label.onset_s, abs=0.06)
        assert parts[0][1] / RATE_HZ == pytest.approx(label.offset_s, abs=0.06)


def test_a_recordings_active_part_is_found_without_its_silence() -> None:
    samples = 0.001 * np.random.default_rng(0).standard_normal(4 * RATE_HZ).astype(np.float32)
    samples[RATE_HZ : 2 * RATE_HZ] += 0.2
    samples[round(3.2 * RATE_HZ) : round(3.5 * RATE_HZ)] += 0.2
    assert [(round(a / RATE_HZ, 1), round(b / RATE_HZ, 1)) for a, b in active_spans(samples, 25, 0.5, 0.2)] == [
        (1.0, 2.0),
        (3.2, 3.5),
    ]
    assert len(active_spans(samples, 25, 1.5, 0.2)) == 1
    steady = np.random.default_rng(0).standard_normal(2 * RATE_HZ).astype(np.float32)
    ((start, stop),) = active_spans(steady, 25, 0.5, 0.2)
    assert start == 0
    assert stop == pytest.approx(2 * RATE_HZ, abs=0.01 * RATE_HZ)


def test_polyphony_and_gaps_are_kept(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "recordings")
    crowded = settings(events={5: 1.0}, polyphony=2)
    pool = mixing.read_pool(read_manifest(source, ["ship"]), crowded)
    for seed in range(30):
        labels = mixing.mix(pool, crowded, np.random.default_rng(seed), training=True).labels
        for one in labels:
            assert sum(other.onset_s <= one.onset_s < other.offset_s for other in labels) <= 2
            same = [other for other in labels if other.label == one.label and other is not one]
            assert all(other.onset_s > one.offset_s + 0.5 or other.offset_s < one.onset_s - 0.5 for other in same)


def test_each_class_needs_a_group_for_each_part(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "recordings", groups=2)
    with pytest.raises(EarwitnessError, match="each class needs 3 groups"):
        corpus.make(source, tmp_path / "a", settings(), workers=1)


def test_a_corpus_is_never_overwritten_and_bad_sources_are_named(tmp_path: Path) -> None:
    source = make_recordings(tmp_path / "recordings", groups=3)
    corpus.make(source, tmp_path / "a", settings(), workers=1)
    with pytest.raises(EarwitnessError, match="already holds a corpus"):
        corpus.make(source, tmp_path / "a", settings(), workers=1)
    with pytest.raises(EarwitnessError, match=r"manifest.tsv: can't be read"):
        read_manifest(tmp_path / "nowhere", ["ship"])
    next(source.glob("Cat_0_0.flac")).write_text("not audio")
    with pytest.raises(EarwitnessError, match=r"Cat_0_0.flac: can't be read"):
        corpus.make(source, tmp_path / "b", settings(), workers=1)


def test_shares_of_the_split(tmp_path: Path) -> None:
    recordings = read_manifest(make_recordings(tmp_path / "recordings", groups=20), ["ship"])
    parts = split(recordings, seed=0, validation_share=0.1, test_share=0.2)
    groups = {
        name: {one.group for one in getattr(parts, name) if one.label == "Cat"}
        for name in ("train", "validation", "test")
    }
    assert {name: len(value) for name, value in groups.items()} == {"train": 14, "validation": 2, "test": 4}


def test_a_configuration_that_is_wrong_says_what(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("clipz: 3\n")
    with pytest.raises(ConfigError, match=r"c.yaml: clipz: Extra inputs"):
        config.load(path, CorpusConfig)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        config.load(path, CorpusConfig)
