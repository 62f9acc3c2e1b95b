"""The best and the worst clips: what was true, what was found, and the posteriors behind it, on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamer.replay.scoring import KINDS
from streamer.replay.truth import LabelledEvent
from streamer.types import CELL, SAMPLE_RATE_HZ
from train.evaluation.bootstrap import f1
from train.evaluation.measuring import Evaluation
from train.report.charts import short
from train.report.svg import Drawing, Point, Scale, ticks

SHOWN = 3
"""Clips at either end."""
_LABEL = 205.0
_WIDTH = 700.0
_ROW = 76.0
_AREA = 38.0
"""Height of the posteriors above the events."""
_CELL_S = CELL / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip that is drawn."""

    row: int
    name: str
    event_f1: float  # of the live stream, 0 to 1


def best_and_worst(evaluation: Evaluation) -> tuple[list[Shown], list[Shown]]:
    """The clips with the highest and the lowest event F1 as a live stream, then segment F1.

    Of equally good clips those with more events are shown. Clips without events are left out, and no clip is in both.
    """
    counts = evaluation.streaming.counts
    totals = counts.counts.sum(axis=1).astype(np.float64)  # (clips, kinds, 3)
    event, segment = totals[:, KINDS.index("event")], totals[:, KINDS.index("segment")]
    scored = [
        (float(f1(event[row])), float(np.nan_to_num(f1(segment[row]))), int(event[row, 0]), row)
        for row in range(len(counts.names))
        if event[row, 0]
    ]
    ranked = [Shown(row, counts.names[row], score) for score, _, _, row in sorted(scored, reverse=True)]
    best = ranked[: min(SHOWN, (len(ranked) + 1) // 2)]
    return best, [one for one in ranked[::-1][:SHOWN] if one not in best]


def timeline(evaluation: Evaluation, clip: Shown) -> str:
    """One clip's classes that are true or were found, each with its posterior, truth, and events of both ways."""
    true = evaluation.truth.events[clip.name]
    offline = evaluation.offline.predictions[clip.name].events
    streaming = evaluation.streaming.predictions[clip.name].events
    classes = evaluation.bundle.classes
    shown = [label for label in classes if any(one.label == label for one in (*true, *offline, *streaming))]
    duration_s = max(evaluation.offline.counts.seconds[clip.row], *(one.offset_s for one in true))
    drawing = Drawing(_LABEL + _WIDTH + 20, _ROW * len(shown) + 26, f"Timeline of {clip.name}")
    scale = Scale(0, duration_s, _LABEL, _LABEL + _WIDTH)
    bottom = _ROW * len(shown)
    for tick in ticks(0, duration_s, 12):
        drawing.line((scale.at(tick), 0), (scale.at(tick), bottom), "grid")
        drawing.text((scale.at(tick), bottom + 16), f"{tick:g} s", "tick", anchor="middle")
    posteriors = evaluation.streaming.posteriors[clip.row].cells
    for place, label in enumerate(shown):
        top = _ROW * place
        drawing.line((0, top), (_LABEL + _WIDTH, top), "grid")
        drawing.text((_LABEL - 12, top + 24), short(label, 26), anchor="end", title=label)
        column = classes.index(label)
        threshold = evaluation.bundle.decoding.per_class[column].onset_threshold
        drawing.text((_LABEL - 12, top + 40), f"onset threshold {threshold:.2f}", "small", anchor="end")
        _posterior(drawing, scale, top, posteriors[:, column].tolist(), threshold)
        for line, (name, events, css) in enumerate(
            (("true", true, "truth"), ("offline", offline, "offline"), ("streaming", streaming, "streaming"))
        ):
            _events(
                drawing, scale, top + _AREA + 6 + 11 * line, [one for one in events if one.label == label], css, name
            )
    return drawing.svg()


def _posterior(drawing: Drawing, scale: Scale, top: float, values: Sequence[float], threshold: float) -> None:
    height = _AREA - 6
    floor = top + _AREA
    points: list[Point] = [(scale.at(0), floor)]
    for cell, value in enumerate(values):
        y = floor - height * value
        points += [(scale.at(cell * _CELL_S), y), (scale.at((cell + 1) * _CELL_S), y)]
    points.append((scale.at(len(values) * _CELL_S), floor))
    drawing.path(points, "posterior", closed=True)
    level = floor - height * threshold
    drawing.line((scale.start, level), (scale.stop, level), "dashed")


def _events(drawing: Drawing, scale: Scale, y: float, events: Sequence[LabelledEvent], css: str, name: str) -> None:
    for one in events:
        left, right = scale.at(one.onset_s), scale.at(one.offset_s)
        title = f"{name}: {one.label}, {one.onset_s:.2f} to {one.offset_s:.2f} s"
        drawing.rect((left, y), (max(right - left, 1.5), 9), css, title=title)
