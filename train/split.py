"""The part (train, validation or test) of each group of recordings. It stays fixed, so that no model is evaluated on
recordings that it was trained on.

Without pinning, a split with the same seed moves groups: five more groups per class moved 2.6 known ones on average.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from train.data.config import GROUP_PARTS, GroupPart
from train.data.summary import FILE, Summary, read_summary

_log = logging.getLogger(__name__)
_DEALT_BY = ("seed", "uses", "validation_share", "test_share")
"""The configuration fields that decide how groups are assigned. For models of versions that did not record groups,
only these can be compared."""


@dataclass(frozen=True, slots=True)
class Pin:
    """The part of every group in a corpus, or in all of a model's corpora."""

    parts: Mapping[str, GroupPart]  # by group

    @classmethod
    def of_json(cls, parts: Mapping[str, Iterable[str]]) -> Pin:
        """The pin of a mapping from part to groups."""
        return cls({group: part for part in GROUP_PARTS for group in parts.get(part, ())})

    def json(self) -> dict[str, list[str]]:
        """Part -> groups, sorted."""
        return {part: sorted(group for group, its in self.parts.items() if its == part) for part in GROUP_PARTS}

    def moved(self, other: Pin) -> list[str]:
        """The groups that are in another part in `other`."""
        return sorted(group for group, part in other.parts.items() if self.parts.get(group, part) != part)

    def only(self, parts: Collection[GroupPart]) -> Pin:
        """The groups of these parts."""
        return Pin({group: part for group, part in self.parts.items() if part in parts})

    def joined(self, other: Pin) -> Pin:
        """The groups of both; where they differ, `other`'s part."""
        return Pin({**self.parts, **other.parts})


@dataclass(frozen=True, slots=True)
class Known:
    """What a run or a model records of the corpora that it was trained on."""

    name: str
    pin: Pin | None  # None: written by a version that did not record groups
    configs: tuple[Mapping[str, Any], ...]  # of its corpora, oldest first
    counts: Mapping[str, Mapping[str, int]] | None = None  # of its last corpus: part -> class -> groups


def joined(known: Iterable[Known]) -> Pin:
    """The groups of all of them that are recorded."""
    pin = Pin({})
    for one in known:
        pin = pin if one.pin is None else pin.joined(one.pin)
    return pin


def pin_of(summary: Summary) -> Pin:
    """A corpus's split. For a version that did not record it, it is taken from the groups of the parts."""
    if summary.split is not None:
        return Pin.of_json(summary.split)
    return Pin.of_json(
        {part: [name for of in groups.values() for name in of] for part, groups in summary.groups.items()}
    )


def check_split(known: Known, corpus: Summary, read: Collection[GroupPart] = GROUP_PARTS) -> bool:
    """Check that a model was not trained on recordings that a corpus holds out; False if that can't be verified.

    Args:
        known: the model.
        corpus: the corpus.
        read: the parts of the corpus that will be read: what moved between the others does not matter.

    Raises:
        EarwitnessError: a group changed parts; validation recordings were trained on and `corpus` holds them out; or
            groups are not recorded, and the corpus was split in another way or has other recordings.

    """
    knows_validation = any(one.get("train_on_validation", False) for one in known.configs)
    if "validation" in read and knows_validation and not corpus.trains_on_validation:
        raise EarwitnessError(
            f"{known.name} was trained on a corpus with another train_on_validation, so it knows the recordings that "
            "this corpus keeps for validation: make the corpus with the same setting, or start without this model"
        )
    if known.pin is not None:
        _check_pins(known.name, known.pin, pin_of(corpus).only(read))
        return True
    if not known.configs:
        _log.warning("%s does not record what it was trained on: it may know this corpus's recordings", known.name)
        return False
    other = sorted(
        {field for one in known.configs for field in _DEALT_BY if one.get(field) != corpus.config.get(field)}
    )
    if other:
        raise EarwitnessError(
            f"{known.name} was trained on a corpus with another {', '.join(other)}, so it may know the recordings that "
            "this corpus keeps for validation and test: make the corpus with the same settings, or start without this "
            "model"
        )
    changed = _counts_changed(known.counts, corpus) if known.counts is not None else None
    if changed and corpus.split_from is None:
        raise EarwitnessError(
            f"{known.name} was trained on other recordings ({changed}) and does not record which, so it may know those "
            "that this corpus keeps for validation and test: make the corpus that it was trained on again, and keep "
            "its split with `earwitness-train corpus --split CORPUS`, or start without this model"
        )
    _log.warning(
        "%s does not record which groups of recordings it was trained on (%s), so moved groups can't be detected",
        known.name,
        "only seed and shares could be compared; they are the same"
        if changed or known.counts is None
        else "seed, shares and the number of groups are the same",
    )
    return False


def _check_pins(name: str, pin: Pin, corpus: Pin) -> None:
    moved = pin.moved(corpus)
    if moved:
        first = moved[0]
        raise EarwitnessError(
            f"{name} and this corpus have {len(moved)} groups of recordings in different parts ({first!r}: "
            f"{pin.parts[first]} there, {corpus.parts[first]} here): make the corpus with --split CORPUS, naming the "
            "corpus that the model was trained on, or start without this model"
        )


def _counts_changed(counts: Mapping[str, Mapping[str, int]], corpus: Summary) -> str | None:
    for part, labels in counts.items():
        for label, count in labels.items():
            here = len(corpus.groups.get(part, {}).get(label, ()))
            if here != count:
                return f"{count} groups of {label} for {part}, here {here}"
    return None


def read_pin(folder: Path) -> Pin:
    """The split of a corpus or of a bundle, to be kept in another corpus.

    Raises:
        EarwitnessError: the folder holds neither, or does not record its groups.

    """
    if (folder / FILE).exists():
        return pin_of(read_summary(folder))
    bundle = Bundle.load(folder)
    split = bundle.provenance.split
    if split is None:
        raise EarwitnessError(
            f"bundle {folder}: records only how many groups of recordings were in each part, not which: use the "
            "corpus that it was trained on"
        )
    return Pin.of_json(split)
