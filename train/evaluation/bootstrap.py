"""Bootstrap intervals: how far a score would move if it were measured on other recordings.

Clips that share a recording are not independent, so recordings are resampled, not clips: groups of recordings are
drawn with replacement, as many as there are, and a group that is drawn k times weighs k. Where the counts of a clip
come from one group (a video of DCASE), this is the cluster bootstrap. A mixed clip has several: the groups of its
sounds and that of its background. Each of these is a factor, and a count weighs the product of its factors' weights
(Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007). For crossed factors no bootstrap is exact:
this one counts differences between recordings fully and chance within clips up to threefold, so its intervals may be
too wide, not too narrow. Groups that share a factor share its weight in equal parts.

The same `Groups`, number of draws and seed give the same draws. Two results over the same clips are therefore paired,
draw by draw: the interval of a difference is that of the differences of their draws (`difference`).

    groups = Groups.by_name([["kitchen 1"], ["kitchen 1"], ["kitchen 2"]])      # a group for each clip
    one = f1_draws(counts_one, groups)                                          # counts: (clips, classes, 3)
    other = f1_draws(counts_other, groups)
    print(one.micro, difference(other.micro, one.micro))
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 2000
"""Enough for the ends of a 95 % interval to move by less than a tenth of its width from seed to seed."""
LEVEL = 0.95
FEWEST_GROUPS = 2
"""With one group, every draw is the same recording again: there is no interval."""
_BATCH = 100
_NONE = -1

Array: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Array], Array]
"""Takes the weights of the counted units, (draws, *units), and returns the figures, (draws, *figures)."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Which groups of recordings made each unit: a clip, a class in a clip, or an event.

    Each factor holds group numbers, (*units, n), where -1 fills the rows of units with fewer than n groups; a unit
    without any does not depend on the factor. All factors have the same units. The first is of what sounds.
    """

    names: tuple[str, ...]
    factors: tuple[NDArray[np.intp], ...]

    @classmethod
    def by_name(cls, *factors: Sequence[Collection[str]]) -> Groups:
        """The groups of clips, from one list of each clip's group names for each factor."""
        names = tuple(sorted({name for factor in factors for of in factor for name in of}))
        number = {name: index for index, name in enumerate(names)}
        return cls(names, tuple(padded([[number[name] for name in of] for of in factor]) for factor in factors))

    @classmethod
    def each_its_own(cls, clips: int) -> Groups:
        """One group a clip: where nothing is known of their recordings."""
        return cls(tuple(map(str, range(clips))), (np.arange(clips, dtype=np.intp)[:, None],))

    def take(self, *units: ArrayLike) -> Groups:
        """The groups of some units, by their indices: (clips,), or (clips,) and (classes,) of the same length."""
        index = tuple(np.asarray(one, np.intp) for one in units)
        return Groups(self.names, tuple(factor[index] for factor in self.factors))

    def count(self, used: ArrayLike) -> int:
        """The number of groups that sound in the units where `used` (*units) is true."""
        sounding = self.factors[0][np.asarray(used, bool)]
        return len(np.unique(sounding[sounding != _NONE]))

    def count_of(self, clips: ArrayLike, column: int) -> int:
        """The number of groups in which a class sounds, where `clips` (clips,) says which clips have it."""
        there = np.asarray(clips, bool)
        used = np.zeros(self.factors[0].shape[:-1], bool)
        if used.ndim == 1:
            used |= there
        else:
            used[:, column] = there
        return self.count(used)

    def weights(self, drawn: Array) -> Array:
        """The weights of the units, (draws, *units), for those of the groups, (draws, groups)."""
        weights: Array = np.ones((len(drawn), *self.factors[0].shape[:-1]))
        for factor in self.factors if self.names else ():
            there = factor != _NONE
            shared = np.where(there, drawn[:, factor], 0.0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
            weights *= np.where(there.any(axis=-1), shared, 1.0)
        return weights


def padded(rows: Sequence[Sequence[int]]) -> NDArray[np.intp]:
    """Rows of group numbers as one array, (rows, n), filled with -1."""
    out = np.full((len(rows), max([1, *map(len, rows)])), _NONE, np.intp)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the interval of its draws; without an interval, `low` and `high` are NaN."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def apart(self) -> bool:
        """Whether a difference is one: its interval does not hold zero."""
        return self.known and not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure (or an array of figures) as measured, and in each draw."""

    value: Array  # (*figures)
    draws: Array  # (draws, *figures); NaN: the draw has nothing to measure

    def __getitem__(self, index: int) -> Drawn:
        """One of several figures."""
        return Drawn(np.asarray(self.value[index]), self.draws[:, index])

    def without_interval(self) -> Drawn:
        """The figure alone: its draws say nothing of other recordings."""
        return Drawn(self.value, np.full_like(self.draws, np.nan))

    @property
    def interval(self) -> Interval:
        """The percentile interval of a single figure at `LEVEL`.

        It is NaN if more than half of the draws have nothing to measure.
        """
        return _interval(float(self.value), self.draws)


def drawn(statistic: Statistic, groups: Groups, *, draws: int = DRAWS, seed: int = 0) -> Drawn:
    """A statistic of weighted units, with all weights 1 and in each draw of the groups.

    Args:
        statistic: takes weights (n, *units) and returns (n, *figures).
        groups: of the units.
        draws: number of draws.
        seed: of the draws; results that are to be compared need the same one.

    """
    count = len(groups.names)
    value = statistic(groups.weights(np.ones((1, count))))[0]
    rng = np.random.default_rng(seed)
    found = [np.empty((0, *np.shape(value)))]
    for first in range(0, draws, _BATCH):
        size = min(_BATCH, draws - first)
        taken = rng.multinomial(count, np.full(count, 1 / count), size=size) if count else np.ones((size, 0))
        found.append(statistic(groups.weights(taken.astype(np.float64))))
    return Drawn(np.asarray(value), np.concatenate(found))


def difference(one: Drawn, other: Drawn) -> Interval:
    """`one` minus `other`, single figures over the same units and draws, with the paired interval.

    Raises:
        ValueError: they do not have the same number of draws.

    """
    if one.draws.shape != other.draws.shape:
        raise ValueError(f"draws of {one.draws.shape} and {other.draws.shape} can't be paired")
    return _interval(float(one.value - other.value), one.draws - other.draws)


@dataclass(frozen=True, slots=True)
class F1Draws:
    """F1 scores, 0 to 1, in each draw."""

    micro: Drawn
    macro: Drawn
    classes: tuple[Drawn, ...]


def f1_draws(counts: ArrayLike, groups: Groups, *, draws: int = DRAWS, seed: int = 0) -> F1Draws:
    """Micro, macro and class-wise F1 of counts, as `streamer.replay.scoring.Report` defines them.

    Args:
        counts: (clips, classes, 3): how many are true, how many were found, and how many are both.
        groups: of the clips, or of each class in each clip.
        draws: number of draws.
        seed: of the draws.

    """
    tally = np.asarray(counts, np.float64)

    def figures(weights: Array) -> Array:
        if weights.ndim == 2:  # one weight a clip
            totals = np.einsum("dn,nck->dck", weights, tally, optimize=True)
        else:
            totals = np.einsum("dnc,nck->dck", weights, tally, optimize=True)
        return np.column_stack([f1(totals.sum(axis=-2)), macro_f1(totals), f1(totals)])

    all_figures = drawn(figures, groups, draws=draws, seed=seed)
    lone = [groups.count_of(tally[:, column, 0] > 0, column) < FEWEST_GROUPS for column in range(tally.shape[1])]
    return F1Draws(
        all_figures[0],
        all_figures[1],
        tuple(
            all_figures[2 + column].without_interval() if lone[column] else all_figures[2 + column]
            for column in range(tally.shape[1])
        ),
    )


def f1(totals: Array) -> Array:
    """F1 (...) of counts (..., 3) of true, found and right; NaN where nothing is true and nothing was found."""
    both = totals[..., 0] + totals[..., 1]
    out: Array = np.full(both.shape, np.nan)
    np.divide(2 * totals[..., 2], both, out=out, where=both > 0)
    return out


def macro_f1(totals: Array) -> Array:
    """The mean F1 (...) of the classes in the truth, by counts (..., classes, 3); NaN where there are none."""
    there = totals[..., 0] > 0
    summed = np.where(there, np.nan_to_num(f1(totals)), 0).sum(axis=-1)
    out: Array = summed / np.where(there.any(axis=-1), there.sum(axis=-1), np.nan)
    return out


def _interval(value: float, draws: Array) -> Interval:
    measured = draws[np.isfinite(draws)]
    if len(measured) <= len(draws) / 2:
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(measured, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
