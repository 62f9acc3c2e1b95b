"""The validated networks that a run keeps: those with the best scores, and the last ones.

```
OUT/best.pt                        what `export` takes by default: the best or the last, as `keep` says
OUT/last.pt                        of the last validation
OUT/checkpoints/step-0001250.pt    of the validations with the best scores, `keep_best` of them
```
Each has teacher, student, step and scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.errors import EarwitnessError
from train.checkpoint import BEST, reading, save

FOLDER, LAST = "checkpoints", "last.pt"


@dataclass(frozen=True, slots=True)
class Kept:
    """The best validations so far, best first. Equal ones: the earlier first."""

    rows: tuple[tuple[float, int], ...] = ()  # (merit, step)

    @classmethod
    def of(cls, raw: Sequence[Sequence[float]]) -> Kept:
        """As a checkpoint stores it."""
        return cls(tuple((float(merit), int(step)) for merit, step in raw))

    def plus(self, merit: float, step: int, most: int) -> Kept:
        """With one more validation, and at most `most`."""
        others = [row for row in self.rows if row[1] != step]
        return Kept(tuple(sorted([*others, (merit, step)], key=lambda row: (-row[0], row[1]))[:most]))

    def save(self, out: Path, state: Mapping[str, Any]) -> None:
        """Write the networks of the validation in `state`: as the last, and if they are among the best."""
        save(out / LAST, state)
        if state["step"] in (step for _, step in self.rows):
            (out / FOLDER).mkdir(exist_ok=True)
            save(path_of(out, state["step"]), state)

    def tidy(self, out: Path, step: int) -> None:
        """Remove networks that are not kept, or are of a later step: training makes those again.

        Only after a checkpoint is saved, or at once after it is loaded: until then, a killed run returns to the
        checkpoint before, which may keep what this one does not.
        """
        steps = {one for _, one in self.rows}
        for path in (out / FOLDER).glob("step-*.pt"):
            if path not in {path_of(out, one) for one in steps}:
                path.unlink()
        last = out / LAST
        if last.exists():
            with reading(last) as state:
                later = int(state["step"]) > step
            if later:
                last.unlink()


def path_of(out: Path, step: int) -> Path:
    """The file of a kept validation."""
    return out / FOLDER / f"step-{step:07}.pt"


def find(out: Path, which: str) -> Path:
    """The file that `which` names: best, last, a step, or a path.

    Raises:
        EarwitnessError: the run does not have it.

    """
    there = sorted(int(path.stem.removeprefix("step-")) for path in (out / FOLDER).glob("step-*.pt"))
    if which in ("best", "last"):
        found = out / (BEST if which == "best" else LAST)
    else:
        found = path_of(out, int(which)) if which.isdecimal() else Path(which)
    if not found.is_file():
        steps = f", or one of the steps {', '.join(map(str, there))}" if there else ""
        raise EarwitnessError(
            f"{found}: there is no such checkpoint: run `earwitness-train fit`, or name best, last, a file{steps}"
        )
    return found
