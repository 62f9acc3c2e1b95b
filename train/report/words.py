"""What the figures of a report mean, a sentence each, and how they are written."""

from __future__ import annotations

import math
import re
from html import escape

from streamer.replay.scoring import Kind
from train.evaluation.bootstrap import LEVEL, Interval
from train.evaluation.measuring import Evaluation

F1 = (
    "F1 is one number for misses and false alarms together: 100 means that nothing was missed and nothing was false. "
    "<b>Micro</b> counts all classes together, so frequent classes weigh more; <b>macro</b> is the mean over the "
    "classes, and a class that was never found counts as 0."
)
KINDS: dict[Kind, str] = {
    "clip": "Was the class named for the clip, wherever in it?",
    "segment": "Was the class named for each second?",
    "event": "Was each event found, its onset within 200 ms and its offset within 200 ms or a fifth of its length?",
}
PSDS = {
    "PSDS 1": "The share of events found, averaged over all thresholds up to 100 false alarms an hour, less its spread "
    "over the classes; 70 % of an event must be covered, so times must be good.",
    "PSDS 2": "The same, but 10 % suffices, and confusing one class with another costs extra: the class must be right.",
}
LATENCY = (
    "From an event's true onset until the stream has heard enough to report it. Computing and sending take a little "
    "longer. Only onsets reported within 200 ms of the true one count."
)
ALARMS = (
    "Reported events whose class does not sound at any moment of them, for each hour of these clips. In these clips "
    "something sounds most of the time: a quiet room has fewer."
)
COVERAGE = "The share of the clips for which the model had sound or pictures."


def interval_note(evaluation: Evaluation) -> str:
    """What the intervals are of."""
    groups = evaluation.groups
    text = (
        f"In brackets: the {100 * LEVEL:.0f} % interval for other recordings of this kind, from {evaluation.draws:,} "
        f"draws of the {groups.number(len(groups.groups.names))} behind the clips."
    )
    if not groups.known:
        return (
            f"{text} Nothing is known of the recordings behind the clips, so each clip counts as independent: if clips "
            "share recordings, the intervals are too narrow."
        )
    return f"{text} A class with a single one has no interval, and with a handful it is a rough guess."


def percent(value: float) -> str:
    """A share of 1 as a percentage without its sign."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def ranged(of: Interval, *, times: float = 100, digits: int = 1, sign: bool = False) -> str:
    """A figure and its interval as HTML."""
    if math.isnan(of.value):
        return "–"
    form = f"{'+' if sign else ''}.{digits}f"
    value = format(times * of.value + 0.0, form)
    if not of.known:
        return value
    low, high = (format(times * end + 0.0, form) for end in (of.low, of.high))
    return f'{value} <span class="ci">[{low}, {high}]</span>'


def number(count: int, one: str, many: str = "") -> str:
    """`1 clip`, `2 clips`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """A duration in words."""
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )


def marked(text: str) -> str:
    """Text with `code` in backquotes as HTML."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def code(text: str) -> str:
    """Escaped, in a fixed-width font."""
    return f"<code>{escape(text)}</code>"
