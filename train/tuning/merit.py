"""The merit of a setting for each class: what tuning maximises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.decoding import ClassDecoding
from train.data.config import GroupPart
from train.data.summary import Summary
from train.evaluation.bootstrap import f1
from train.tuning.ledger import TAGS, TIMES, Ledger
from train.tuning.space import TAG_THRESHOLDS, Setting

GROUPS_OF_ITS_OWN = 50
"""With more groups of recordings than this, a class's own merit outweighs the mean over all classes."""


def groups_in(summary: Summary, part: GroupPart) -> dict[str, int]:
    """Class -> the number of groups of recordings in a part of a corpus."""
    return {label: len(names) for label, names in summary.groups[part].items()}


@dataclass(frozen=True, slots=True)
class Merit:
    """The merit of settings on some clips.

    For events it is the mean of event and segment F1 over the ways of using the model, smoothed over neighbouring
    thresholds so that no lucky point wins; for tags it is the clip F1.

    Thresholds that suit a few recordings need not suit the class: with n groups, a setting's merit is n / (n + 50) the
    class's own and for the rest the mean over all classes. A class with few groups thus gets the thresholds that suit
    all classes; a class with hundreds gets its own. (Tuned on either half of 1,000 clips with 1 to 8 groups per class
    and scored on the other, shared thresholds had 1 to 2.4 points more segment F1 than each class's own, and the same
    event F1.)
    """

    ledger: Ledger
    groups: Mapping[str, int]  # class -> groups of recordings in the clips
    clips: NDArray[np.intp] | None = None  # indices of the clips; None: all

    def of(self, settings: Sequence[Setting]) -> NDArray[np.float64]:
        """The merits of settings for each class, (settings, classes), 0 to 1."""
        near = [setting.smoothed_with() for setting in settings]
        needed = list(dict.fromkeys(one for row in near for one, _ in row))
        own = dict(zip(needed, self._own(needed), strict=True))
        merits = np.array([sum((weight * own[one] for one, weight in row), np.zeros(1)) for row in near])
        return self._shared(merits)

    def of_tags(self) -> NDArray[np.float64]:
        """The merits of `TAG_THRESHOLDS`, (thresholds, classes), each smoothed with its two neighbours."""
        decodings = [ClassDecoding(0.5, 0.5, 1, threshold) for threshold in TAG_THRESHOLDS]
        own = np.array([self._f1(counts) for counts in self.ledger.counts(decodings, TAGS)])
        padded = np.pad(self._shared(own), ((1, 1), (0, 0)), mode="edge")
        return np.asarray((padded[:-2] + padded[1:-1] + padded[2:]) / 3)

    def _own(self, settings: Sequence[Setting]) -> NDArray[np.float64]:
        counts = self.ledger.counts([setting.decoding() for setting in settings], TIMES)
        return np.array([self._f1(one) for one in counts])

    def _f1(self, counts: NDArray[np.int16]) -> NDArray[np.float64]:
        """The mean F1 of each class over ways and kinds; what is neither there nor found counts as 0."""
        chosen = counts if self.clips is None else counts[:, self.clips]
        totals = chosen.sum(axis=1, dtype=np.float64)  # (ways, classes, kinds, 3)
        return np.asarray(np.nan_to_num(f1(totals)).mean(axis=(0, 2)))

    def _shared(self, own: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., classes): the class's own merit and the mean over all, weighted by its number of groups."""
        counts = np.array([self.groups[label] for label in self.ledger.material.classes], np.float64)
        weight = counts / (counts + GROUPS_OF_ITS_OWN)
        return np.asarray(weight * own + (1 - weight) * own.mean(axis=-1, keepdims=True))
