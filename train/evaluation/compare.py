"""`earwitness-train compare`: whether one report is better than another over the same clips, by a paired bootstrap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from streamer.errors import EarwitnessError
from streamer.replay.counts import read_counts
from streamer.replay.report import COUNTS as REPLAYED
from streamer.replay.report import SUMMARY
from streamer.replay.scoring import KINDS, ClipCounts, Kind
from train.evaluation.bootstrap import Drawn, Interval, difference, f1_draws
from train.evaluation.groups import ClipGroups, of_names, of_table
from train.report.files import COUNTS, GROUPS

MICRO, MACRO = "micro", "macro"


@dataclass(frozen=True, slots=True)
class Difference:
    """A score of two reports."""

    kind: Kind
    label: str  # a class, or `MICRO` or `MACRO`
    first: Interval
    second: Interval
    change: Interval  # second minus first, paired
    n: int  # true clips, segments or events
    groups: int  # of recordings in which the class sounds


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two reports over the same clips."""

    modes: tuple[str, str]  # of the first and of the second
    clips: int
    left_out: int  # clips that only one of them has
    groups: ClipGroups
    rows: tuple[Difference, ...]

    def text(self) -> str:
        """A table in percent, with a row for each score."""
        first, second = self.modes
        what = f"{first} mode" if first == second else f"A in {first} mode, B in {second} mode"
        title = f"{what}: {self.clips} clips, resampling {self.groups.number(len(self.groups.groups.names))}"
        if not self.groups.known:
            title += ": nothing is known of their recordings (--groups TSV), so intervals may be too narrow"
        if self.left_out:
            title += f"; {self.left_out} clips are only in one of the reports and are left out"
        table = [["score", "A", "B", "B - A", "95 % interval", "", "n", "groups"]]
        for row in self.rows:
            ends = f"[{_signed(row.change.low)}, {_signed(row.change.high)}]" if row.change.known else ""
            table.append(
                [
                    f"{row.kind} F1 {row.label}",
                    _percent(row.first.value),
                    _percent(row.second.value),
                    _signed(row.change.value),
                    ends,
                    "*" if row.change.apart else "",
                    str(row.n),
                    str(row.groups),
                ]
            )
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]
        return "\n".join(
            [title, *(line.rstrip() for line in lines), "*: the interval of the difference is without zero"]
        )


def compare(first: Path, second: Path, groups: Path | None, *, draws: int) -> list[Comparison]:
    """Compare two reports in each mode that both have, or, if they have one each, these.

    Args:
        first: folder of `earwitness-train evaluate --report` or of `earwitness replay --truth --report`.
        second: likewise.
        groups: a table of the groups of recordings behind the clips; None: that of a report, or by their names.
        draws: of the bootstrap.

    Raises:
        EarwitnessError: a folder holds no scores, or the two share no mode, clip or class, or have other truths.
        TruthError: a table can't be read.

    """
    one, other = _read(first), _read(second)
    modes = [(mode, mode) for mode in one if mode in other]
    if not modes and len(one) == len(other) == 1:
        modes = [(next(iter(one)), next(iter(other)))]
    if not modes:
        raise EarwitnessError(
            f"{first} has scores in mode {', '.join(one)}, {second} in mode {', '.join(other)}: make a report in the "
            "same mode"
        )
    if groups is None:
        groups = next((path for path in (first / GROUPS, second / GROUPS) if path.exists()), None)
    return [
        _compared(one[mode_one], other[mode_other], (mode_one, mode_other), (first, second), groups, draws)
        for mode_one, mode_other in modes
    ]


def _read(folder: Path) -> dict[str, ClipCounts]:
    """The counts in a report, by mode."""
    found = {mode: read_counts(folder / name) for mode, name in COUNTS.items() if (folder / name).exists()}
    if (folder / REPLAYED).exists():
        found[_mode(folder)] = read_counts(folder / REPLAYED)
    if not found:
        raise EarwitnessError(
            f"{folder}: holds no counts: make a report with `earwitness-train evaluate --report FOLDER` or "
            "`earwitness replay --truth TSV --report FOLDER` of this version"
        )
    return found


def _mode(folder: Path) -> str:
    class Summary(msgspec.Struct):
        mode: str

    try:
        return msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary).mode
    except (OSError, msgspec.MsgspecError) as error:
        raise EarwitnessError(f"{folder}: does not contain a report of `earwitness replay --report`: {error}") from None


def _compared(
    one: ClipCounts,
    other: ClipCounts,
    modes: tuple[str, str],
    folders: tuple[Path, Path],
    groups: Path | None,
    draws: int,
) -> Comparison:
    names = [name for name in one.names if name in set(other.names)]
    classes = [label for label in one.classes if label in other.classes]
    if not names or not classes:
        raise EarwitnessError(f"{folders[0]} and {folders[1]} have no {'clips' if not names else 'classes'} in common")
    strong = one.strong and other.strong
    kinds = KINDS if strong else KINDS[:1]
    first, second = (_taken(counts, names, classes) for counts in (one, other))
    for kind in kinds:
        unlike = np.flatnonzero((first.of(kind)[:, :, 0] != second.of(kind)[:, :, 0]).any(axis=1))
        if len(unlike):
            raise EarwitnessError(
                f"{folders[0]} and {folders[1]} were scored against different truths: {names[unlike[0]]} does not have "
                f"the same {kind}s in both"
            )
    behind = of_names(names) if groups is None else of_table(groups, names, classes)
    rows = [row for kind in kinds for row in _rows(kind, first, second, behind, draws)]
    left_out = len(set(one.names) ^ set(other.names))
    return Comparison(modes, len(names), left_out, behind, tuple(rows))


def _taken(counts: ClipCounts, names: Sequence[str], classes: Sequence[str]) -> ClipCounts:
    """The counts of some clips and classes, in this order."""
    rows = _places(counts.names, names)
    columns = _places(counts.classes, classes)
    return replace(
        counts,
        names=tuple(names),
        classes=tuple(classes),
        seconds=tuple(counts.seconds[row] for row in rows),
        counts=counts.counts[np.ix_(rows, columns)],
    )


def _places(of: Sequence[str], wanted: Sequence[str]) -> list[int]:
    place: Mapping[str, int] = {name: index for index, name in enumerate(of)}
    return [place[name] for name in wanted]


def _rows(kind: Kind, one: ClipCounts, other: ClipCounts, behind: ClipGroups, draws: int) -> list[Difference]:
    first, second = (f1_draws(counts.of(kind), behind.groups, draws=draws) for counts in (one, other))
    true = one.of(kind)[:, :, 0]
    every = len(behind.groups.names)

    def row(label: str, pair: tuple[Drawn, Drawn], n: int, groups: int) -> Difference:
        return Difference(kind, label, pair[0].interval, pair[1].interval, difference(pair[1], pair[0]), n, groups)

    return [
        row(MICRO, (first.micro, second.micro), int(true.sum()), every),
        row(MACRO, (first.macro, second.macro), int(true.sum()), every),
        *(
            row(
                label,
                (first.classes[column], second.classes[column]),
                int(true[:, column].sum()),
                behind.groups.count_of(true[:, column] > 0, column),
            )
            for column, label in enumerate(one.classes)
        ),
    ]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"
