"""`earwitness explain`: shows why an event was raised, from the event store."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from streamer.commands.options import add_store_options, store_path
from streamer.escapes import printable
from streamer.onsets import EARLY_CELLS
from streamer.sinks.store.explanation import Explanation, explanation
from streamer.timeline import samples, seconds
from streamer.types import CELL

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_WIDTH = 40
"""Width of the bar of a score of 1, in characters."""
_OTHER_CLASSES = 2
"""How many other classes are shown: those with the highest scores during the event."""


def add_parser(subparsers: _SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "explain",
        help="show why an event was raised",
        description="Shows the scores that raised an event, the thresholds they were compared with, and the scores of "
        "other classes at that time.",
        epilog="example: earwitness explain 0b6f5d1c9f7e4c3c8a55a2a1d1f0c9aa",
    )
    parser.add_argument("event_id", metavar="EVENT_ID", help="`event_id` of the event's messages")
    add_store_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, with all classes")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Explain one event; 0, or an `EarwitnessError`."""
    path = store_path(args)
    found = explanation(path, args.event_id)
    sys.stdout.write(_json(found) if args.json else _text(found))
    return 0


def _label(found: Explanation) -> str:
    event = found.offset or found.onset
    assert event is not None
    return event.label


def _json(found: Explanation) -> str:
    label = _label(found)
    column = found.decoding.classes.index(label)
    decoding = found.decoding.per_class[column]
    value = {
        "event_id": (found.offset or found.onset).event_id,  # type: ignore[union-attr]
        "class": label,
        "trigger_s": None if found.onset is None else found.onset.trigger_s,
        "early": None if found.onset is None else found.onset.early,
        "model": found.model,
        "onset_threshold": decoding.onset_threshold,
        "offset_threshold": decoding.offset_threshold,
        "median_cells": decoding.median_cells,
        "classes": list(found.decoding.classes),
        "start_s": [round(seconds(cell * CELL), 6) for cell in found.cells],
        "scores": [[round(float(one), 4) for one in row] for row in found.scores],
        "filtered": [None if math.isnan(one) else round(float(one), 4) for one in found.filtered[:, column]],
        "covered": found.covered.tolist(),
    }
    return json.dumps(value) + "\n"


def _text(found: Explanation) -> str:
    label = _label(found)
    column = found.decoding.classes.index(label)
    lines = [*_summary(found, label, column), "", *_table(found, label, column)]
    return "".join(f"{printable(line)}\n" for line in lines)


def _summary(found: Explanation, label: str, column: int) -> list[str]:
    """Sentences that summarise the event."""
    event = found.offset or found.onset
    assert event is not None
    decoding = found.decoding.per_class[column]
    when = event.onset_utc or f"{event.onset_s:.2f} s of epoch {event.epoch}"
    lines = [f"{label} on {event.stream}, {when}" + (f", detected by the model {found.model}" if found.model else "")]
    if found.onset is not None:
        onset_s, trigger_s = event.onset_s, found.onset.trigger_s
        backdated = trigger_s is not None and trigger_s > onset_s
        raised = f"raised at {trigger_s:.2f} s" if backdated else f"began at {onset_s:.2f} s"
        if found.onset.early:
            lines.append(
                f"{raised}, early: {EARLY_CELLS} scores in a row were at least {found.onset.score:.2f}, "
                "though not final yet"
            )
        else:
            lines.append(
                f"{raised}: its filtered score reached the onset threshold "
                f"{decoding.onset_threshold:.2f} ({found.onset.score:.2f})"
            )
        if backdated:
            lines.append(f"began at {onset_s:.2f} s, as the model judged once it had heard what followed")
    if found.offset is None:
        lines.append("is still open")
    elif found.offset.end_reason == "silence":
        lines.append(
            f"ended at {found.offset.offset_s:.2f} s: its filtered score fell below the offset threshold "
            f"{decoding.offset_threshold:.2f}"
        )
    else:
        lines.append(f"ended at {found.offset.offset_s:.2f} s: {found.offset.end_reason}")
    if event.level_dbfs is not None:
        over = event.over_background_db
        beside = "" if over is None else f", {over:+.1f} dB above the background"
        lines.append(f"level: {event.level_dbfs:.1f} dBFS{beside}")
    return lines


def _table(found: Explanation, label: str, column: int) -> list[str]:
    """One line per cell: its time from the onset, score, filtered score, bar, and the scores of other classes."""
    event = found.offset or found.onset
    assert event is not None
    decoding = found.decoding.per_class[column]
    begin = samples(event.onset_s) // CELL
    end = samples(found.offset.offset_s) // CELL if found.offset else math.inf
    inside = [index for index, cell in enumerate(found.cells) if begin <= cell < end]
    ranked = found.scores[inside or slice(None)].max(axis=0).argsort()[::-1]
    others = [int(other) for other in ranked if other != column][:_OTHER_CLASSES]
    names = [found.decoding.classes[other] for other in others]
    lines = [
        f"filter: median of {decoding.median_cells} cells; bar: filtered score; "
        f"|: onset threshold {decoding.onset_threshold:.2f}, offset threshold {decoding.offset_threshold:.2f}",
        f"  time s  score filter  {'':{_WIDTH}}   {'   '.join(names)}",
    ]
    marks = {round(decoding.onset_threshold * _WIDTH), round(decoding.offset_threshold * _WIDTH)}
    before = None
    for index, cell in enumerate(found.cells):
        if before is not None and cell != before + 1:
            lines.append(f"     ...  {cell - before - 1} cells were not stored")
        before = cell
        value = float(found.filtered[index, column])
        filled = 0 if math.isnan(value) else round(value * _WIDTH)
        bar = "".join("#" if place < filled else "|" if place in marks else " " for place in range(_WIDTH + 1))
        smooth = "     ?" if math.isnan(value) else f"{value:6.2f}"
        beside = "   ".join(
            f"{found.scores[index, other]:{len(name)}.2f}" for other, name in zip(others, names, strict=True)
        )
        mark = ">" if begin <= cell < end else " "
        after_s = seconds((cell - begin) * CELL)
        uncovered = "" if found.covered[index] else "   no media"
        line = f"{mark}{after_s:+7.2f}  {found.scores[index, column]:5.2f} {smooth}  {bar}  {beside}{uncovered}"
        lines.append(line.rstrip())
    return lines
