"""`counts.tsv`: the counts of every class in every clip, from which intervals and comparisons are computed.

It has a row for each class of each clip: `filename seconds class`, and for each kind of F1 (`clip`, `segment`, `event`)
how many are true, how many were found, and how many are both. Against a truth without times it has the clips' counts
alone. File names are escaped by `streamer.escapes`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamer.errors import TruthError
from streamer.escapes import escaped
from streamer.replay.scoring import KINDS, ClipCounts, Kind
from streamer.replay.truth import lines_of, name_in

_FIRST = ("filename", "seconds", "class")
_COUNTED = ("true", "found", "right")


def counts_tsv(counts: ClipCounts) -> str:
    """The text of `counts.tsv`."""
    kinds = KINDS if counts.strong else KINDS[:1]
    lines = ["\t".join(_header(kinds))]
    for name, seconds, row in zip(counts.names, counts.seconds, counts.counts.tolist(), strict=True):
        for label, of in zip(counts.classes, row, strict=True):
            numbers = [str(number) for kind in of[: len(kinds)] for number in kind]
            lines.append("\t".join([escaped(name), f"{seconds:.3f}", label, *numbers]))
    return "\n".join(lines) + "\n"


def read_counts(path: Path) -> ClipCounts:
    """Read `counts.tsv`. It does not tell how many clips were annotated, nor their hash.

    Raises:
        TruthError: it is missing or damaged; the error names the line.

    """
    try:
        lines = lines_of(path)
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TruthError(f"{path}: can't read the counts: {what}") from None
    header = tuple(lines[0].split("\t")) if lines else ()
    kinds = next((kinds for kinds in (KINDS, KINDS[:1]) if header == _header(kinds)), None)
    if kinds is None:
        raise TruthError(f"{path}: is not a table of counts: its first line is not '{' '.join(_header(KINDS))}'")
    rows: dict[str, dict[str, list[int]]] = {}
    seconds: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        first, *fields = line.split("\t")
        try:
            seconds[name_in(first)] = float(fields[0])
            of_clip = rows.setdefault(name_in(first), {})
            of_clip[fields[1]] = [int(field) for field in fields[2:]]
            if len(of_clip[fields[1]]) != len(kinds) * len(_COUNTED):
                raise ValueError
        except (ValueError, IndexError):
            raise TruthError(f"{path}, line {number}: is not a row of counts: {line[:80]!r}") from None
    classes = tuple(next(iter(rows.values()), {}))
    counts = np.zeros((len(rows), len(classes), len(KINDS), len(_COUNTED)), np.int64)
    for index, (name, row) in enumerate(rows.items()):
        if tuple(row) != classes:
            raise TruthError(f"{path}: {name} does not have the same classes as the clips before it")
        counts[index, :, : len(kinds)] = np.reshape(list(row.values()), (len(classes), len(kinds), len(_COUNTED)))
    return ClipCounts(tuple(rows), classes, tuple(seconds.values()), counts, kinds == KINDS, 0, "")


def _header(kinds: tuple[Kind, ...]) -> tuple[str, ...]:
    return (*_FIRST, *(f"{kind}_{what}" for kind in kinds for what in _COUNTED))
