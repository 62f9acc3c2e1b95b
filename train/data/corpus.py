"""`earwitness-train corpus`: a folder of mixed clips with DCASE's annotation files.

```
OUT/corpus.json                     the configuration, the part of every group (written last)
OUT/audio/<part>/<clip>.flac        22 050 Hz, mono, 16 bit
OUT/metadata/<part>.tsv             train, validation, test: filename onset offset event_label
OUT/metadata/weak.tsv               filename event_labels (comma-separated)
OUT/metadata/unlabeled.tsv          filename
OUT/metadata/sources.tsv            part filename label recording licence source
```
"""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import soundfile
from tqdm import tqdm

from streamer.errors import EarwitnessError
from train.config import GROUP_PARTS, CorpusConfig, Part
from train.data import mixing
from train.data.recordings import RATE_HZ, Recording, Split, read_manifest, split
from train.data.summary import FILE, Summary, write_summary
from train.lock import only_writer
from train.split import Pin
from train.workers import pool

PARTS: tuple[Part, ...] = get_args(Part)
_CLIPS_A_JOB = 50


def make(
    source: Path, out: Path, config: CorpusConfig, workers: int, pin: Pin | None = None, pin_name: str | None = None
) -> None:
    """Split the recordings under `source` by group and mix every part's clips into `out`.

    The same recordings, configuration and seed give the same files for any number of workers. Groups in `pin` (the
    split of `pin_name`) stay in their part; only new groups are assigned. `out` is created atomically at the end, so
    a killed command leaves no partial corpus there.

    Raises:
        EarwitnessError: `out` already exists, a recording is invalid, or a class has no recording.

    """
    if (out / FILE).exists():
        raise EarwitnessError(f"{out}: already holds a corpus; name another folder or delete it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EarwitnessError(f"{out}: already exists and is not a corpus; name another folder or delete it")
    pinned = pin.parts if pin is not None else {}
    parts = split(read_manifest(source, config.uses), config.seed, config.validation_share, config.test_share, pinned)
    _check(parts, config)
    dealt = Pin.of_json({name: sorted({one.group for one in getattr(parts, name)}) for name in GROUP_PARTS})
    if config.train_on_validation:
        parts = replace(parts, train=(*parts.train, *parts.validation))
    recordings = {part: _recordings(parts, part) for part in PARTS}
    half = out.with_name(out.name + ".part")  # may hold files of an interrupted run
    with only_writer(half):
        for name in ("audio", "metadata"):
            shutil.rmtree(half / name, ignore_errors=True)
        _write_metadata(half, _mix(recordings, half, config, workers))
        summary = Summary(
            config=config.model_dump(mode="json"),
            groups={part: _groups(recordings[part]) for part in GROUP_PARTS},
            recordings={part: dict(Counter(one.label for one in recordings[part])) for part in GROUP_PARTS},
            split=(dealt if pin is None else pin.joined(dealt)).json(),
            split_from=pin_name,
        )
        write_summary(half, summary)
        (half / ".lock").unlink()
        half.replace(out)


def _mix(
    recordings: dict[Part, tuple[Recording, ...]], out: Path, config: CorpusConfig, workers: int
) -> dict[Part, list[tuple[str, mixing.Clip | None]]]:
    """Write the clips of every part; returns their names and contents."""
    for part in PARTS:
        (out / "audio" / part).mkdir(parents=True)
    rows: dict[Part, list[tuple[str, mixing.Clip | None]]] = {part: [] for part in PARTS}
    jobs = [
        (part, range(first, min(first + _CLIPS_A_JOB, config.clips.get(part, 0))))
        for part in PARTS
        for first in range(0, config.clips.get(part, 0), _CLIPS_A_JOB)
    ]
    total = sum(config.clips.values())
    with pool(workers) as processes, tqdm(total=total, desc="mixing", unit="clip") as bar:
        futures = [processes.submit(_mix_job, recordings[part], out, part, numbers, config) for part, numbers in jobs]
        for (part, _), future in zip(jobs, futures, strict=True):
            made = future.result()
            rows[part] += made
            bar.update(len(made))
    return rows


_pools: dict[tuple[Recording, ...], mixing.Pool] = {}
"""The worker process's recordings, read once. This is a global because the jobs of a pool share nothing else."""


def _mix_job(
    recordings: tuple[Recording, ...], out: Path, part: Part, numbers: Iterable[int], config: CorpusConfig
) -> list[tuple[str, mixing.Clip | None]]:
    if recordings not in _pools:
        _pools.clear()
        _pools[recordings] = mixing.read_pool(recordings, config)
    made: list[tuple[str, mixing.Clip | None]] = []
    for number in numbers:
        rng = np.random.default_rng([config.seed, PARTS.index(part), number])
        clip = mixing.mix(_pools[recordings], config, rng, training=part in ("train", "weak", "unlabeled"))
        name = f"{part}_{number:05d}.flac"
        soundfile.write(out / "audio" / part / name, clip.samples, RATE_HZ, subtype="PCM_16")
        made.append((name, mixing.Clip(clip.samples[:0], clip.labels, clip.background)))
    return made


def _write_metadata(out: Path, rows: dict[Part, list[tuple[str, mixing.Clip | None]]]) -> None:
    folder = out / "metadata"
    folder.mkdir()
    for part in GROUP_PARTS:
        _write(folder / f"{part}.tsv", ("filename", "onset", "offset", "event_label"), _strong_rows(rows[part]))
    weak = ((name, ",".join(sorted({one.label for one in clip.labels}))) for name, clip in rows["weak"] if clip)
    _write(folder / "weak.tsv", ("filename", "event_labels"), weak)
    _write(folder / "unlabeled.tsv", ("filename",), ((name,) for name, _ in rows["unlabeled"]))
    sources = (
        (part, name, label, recording.group, recording.use, recording.licence, recording.source)
        for part in PARTS
        for name, clip in rows[part]
        if clip
        for label, recording in [("background", clip.background), *((one.label, one.recording) for one in clip.labels)]
    )
    _write(folder / "sources.tsv", ("part", "filename", "label", "group", "use", "licence", "source"), sources)


def _strong_rows(rows: Sequence[tuple[str, mixing.Clip | None]]) -> Iterator[tuple[str, ...]]:
    for name, clip in rows:
        if clip and not clip.labels:
            yield name, "", "", ""  # a clip without events is annotated too
        for one in clip.labels if clip else ():
            yield name, f"{one.onset_s:.3f}", f"{one.offset_s:.3f}", one.label


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _recordings(parts: Split, part: Part) -> tuple[Recording, ...]:
    return {"validation": parts.validation, "test": parts.test}.get(part, parts.train)


def _groups(recordings: Sequence[Recording]) -> dict[str, list[str]]:
    labels = sorted({one.label for one in recordings})
    return {label: sorted({one.group for one in recordings if one.label == label}) for label in labels}


def _check(parts: Split, config: CorpusConfig) -> None:
    for name, recordings in (("train", parts.train), ("validation", parts.validation), ("test", parts.test)):
        missing = set(config.classes) - {one.label for one in recordings}
        if missing:
            raise EarwitnessError(
                f"no recording of {', '.join(sorted(missing))} for the {name} part: each class needs 3 groups"
            )
        if not any(one.is_background for one in recordings):
            raise EarwitnessError(f"no background recording for the {name} part")
