"""Ways of tuning are compared on recordings that they did not see."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.decoding import Decoding
from streamer.errors import EarwitnessError
from tests.train.tuning.test_search import CLASSES, clips
from train.evaluation.bootstrap import Groups
from train.evaluation.groups import ClipGroups
from train.tuning import halves, search
from train.tuning.ledger import Ledger, Material
from train.tuning.merit import Merit
from train.tuning.space import Setting


def rows(clips: int) -> tuple[dict[str, frozenset[str]], ...]:
    """Four recordings of cats and four of dogs; some clips have one sound, others two."""
    made: list[dict[str, frozenset[str]]] = []
    for number in range(clips):
        row = {"Cat": frozenset({f"cat {number % 4}"}), "background": frozenset({"hum"})}
        if number % 3 == 0:
            row["Dog"] = frozenset({f"dog {number % 5 % 4}"})
        made.append(row)
    return tuple(made)


@pytest.mark.parametrize("seed", range(5))
def test_no_recording_is_in_both_halves(seed: int) -> None:
    of = rows(80)
    one, other = halves.halve(of, CLASSES, seed)
    heard = [
        {name for index in half.clips for label in CLASSES for name in of[index].get(label, ())}
        for half in (one, other)
    ]
    assert not heard[0] & heard[1]
    assert all(heard)
    for half, names in zip((one, other), heard, strict=True):
        assert half.groups == {
            label: len({name for name in names if name.startswith(label.lower())}) for label in CLASSES
        }
    assert halves.halve(of, CLASSES, seed)[0].clips.tolist() == one.clips.tolist()


def test_too_few_clips_and_unknown_recordings_are_said() -> None:
    with pytest.raises(EarwitnessError, match="have sounds of one half of the recordings alone, too few"):
        halves.halve(rows(9), CLASSES, 0)
    made, truth = clips({"Cat": 0.9, "Dog": 0.3}, noise=0.5)
    unknown = ClipGroups(Groups.each_its_own(len(made)), "clip", ())
    with (
        Ledger(Material((tuple(made),), truth, CLASSES), 1) as ledger,
        pytest.raises(EarwitnessError, match="recordings behind these clips are not known"),
    ):
        halves.compare(ledger, unknown, {}, 1)


def test_the_way_that_fits_the_posteriors_wins_on_the_other_half() -> None:
    made, truth = clips({"Cat": 0.9, "Dog": 0.3}, noise=0.5, count=60)
    of = tuple({"Cat": frozenset({f"cat {n % 6}"}), "Dog": frozenset({f"dog {n % 6}"})} for n in range(len(made)))
    groups = ClipGroups(Groups.each_its_own(len(made)), "group", of)
    fixed = Setting(7, 0.5, 1.0).decoding()  # never finds a dog
    tuners: dict[str, halves.Tuner] = {
        "untuned": lambda merit: Decoding(CLASSES, (fixed, fixed)),
        "grid": lambda merit: search.tune(Merit(merit.ledger, dict.fromkeys(CLASSES, 5000), merit.clips)),
    }
    with Ledger(Material((tuple(made),), truth, CLASSES), 1) as ledger:
        untuned, grid = halves.compare(ledger, groups, tuners, splits=2)
        everything = np.arange(len(made))
        assert halves.score(ledger, Decoding(CLASSES, (fixed, fixed)), everything)["event"] == pytest.approx(0.5)
    assert len(untuned.scores["event"]) == 4  # two halvings, both ways round
    assert max(untuned.scores["event"]) <= 0.5
    assert min(grid.scores["event"]) > 0.9
    lines = halves.table([untuned, grid]).splitlines()
    assert lines[2].startswith("grid ")
    assert lines[2].endswith("4 of 4")
