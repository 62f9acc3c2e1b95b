"""The files of DCASE 2018 task 4 and of DESED, which has the same clips and more, as they are published.

```
ROOT/metadata/train/weak.csv                 filename event_labels      the weakly labelled clips
ROOT/metadata/train/unlabel_in_domain.csv    filename                   the unlabelled clips
ROOT/metadata/test/test.csv                  filename onset offset event_label; in DESED validation/test_dcase2018.tsv
ROOT/metadata/eval/eval.csv                  the same; in DESED validation/eval_dcase2018.tsv
ROOT/metadata/validation/validation.tsv      DESED's: both of these
ROOT/metadata/eval/public.tsv                DESED's public evaluation set
```

Each may end in .csv or .tsv; all are separated by tabs. The clips may lie in any folder of ROOT, as videos or as audio
alone, with any media suffix; `Truth.name_of` is the rule that finds a row's clip.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import EarwitnessError
from streamer.replay.names import MEDIA_SUFFIXES
from streamer.replay.truth import Truth, read_truth
from train.data.config import CLASSES, GROUP_PARTS, GroupPart, Part
from train.data.summary import Summary


@dataclass(frozen=True, slots=True)
class Table:
    """One of the annotation files."""

    name: str  # in reports
    stems: tuple[str, ...]  # paths under `metadata`, without suffix
    part: Part | None  # of training that it is, as in the paper; None: for evaluation elsewhere
    labels: bool
    strong: bool
    clips: int  # as published


TABLES = (
    Table("weak", ("train/weak",), "weak", labels=True, strong=False, clips=1578),
    Table("unlabelled", ("train/unlabel_in_domain",), "unlabeled", labels=False, strong=False, clips=14_412),
    Table("test", ("test/test", "validation/test_dcase2018"), "validation", labels=True, strong=True, clips=288),
    Table("eval", ("eval/eval", "validation/eval_dcase2018"), "test", labels=True, strong=True, clips=880),
    Table("validation", ("validation/validation",), None, labels=True, strong=True, clips=1168),
    Table("public", ("eval/public",), None, labels=True, strong=True, clips=692),
)
"""The paper validates on DCASE's test set and tests on its evaluation set (paper section 4.1)."""
_NAME = re.compile(r"Y?(?P<video>.{11})_(?P<start>\d+(?:\.\d+)?)_(?P<end>\d+(?:\.\d+)?)\.wav", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ClipName:
    """What a clip's name says."""

    video: str  # YouTube's 11 characters, which may be `-` and `_` too
    start_s: float
    end_s: float


def clip_name(name: str) -> ClipName | None:
    """The parts of `Y<video>_<start>_<end>.wav`, with or without `Y`; None if it is not such a name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    start_s, end_s = float(match["start"]), float(match["end"])
    return ClipName(match["video"], start_s, end_s) if start_s < end_s else None


def is_root(folder: Path) -> bool:
    """Whether a folder holds at least one of the annotation files."""
    return any(path_of(folder, table) is not None for table in TABLES)


def path_of(root: Path, table: Table) -> Path | None:
    """The table's file; None if it is not there."""
    paths = (root / "metadata" / f"{stem}{suffix}" for stem in table.stems for suffix in (".tsv", ".csv"))
    return next((path for path in paths if path.is_file()), None)


def table_of(part: Part) -> Table | None:
    """The table of a part of training; None for strongly labelled training clips, which DCASE 2018 does not have."""
    return next((table for table in TABLES if table.part == part), None)


def files_in(root: Path) -> list[Path]:
    """All files under `root`, sorted, without the annotations and without hidden folders."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name for name in folders if not name.startswith(".") and (name != "metadata" or Path(folder) != root)
        ]
        found += [Path(folder) / name for name in names if not name.startswith(".")]
    return sorted(found)


def media_in(root: Path) -> list[Path]:
    """All media under `root`, whichever row they belong to."""
    return [path for path in files_in(root) if path.suffix.lower() in MEDIA_SUFFIXES]


def summary_of(root: Path) -> Summary:
    """The root as a corpus: its classes, and the videos of each part, which are its groups of recordings.

    Raises:
        TruthError: one of the annotation files can't be read; the error names the line.

    """
    groups: dict[str, dict[str, set[str]]] = {
        part: {label: set() for label in CLASSES} if part != "train" else defaultdict(set) for part in GROUP_PARTS
    }
    split: dict[GroupPart, set[str]] = {part: set() for part in GROUP_PARTS}
    hashes: dict[str, str] = {}
    for table in TABLES:
        path = path_of(root, table)
        if path is None or table.part is None:
            continue
        truth = read_truth(path, labels=table.labels)
        hashes[table.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        part: GroupPart = "validation" if table.part == "validation" else "test" if table.part == "test" else "train"
        for name, labels in truth.tags.items():
            video = video_of(name)
            split[part].add(video)
            for label in labels if table.labels else ("unlabelled/clips",):
                groups[part].setdefault(label, set()).add(video)
    return Summary(
        config={"classes": list(CLASSES), "dataset": "DCASE 2018 task 4", "annotations_sha256": hashes},
        groups={part: {label: sorted(of) for label, of in sorted(its.items())} for part, its in groups.items()},
        recordings={part: {label: len(of) for label, of in its.items()} for part, its in groups.items()},
        split={part: sorted(its) for part, its in split.items()},
    )


def video_of(name: str) -> str:
    """The video that a clip is from, as a group of recordings; the whole name if it is not a clip's."""
    found = clip_name(name)
    return f"youtube {found.video}" if found is not None else name


def clips_of(truths: Mapping[str, Truth], media: list[Path]) -> dict[Path, str]:
    """The media that a row of any of `truths` means, with the name in it. Raises `TruthError` if it is not clear."""
    found: dict[Path, str] = {}
    for truth in truths.values():
        rows = truth.names_of([str(path.absolute()) for path in media])
        found |= {path: rows[str(path.absolute())] for path in media if str(path.absolute()) in rows}
    return found


def media_of(root: Path) -> list[Path]:
    """The media of all clips that are annotated.

    Raises:
        EarwitnessError: there are none, or it is not clear which of two files is meant.
        TruthError: one of the annotation files can't be read.

    """
    truths = {
        table.name: read_truth(path, labels=table.labels)
        for table in TABLES
        if (path := path_of(root, table)) is not None
    }
    found = sorted(clips_of(truths, media_in(root)))
    if not found:
        raise EarwitnessError(
            f"{root}: holds no media of its annotated clips: put them in a folder there, under the names of the "
            f"annotations; `earwitness-train data check {root}` says what is missing"
        )
    return found
