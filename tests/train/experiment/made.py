"""Small experiments: an audiovisual dataset of seconds, and results that were never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from streamer.features import EXTRACTORS
from streamer.replay.scoring import KINDS, ClipCounts
from tests.models import Energy, Grey
from tests.train.test_data_check import UNLABELLED, WEAK, make_root, put
from train.evaluation.bootstrap import Groups
from train.evaluation.groups import ClipGroups
from train.experiment import plan, result
from train.experiment.plan import Plan
from train.experiment.result import Result

CONFIGS = Path(__file__).parents[3] / "configs" / "train"
ROWS = ("S", "V", "A", "S+V", "S+A", "A+V", "S+A+V")
TINY: dict[str, Any] = {
    "title": "Tiny",
    "base": str(CONFIGS / "paper.yaml"),
    "inputs": {"S": ["spectral"], "A": ["vggish"], "V": ["vgg16"]},
    "rows": {"S": {}, "A": {}, "S+A": {}},
    "baseline": "S",
    "paper": True,
    "seeds": 2,
    "keep": 1,
    "fit": {
        "steps": 3,
        "ramp_steps": 2,
        "batch": {"weak": 2, "unlabeled": 1},
        "features": {},
        "validate_every": 3,
        "checkpoint_every": 1,
    },
}


def write_file(path: Path, **fields: object) -> Path:
    path.write_text(yaml.safe_dump({**TINY, **fields}, sort_keys=False))
    return path


def make_videos(root: Path) -> Path:
    """DCASE's files, all with pictures."""
    make_root(root)
    for name in (*WEAK, *UNLABELLED):
        for old in root.rglob(name.removesuffix(".wav") + ".*"):
            old.unlink()
        put(root / "video" / "mine", name, ".mkv")
    return root


def cheap(patch: pytest.MonkeyPatch) -> None:
    """Pretrained modalities that cost nothing; processes that are forked have them too."""
    patch.setitem(EXTRACTORS, "vggish", lambda spec, weights: Energy())
    patch.setitem(EXTRACTORS, "vgg16", lambda spec, weights: Grey())


def counts(found: NDArray[np.int64]) -> ClipCounts:
    """Counts of four clips and two classes: (4, 2, kinds, 3)."""
    names = tuple(f"{number}.wav" for number in range(len(found)))
    return ClipCounts(names, ("Cat", "Dog"), (10.0,) * len(found), found, True, len(found), "same")


def random_counts(seed: int, clips: int = 12) -> ClipCounts:
    rng = np.random.default_rng(seed)
    true, found = rng.integers(1, 5, (2, clips, 2, len(KINDS)))
    right = np.minimum(true, found) - rng.integers(0, 2, true.shape) * (np.minimum(true, found) > 0)
    return counts(np.stack([true, found, right], axis=-1))


def groups(clips: int = 12) -> ClipGroups:
    """Two clips a group."""
    names = [frozenset({f"group {number // 2}"}) for number in range(clips)]
    return ClipGroups(Groups.by_name(names), "group of recordings", tuple({"": of} for of in names))


def finish(
    made: Plan, row: str, seed: int, validation: ClipCounts, test: ClipCounts, *, step_s: float | None = 0.5
) -> None:
    """Write the result of a run that was never trained."""
    run = next(run for run in made.runs if (run.row, run.seed) == (row, seed))
    run.folder.mkdir(parents=True)
    done = Result(
        row=row,
        seed=seed,
        settings=run.settings.model_dump(mode="json"),
        scoring=made.config.scoring.model_dump(mode="json"),
        step=3,
        step_s=step_s,
        seconds=10.0,
        machine="here",
        decoding={},
        scores={"validation/clip": validation.report().json(), "test/clip": test.report().json()},
    )
    its = {"validation": groups(len(validation.names)), "test": groups(len(test.names))}
    result.write(run.folder, done, {"validation/clip": validation, "test/clip": test}, its)


def read(path: Path, out: Path) -> Plan:
    return plan.read(path, Path("corpus"), Path("features"), out)
