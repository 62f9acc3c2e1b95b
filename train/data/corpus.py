"""`earwitness-train corpus`: a folder of mixed clips with DCASE's annotation files.

```
OUT/corpus.json                     the configuration, the part of every group (written last)
OUT/audio/<part>/<clip>.flac        22 050 Hz, mono, 16 bit
OUT/audio/<part>/<clip>.mp4         instead, if the configuration has `video`: H.264, and AAC of the same sound
OUT/metadata/<part>.tsv             train, validation, test: filename onset offset event_label
OUT/metadata/weak.tsv               filename event_labels (comma-separated)
OUT/metadata/unlabeled.tsv          filename
OUT/metadata/sources.tsv            part filename label group use licence source; a picture's label is picture/<class>
OUT/metadata/video.tsv              part filename condition since fps width height infrared
OUT/metadata/seen.tsv               part filename onset offset role seen group event_label event_onset event_offset
```

The last two are there if there is video. `film` explains `condition` and `role`. `seen` is a class, another label, or
`room`; an event that is not seen has no onset and offset there.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import soundfile
from tqdm import tqdm

from streamer.errors import EarwitnessError
from streamer.media.writing import write_clip
from train.data import mixing
from train.data.config import GROUP_PARTS, CorpusConfig, Part
from train.data.corpus_tables import Made, write_tables
from train.data.recordings import RATE_HZ, Recording, Split, read_manifest, split
from train.data.summary import FILE, Summary, write_summary
from train.film.pictures import PicturePool, check_pictures, pool_of, read_pictures
from train.film.plan import Film, draw_film
from train.film.rendering import render
from train.lock import only_writer
from train.split import Pin
from train.workers import pool

_log = logging.getLogger(__name__)
PARTS: tuple[Part, ...] = get_args(Part)
_CLIPS_A_JOB, _FILMS_A_JOB = 50, 10
_FILM = 1
"""Follows the numbers that seed a clip's sound in the seed of its film. So video does not change what is heard."""


def make(
    source: Path,
    out: Path,
    config: CorpusConfig,
    workers: int,
    pin: Pin | None = None,
    pin_name: str | None = None,
    picture_folders: Sequence[Path] = (),
) -> None:
    """Split the recordings under `source` by group and mix every part's clips into `out`.

    The same recordings, pictures, configuration and seed give the same files for any number of workers. Groups in
    `pin` (the split of `pin_name`) stay in their part; only new groups are assigned. Pictures are split like
    recordings; they come from `picture_folders`, or from `source`. `out` is created atomically at the end, so a killed
    command leaves no partial corpus there.

    Raises:
        EarwitnessError: `out` already exists, a recording or a picture is invalid, or a class has no recording.

    """
    if (out / FILE).exists():
        raise EarwitnessError(f"{out}: already holds a corpus; name another folder or delete it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EarwitnessError(f"{out}: already exists and is not a corpus; name another folder or delete it")
    if picture_folders and config.video is None:
        raise EarwitnessError("pictures are named, but the configuration has no `video`: add `video: {}`")
    pinned = dict(pin.parts) if pin is not None else {}
    parts = split(read_manifest(source, config.uses), config.seed, config.validation_share, config.test_share, pinned)
    _check(parts, config)
    dealt = _pin_of(parts)
    seen = Split((), (), ())
    if config.video is not None:
        pictures = read_pictures(picture_folders or [source], config.classes, config.uses, config.video.leave_out)
        check_pictures(pictures, workers)
        shares = (config.validation_share, config.test_share)
        seen = split(pictures, config.seed, *shares, {**pinned, **dealt.parts})
        dealt = dealt.joined(_pin_of(seen))
    if config.train_on_validation:
        parts, seen = (replace(one, train=(*one.train, *one.validation)) for one in (parts, seen))
    material = {part: _Material(_recordings(parts, part), _recordings(seen, part)) for part in PARTS}
    lacking = None if config.video is None else _lacking(material, config.classes)
    half = out.with_name(out.name + ".part")  # may hold files of an interrupted run
    with only_writer(half):
        for name in ("audio", "metadata"):
            shutil.rmtree(half / name, ignore_errors=True)
        clips = _mix(material, half, config, workers)
        write_tables(half / "metadata", clips)
        summary = Summary(
            config=config.model_dump(mode="json", exclude_none=True),
            groups={part: _groups(material[part].recordings) for part in GROUP_PARTS},
            recordings={part: dict(Counter(one.label for one in material[part].recordings)) for part in GROUP_PARTS},
            split=(dealt if pin is None else pin.joined(dealt)).json(),
            split_from=pin_name,
            pictures=None if lacking is None else {part: _groups(material[part].pictures) for part in GROUP_PARTS},
            without_pictures=lacking,
        )
        write_summary(half, summary)
        (half / ".lock").unlink()
        half.replace(out)
    _tell(clips)


@dataclass(frozen=True, slots=True)
class _Material:
    """What the clips of one part are made of."""

    recordings: tuple[Recording, ...]
    pictures: tuple[Recording, ...]


def _mix(material: Mapping[Part, _Material], out: Path, config: CorpusConfig, workers: int) -> dict[Part, list[Made]]:
    """Write the clips of every part; returns what is in them."""
    for part in PARTS:
        (out / "audio" / part).mkdir(parents=True)
    made: dict[Part, list[Made]] = {part: [] for part in PARTS}
    step = _CLIPS_A_JOB if config.video is None else _FILMS_A_JOB
    jobs = [
        (part, range(first, min(first + step, config.clips.get(part, 0))))
        for part in PARTS
        for first in range(0, config.clips.get(part, 0), step)
    ]
    total = sum(config.clips.values())
    with pool(workers) as processes, tqdm(total=total, desc="mixing", unit="clip") as bar:
        futures = [processes.submit(_mix_job, material[part], out, part, numbers, config) for part, numbers in jobs]
        for (part, _), future in zip(jobs, futures, strict=True):
            clips = future.result()
            made[part] += clips
            bar.update(len(clips))
    return made


_pools: dict[_Material, tuple[mixing.Pool, PicturePool]] = {}
"""The worker process's recordings, read once. This is a global because the jobs of a pool share nothing else."""


def _mix_job(material: _Material, out: Path, part: Part, numbers: Iterable[int], config: CorpusConfig) -> list[Made]:
    if material not in _pools:
        _pools.clear()
        _pools[material] = (
            mixing.read_pool(material.recordings, config),
            pool_of(material.pictures, config.classes),
        )
    sounds, pictures = _pools[material]
    made: list[Made] = []
    for number in numbers:
        seed = [config.seed, PARTS.index(part), number]
        clip = mixing.mix(sounds, config, np.random.default_rng(seed), training=part in ("train", "weak", "unlabeled"))
        name = f"{part}_{number:05d}"
        film = None
        if config.video is None:
            name += ".flac"
            soundfile.write(out / "audio" / part / name, clip.samples, RATE_HZ, subtype="PCM_16")
        else:
            name += ".mp4"
            rng = np.random.default_rng([*seed, _FILM])
            film = draw_film(clip.labels, pictures, config.classes, config.clip_s, config.video, rng)
            _write_video(out / "audio" / part / name, clip, film, config.clip_s, config.video.audio_kbps)
        made.append(Made(name, clip.labels, clip.background, film))
    return made


def _write_video(path: Path, clip: mixing.Clip, film: Film, clip_s: float, audio_kbps: int) -> None:
    if film.condition == "missing":
        write_clip(path, clip.samples, RATE_HZ, audio_kbps)
    else:
        write_clip(path, clip.samples, RATE_HZ, audio_kbps, render(film, clip_s), film.camera.format)


def _tell(clips: Mapping[Part, Sequence[Made]]) -> None:
    """Log what is seen of the events."""
    films = [clip.film for of in clips.values() for clip in of if clip.film is not None]
    if not films:
        return
    roles = Counter(sight.role for film in films for sight in film.sights)
    conditions = Counter(film.condition for film in films)
    _log.info(
        "events: %d with their own picture, %d with another class's, %d out of view, %d of classes without pictures; "
        "clips: %d with a class that is not heard, %d dark, %d frozen, %d without video",
        roles["agrees"], roles["wrong"], roles["unseen"], roles["no_picture"],
        roles["silent"], conditions["dark"], conditions["frozen"], conditions["missing"],
    )  # fmt: skip


def _lacking(material: Mapping[Part, _Material], classes: Sequence[str]) -> dict[str, list[str]]:
    """Part -> the classes of which it has no picture; they are logged."""
    lacking: dict[str, list[str]] = {}
    for part in GROUP_PARTS:
        pictures = pool_of(material[part].pictures, classes)
        lacking[part] = [label for label in classes if label not in pictures.classes]
        _log.info(
            "%s: %d groups of pictures of %d classes, %d of unrelated pictures%s",
            part, sum(map(len, pictures.classes.values())), len(pictures.classes), len(pictures.unrelated),
            f"; none of {', '.join(lacking[part])}: unrelated pictures are seen with them" if lacking[part] else "",
        )  # fmt: skip
    return lacking


def _recordings(parts: Split, part: Part) -> tuple[Recording, ...]:
    return {"validation": parts.validation, "test": parts.test}.get(part, parts.train)


def _pin_of(parts: Split) -> Pin:
    return Pin.of_json({name: {one.group for one in getattr(parts, name)} for name in GROUP_PARTS})


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
