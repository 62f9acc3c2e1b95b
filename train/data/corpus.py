"""`earwitness-train corpus`: a folder of mixed clips with DCASE's annotation files.

```
OUT/corpus.json                     the configuration, the split, what was mixed from what
OUT/audio/<part>/<clip>.flac        22 050 Hz, mono, 16 bit
OUT/metadata/<part>.tsv             train, validation, test: filename onset offset event_label
OUT/metadata/weak.tsv               filename event_labels (comma-separated)
OUT/metadata/unlabeled.tsv          filename
OUT/metadata/sources.tsv            part filename label recording licence source
```
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import soundfile
from tqdm import tqdm

from streamer.errors import EarwitnessError
from train.config import CorpusConfig, Part
from train.data import mixing
from train.data.recordings import RATE_HZ, Recording, Split, read_manifest, split

PARTS: tuple[Part, ...] = get_args(Part)
_CLIPS_A_JOB = 50


def make(source: Path, out: Path, config: CorpusConfig, workers: int) -> None:
    """Split the recordings under `source` by group and mix every part's clips into `out`.

    The same recordings, configuration and seed give the same files, whatever the number of workers.

    Raises:
        EarwitnessError: `out` already holds a corpus, a recording is bad, or a class has no recording.

    """
    if (out / "corpus.json").exists():
        raise EarwitnessError(f"{out}: already holds a corpus; name another folder or delete it")
    parts = split(read_manifest(source, config.uses), config.seed, config.validation_share, config.test_share)
    _check(parts, config)
    if config.train_on_validation:
        parts = replace(parts, train=(*parts.train, *parts.validation))
    for part in PARTS:
        (out / "audio" / part).mkdir(parents=True, exist_ok=True)
    (out / "metadata").mkdir(exist_ok=True)
    recordings = {part: _recordings(parts, part) for part in PARTS}
    rows: dict[Part, list[tuple[str, mixing.Clip | None]]] = {part: [] for part in PARTS}
    jobs = [
        (part, range(first, min(first + _CLIPS_A_JOB, config.clips.get(part, 0))))
        for part in PARTS
        for first in range(0, config.clips.get(part, 0), _CLIPS_A_JOB)
    ]
    total = sum(config.clips.values())
    with ProcessPoolExecutor(workers) as pool, tqdm(total=total, desc="mixing", unit="clip") as bar:
        futures = [pool.submit(_mix_job, recordings[part], out, part, numbers, config) for part, numbers in jobs]
        for (part, _), future in zip(jobs, futures, strict=True):
            made = future.result()
            rows[part] += made
            bar.update(len(made))
    _write_metadata(out, rows)
    summary = {
        "config": config.model_dump(mode="json"),
        "groups": {part: _groups(recordings[part]) for part in ("train", "validation", "test")},
        "recordings": {
            part: dict(Counter(one.label for one in recordings[part])) for part in ("train", "validation", "test")
        },
    }
    (out / "corpus.json").write_text(json.dumps(summary, indent=1) + "\n")


def read_summary(folder: Path) -> dict[str, Any]:
    """What `corpus.json` says of a corpus: `config`, `groups`, `recordings`.

    Raises:
        EarwitnessError: it is missing or damaged.

    """
    try:
        summary: dict[str, Any] = json.loads((folder / "corpus.json").read_text())
        if not {"config", "groups", "recordings"} <= summary.keys():
            raise ValueError("corpus.json lacks config, groups or recordings")
    except (OSError, ValueError, AttributeError) as error:
        raise EarwitnessError(f"{folder}: is not a corpus of `earwitness-train corpus`: {error}") from None
    return summary


_pools: dict[tuple[Recording, ...], mixing.Pool] = {}
"""The pool of the worker process, read once: the one global, since a process pool's jobs share nothing else."""


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
    for part in ("train", "validation", "test"):
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
            yield name, "", "", ""  # a clip without an event still counts
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
