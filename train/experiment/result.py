"""What a finished run leaves in its folder: `result.json`, and the counts of every clip behind its scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from streamer.errors import EarwitnessError
from streamer.replay import counts
from streamer.replay.scoring import ClipCounts
from train.config import FitConfig
from train.evaluation import groups
from train.evaluation.groups import ClipGroups
from train.files import replace

FILE = "result.json"
IMMATERIAL = (
    *("threads", "validate_every", "checkpoint_every", "product_every", "keep_best"),
    *("device", "channels_last", "compile"),
)
"""Fields of `FitConfig` that may differ between equal runs, except `validate_every` with `keep: best`."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`result.json`: how a run was trained and scored. The keys of scores are a part and a mode, as `test/clip`."""

    row: str
    seed: int
    settings: dict[str, Any]  # of `FitConfig`
    scoring: dict[str, Any]  # of `ScoringConfig`
    step: int  # of the network that was scored
    step_s: float | None  # median seconds of a training step; None: the run was complete when it was last started
    seconds: float  # of training and scoring, over all starts
    machine: str
    decoding: dict[str, dict[str, float]]  # class -> thresholds and median filter
    scores: dict[str, dict[str, Any]]  # part and mode -> `Report.json`


def write(
    folder: Path, result: Result, counted: Mapping[str, ClipCounts], clip_groups: Mapping[str, ClipGroups]
) -> None:
    """Write all files atomically, and `result.json` last: a run that has it is finished.

    Args:
        folder: of the run.
        result: its scores.
        counted: the counts behind each of the scores.
        clip_groups: the groups of recordings of each part's clips, in the order of the counts.

    """
    for key, one in counted.items():
        replace(folder / f"{_file(key)}.counts.tsv", counts.counts_tsv(one).encode())
        its = clip_groups[key.partition("/")[0]]
        if its.known and not groups.of_names(one.names).known:  # videos are known by their names
            replace(folder / f"{_file(key)}.groups.tsv", its.tsv(one.names).encode())
    replace(folder / FILE, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read(folder: Path) -> Result | None:
    """The result in a run's folder; None if the run is not finished.

    Raises:
        EarwitnessError: it is damaged.

    """
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Result)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise EarwitnessError(
            f"{folder / FILE}: is damaged ({error}): delete it, and the run is scored again"
        ) from None


def read_counts(folder: Path, key: str) -> ClipCounts:
    """The counts behind the scores `key`.

    Raises:
        TruthError: they are missing or damaged.

    """
    return counts.read_counts(folder / f"{_file(key)}.counts.tsv")


def read_groups(folder: Path, key: str, counted: ClipCounts) -> ClipGroups:
    """The groups of recordings of the clips in `counted`, which are those of the scores `key`.

    Raises:
        TruthError: they are damaged.

    """
    path = folder / f"{_file(key)}.groups.tsv"
    return groups.of_table(path, counted.names, counted.classes) if path.exists() else groups.of_names(counted.names)


def changed(before: Mapping[str, Any], settings: FitConfig) -> str | None:
    """The first field in which the settings of a run differ from `settings`, in words; None if the runs are the same.

    A field that an older version did not have has its default.
    """
    now, default = settings.model_dump(mode="json"), FitConfig().model_dump(mode="json")
    for name, value in now.items():
        was = before.get(name, default[name])
        skipped = name in IMMATERIAL and not (name == "validate_every" and settings.keep == "best")
        if was != value and not skipped:
            return f"{name} is {_shown(was)} there and {_shown(value)} here"
    return None


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _file(key: str) -> str:
    return key.replace("/", "-")
