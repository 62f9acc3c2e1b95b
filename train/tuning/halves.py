"""Compares ways of tuning honestly: what is chosen on one half of the recordings is scored on the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from streamer.decoding import Decoding
from streamer.errors import EarwitnessError
from streamer.replay.scoring import KINDS, Kind, percent
from train.evaluation.bootstrap import macro_f1
from train.evaluation.groups import ClipGroups
from train.tuning.ledger import TAGS, TIMES, Ledger
from train.tuning.merit import Merit

FEWEST_CLIPS = 10
"""In a half; with fewer there is nothing to tune on."""

Tuner = Callable[[Merit], Decoding]


@dataclass(frozen=True, slots=True)
class Half:
    """Clips of which every sound is from one half of the recordings."""

    clips: NDArray[np.intp]  # their indices
    groups: Mapping[str, int]  # class -> groups of recordings in them


@dataclass(frozen=True, slots=True)
class Outcome:
    """The macro F1 of one way of tuning on the half that it did not see, in every trial."""

    name: str
    scores: Mapping[Kind, tuple[float, ...]]


def halve(rows: Sequence[Mapping[str, frozenset[str]]], classes: Sequence[str], seed: int) -> tuple[Half, Half]:
    """Deal the groups of recordings of each class into two halves; clips that mix them are left out.

    Backgrounds may be in both.

    Args:
        rows: for each clip: label -> groups of recordings, as `ClipGroups.rows`.
        classes: of the model.
        seed: of the deal.

    Raises:
        EarwitnessError: a half has too few clips.

    """
    rng = np.random.default_rng(seed)
    half_of: dict[str, int] = {}
    for label in ("", *classes):  # a clip of DCASE has no labels: its video is its group
        names = sorted({name for row in rows for name in row.get(label, ())} - set(half_of))
        for index, place in enumerate(rng.permutation(len(names)).tolist()):
            # In turns, but the last one goes to either half, so that an odd one is not always in the first.
            coin = int(rng.integers(2))
            half_of[names[place]] = (index + coin * (index == len(names) - 1)) % 2
    heard = [{half_of[name] for label, of in row.items() for name in of if name in half_of} for row in rows]
    made = []
    for half in (0, 1):
        clips = np.array([index for index, halves in enumerate(heard) if halves == {half}], np.intp)
        if len(clips) < FEWEST_CLIPS:
            raise EarwitnessError(
                f"only {len(clips)} clips have sounds of one half of the recordings alone, too few to compare on: make "
                "the corpus with more validation clips"
            )
        groups = {
            label: len({name for index in clips.tolist() for name in rows[index].get(label, rows[index].get("", ()))})
            for label in classes
        }
        made.append(Half(clips, groups))
    return made[0], made[1]


def compare(
    ledger: Ledger, clip_groups: ClipGroups, tuners: Mapping[str, Tuner], splits: int, seed: int = 0
) -> tuple[Outcome, ...]:
    """Tune on each half of `splits` random halvings, and score on the other.

    Raises:
        EarwitnessError: the recordings behind the clips are unknown, or a half has too few clips.

    """
    classes = ledger.material.classes
    if not clip_groups.known:
        raise EarwitnessError("the recordings behind these clips are not known, so they can't be halved by recording")
    found: dict[str, dict[Kind, list[float]]] = {name: {kind: [] for kind in KINDS} for name in tuners}
    for split in range(splits):
        halves = halve(clip_groups.rows, classes, seed + split)
        for one, other in (halves, halves[::-1]):
            for name, tuner in tuners.items():
                decoding = tuner(Merit(ledger, one.groups, one.clips))
                for kind, value in score(ledger, decoding, other.clips).items():
                    found[name][kind].append(value)
    return tuple(Outcome(name, {kind: tuple(of) for kind, of in its.items()}) for name, its in found.items())


def score(ledger: Ledger, decoding: Decoding, clips: NDArray[np.intp]) -> dict[Kind, float]:
    """The macro F1 of a decoding on some clips, the mean over the ways of using the model."""
    totals = []
    for kinds in (TAGS, TIMES):
        counts = ledger.counts(decoding.per_class, kinds)
        # Each class by its own decoding.
        its = np.stack([of[:, :, column] for column, of in enumerate(counts)], axis=2)
        totals.append(its[:, clips].sum(axis=1, dtype=np.float64))
    both = np.concatenate(totals, axis=2)  # (ways, classes, kinds, 3)
    macro = np.nan_to_num(macro_f1(np.moveaxis(both, 2, 1))).mean(axis=0)
    return dict(zip((*TAGS, *TIMES), macro.tolist(), strict=True))


def table(outcomes: Sequence[Outcome]) -> str:
    """Mean scores in percent over all trials, and each way's difference to the first.

    The difference is of the mean of segment and event F1, which tuning maximises, with its deviation over the trials.
    """
    lines = [
        f"{'':12}" + "".join(f"{kind + ' F1':>12}" for kind in KINDS) + "        mean     difference, sd, better in"
    ]
    base = _means(outcomes[0])
    for one in outcomes:
        means = _means(one)
        row = "".join(f"{percent(fmean(one.scores[kind])):>12}" for kind in KINDS) + f"{percent(fmean(means)):>14}"
        differences = [mine - theirs for mine, theirs in zip(means, base, strict=True)]
        spread = stdev(differences) if len(differences) > 1 else 0.0
        better = sum(value > 0 for value in differences)
        against = (
            ""
            if one is outcomes[0]
            else f"{100 * fmean(differences):>+12.2f} {100 * spread:>8.2f} {better:>4} of {len(differences)}"
        )
        lines.append(f"{one.name:12}{row}{against}".rstrip())
    return "\n".join(lines)


def _means(one: Outcome) -> list[float]:
    """The mean of segment and event F1 in every trial: what tuning maximises."""
    return [fmean(pair) for pair in zip(*(one.scores[kind] for kind in TIMES), strict=True)]
