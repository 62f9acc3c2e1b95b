"""The recordings that corpora are mixed from: the manifest, the split by group, the active parts."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import soundfile

from streamer.errors import EarwitnessError
from streamer.types import Floats

RATE_HZ = 22_050
"""Sample rate of the recordings and of the corpus."""
Kind: TypeAlias = Literal["audio", "image", "video"]
_BACKGROUND = "background/"
_FRAME_S, _STEP_S = 0.02, 0.01


@dataclass(frozen=True, slots=True)
class Recording:
    """A row of the manifest."""

    path: Path
    label: str  # a class, or "background/..."
    group: str  # recordings of one group may be cut from one original
    use: str
    licence: str
    source: str
    note: str
    kind: Kind = "audio"

    @property
    def is_background(self) -> bool:
        """Whether it contains none of the classes."""
        return self.label.startswith(_BACKGROUND)


@dataclass(frozen=True, slots=True)
class Split:
    """Recordings of each part; no group is in two parts."""

    train: tuple[Recording, ...]
    validation: tuple[Recording, ...]
    test: tuple[Recording, ...]


def read_manifest(source: Path, uses: Iterable[str], kinds: Sequence[Kind] = ("audio",)) -> list[Recording]:
    """The recordings of `source/manifest.tsv` of these kinds whose `use` is one of `uses`.

    Raises:
        EarwitnessError: the manifest is missing or lacks a column, or a recording is missing.

    """
    manifest, wanted = source / "manifest.tsv", set(uses)
    try:
        with manifest.open(newline="") as file:
            recordings = [
                Recording(
                    source / row["path"],
                    row["class"],
                    row["group"],
                    row["use"],
                    row["licence"],
                    row["source_repo"],
                    row["note"] or "",
                    kind,
                )
                for row in csv.DictReader(file, delimiter="\t")
                for kind in kinds
                if row["kind"] == kind and row["use"] in wanted
            ]
    except OSError as error:
        raise EarwitnessError(f"{manifest}: can't be read: {error.strerror}") from None
    except KeyError as error:
        raise EarwitnessError(
            f"{manifest}: has no column {error}; it must be tab-separated with a header row"
        ) from None
    for recording in recordings:
        if not recording.path.is_file():
            raise EarwitnessError(f"{recording.path}: is in {manifest} but not on disk")
    return recordings


def split(
    recordings: Sequence[Recording],
    seed: int,
    validation_share: float,
    test_share: float,
    pinned: Mapping[str, str] | None = None,
) -> Split:
    """Assign whole groups to the parts, so that each label's groups have the given shares.

    A group that has several labels goes to one part. Labels with few groups are assigned first, so that
    a label with at least three groups has one in every part. Groups in `pinned` (group -> part) stay in
    their part, and the others are assigned to reach the shares.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for recording in recordings:
        groups[recording.label].add(recording.group)
    part_of: dict[str, str] = dict(pinned or {})
    for label in sorted(groups, key=lambda label: (len(groups[label]), label)):
        order = sorted(groups[label], key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())
        wanted = {
            "test": max(1, round(test_share * len(order))),
            "validation": max(1, round(validation_share * len(order))),
        }
        for group in order:
            if group in part_of:
                wanted[part_of[group]] = wanted.get(part_of[group], 0) - 1
        for group in (group for group in order if group not in part_of):
            part = next((part for part in ("test", "validation") if wanted[part] > 0 and len(order) > 2), "train")
            part_of[group] = part
            wanted[part] = wanted.get(part, 0) - 1
    parts: dict[str, list[Recording]] = {"train": [], "validation": [], "test": []}
    for recording in recordings:
        parts[part_of[recording.group]].append(recording)
    return Split(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]))


def read_samples(recording: Recording) -> Floats:
    """The recording's samples, (n,), mono at `RATE_HZ`.

    Raises:
        EarwitnessError: it can't be read or has another rate.

    """
    try:
        samples, rate_hz = soundfile.read(recording.path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise EarwitnessError(f"{recording.path}: can't be read: {error}") from None
    if rate_hz != RATE_HZ:
        raise EarwitnessError(f"{recording.path}: has {rate_hz} Hz; recordings must have {RATE_HZ} Hz")
    return np.asarray(samples.mean(axis=1), np.float32)


def level_db(samples: Floats) -> Floats:
    """RMS level of 20 ms frames every 10 ms, dB re full scale."""
    frame, step = int(_FRAME_S * RATE_HZ), int(_STEP_S * RATE_HZ)
    padded = np.pad(samples, (0, max(0, frame - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::step]
    return np.asarray(10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-10), np.float32)


def active_spans(samples: Floats, active_db: float, gap_s: float, shortest_s: float) -> list[tuple[int, int]]:
    """The active spans of the recording, as (start, stop) samples.

    A level frame (20 ms) is active while it is within `active_db` of the recording's loud frames and, if the
    recording has silence to compare with, 6 dB above the silence. Gaps shorter than `gap_s` are closed.
    """
    levels = level_db(samples)
    loud, quiet = np.percentile(levels, 95), np.percentile(levels, 8)
    threshold = loud - active_db
    if loud - quiet > active_db - 6:
        threshold = max(threshold, min(quiet + 6, loud - 12))
    active = levels > threshold
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    spans: list[tuple[int, int]] = []
    step = int(_STEP_S * RATE_HZ)
    for start, stop in edges.reshape(-1, 2) * step:
        if spans and start - spans[-1][1] < gap_s * RATE_HZ:
            spans[-1] = (spans[-1][0], int(stop))
        else:
            spans.append((int(start), int(stop)))
    ends = [(start, min(stop + step, len(samples))) for start, stop in spans]
    return [(start, stop) for start, stop in ends if stop - start >= shortest_s * RATE_HZ]


def is_steady(samples: Floats) -> bool:
    """Whether the level hardly varies, so that a loop of the sound still sounds natural."""
    levels = level_db(samples)
    return len(samples) >= RATE_HZ and float(np.percentile(levels, 90) - np.percentile(levels, 10)) < 9.0
