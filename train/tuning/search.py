"""Which settings are tried: those of a grid, or those that Optuna's sampler proposes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from streamer.decoding import Decoding
from train.tuning.ledger import Ledger
from train.tuning.merit import Merit
from train.tuning.space import MEDIANS, OFFSET_SHARES, ONSET_THRESHOLDS, TAG_THRESHOLDS, Setting, grid

Method: TypeAlias = Literal["grid", "optuna"]
METHODS: tuple[Method, ...] = get_args(Method)
TRIALS = 300
"""Settings that Optuna tries, unless another number is given."""
Merits: TypeAlias = Callable[[Sequence[Setting]], NDArray[np.float64]]
"""The merits of settings, (settings, classes)."""


def tune(
    merit: Merit, method: Method = "grid", *, trials: int = TRIALS, seed: int = 0, longest_median: int = MEDIANS[1]
) -> Decoding:
    """Each class's setting with the highest merit among those that the method tries, and its tag threshold.

    Tag thresholds are one dimension of 17 points, of which every one is tried.

    Args:
        merit: of settings, on validation clips (never on test clips).
        method: grid, or optuna.
        trials: settings that Optuna tries for all classes together.
        seed: of Optuna's sampler; the same seed gives the same decoding, also after an interruption.
        longest_median: of the filters that are tried, in cells: a live event waits for half of it.

    """
    classes = len(merit.ledger.material.classes)
    tried = list(grid(longest_median)) if method == "grid" else propose(merit.of, classes, trials, seed, longest_median)
    best = merit.of(tried).argmax(axis=0)
    tags = merit.of_tags().argmax(axis=0)
    return decoding_of(merit.ledger, [tried[index] for index in best], [TAG_THRESHOLDS[index] for index in tags])


def decoding_of(ledger: Ledger, settings: Sequence[Setting], tag_thresholds: Sequence[float]) -> Decoding:
    """The decoding with one setting and one tag threshold for each class."""
    return Decoding(
        ledger.material.classes,
        tuple(one.decoding(tag) for one, tag in zip(settings, tag_thresholds, strict=True)),
    )


def propose(merits: Merits, classes: int, trials: int, seed: int, longest_median: int = MEDIANS[1]) -> list[Setting]:
    """The settings that Optuna's TPE sampler tries, in their order, without repetitions.

    Every class has a study. In each round every study proposes a setting; each of them is tried for all classes, and
    all studies learn from all of them. The sampler is seeded anew for every proposal, so a search that is repeated
    from its beginning proposes the same.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "median_cells": optuna.distributions.IntDistribution(MEDIANS[0], longest_median, step=2),
        "onset_threshold": optuna.distributions.FloatDistribution(*ONSET_THRESHOLDS, step=0.05),
        "offset_share": optuna.distributions.FloatDistribution(*OFFSET_SHARES, step=0.1),
    }
    studies = [optuna.create_study(direction="maximize") for _ in range(classes)]
    tried: dict[Setting, None] = {}
    for first in range(0, trials, classes):
        asked: list[tuple[optuna.trial.Trial, Setting]] = []
        for number, study in enumerate(studies[: trials - first]):
            study.sampler = optuna.samplers.TPESampler(seed=_seed(seed, first + number))
            trial = study.ask(space)
            asked.append((trial, _setting(trial.params)))
        settings = list(dict.fromkeys(setting for _, setting in asked))
        for setting, row in zip(settings, merits(settings), strict=True):
            for number, (study, value) in enumerate(zip(studies, row.tolist(), strict=True)):
                if number < len(asked) and asked[number][1] == setting:
                    study.tell(asked[number][0], value)
                else:
                    params = {name: getattr(setting, name) for name in space}
                    study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
        tried |= dict.fromkeys(settings)
    return list(tried)


def _setting(parameters: Mapping[str, float]) -> Setting:
    return Setting(
        int(parameters["median_cells"]), round(parameters["onset_threshold"], 2), round(parameters["offset_share"], 2)
    )


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
