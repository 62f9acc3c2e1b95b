"""The plots of a report."""

from __future__ import annotations

import math
from itertools import groupby

from streamer.replay.scoring import KINDS
from streamer.types import CELL, SAMPLE_RATE_HZ
from train.evaluation.bootstrap import Interval
from train.evaluation.measuring import CurvePoint, Evaluation
from train.evaluation.psds import MAX_FALSE_PER_HOUR, Curve
from train.report.svg import Drawing, Frame, Point, Scale, ticks
from train.report.words import number, percent

_CELL_S = CELL / SAMPLE_RATE_HZ
_LABEL = 205.0
"""Width of the column of class names."""


def short(label: str, most: int = 28) -> str:
    """A name that fits beside a plot; the whole one is in its title."""
    return label if len(label) <= most else label[: most - 1] + "…"


def class_bars(evaluation: Evaluation) -> str:
    """F1 of each class in clips, segments and events, offline and streaming, with intervals."""
    row, top, panel, gap = 34.0, 34.0, 235.0, 22.0
    classes = evaluation.bundle.classes
    width = _LABEL + len(KINDS) * (panel + gap)
    drawing = Drawing(width, top + row * len(classes) + 26, "F1 of each class, offline and as a live stream")
    bottom = top + row * len(classes)
    for index, label in enumerate(classes):
        middle = top + row * (index + 0.5)
        events = evaluation.offline.report.classes[index].event.true
        drawing.text((_LABEL - 12, middle - 3), short(label, 26), anchor="end", title=label)
        note = f"{number(events, 'event')}, {evaluation.groups.number(evaluation.groups_of(index))}"
        drawing.text((_LABEL - 12, middle + 10), short(note, 40), "small", anchor="end")
    for place, kind in enumerate(KINDS):
        scale = Scale(0, 1, start := _LABEL + place * (panel + gap), start + panel)
        drawing.text((start, 14), f"{kind} F1", "heading")
        for tick in (0, 0.25, 0.5, 0.75, 1):
            drawing.line((scale.at(tick), top - 6), (scale.at(tick), bottom), "grid")
            drawing.text((scale.at(tick), bottom + 16), f"{100 * tick:.0f}", "tick", anchor="middle")
        for index, label in enumerate(classes):
            for below, (name, way, css) in enumerate(
                (("offline", evaluation.offline, "offline"), ("streaming", evaluation.streaming, "streaming"))
            ):
                y = top + row * index + 4 + 13 * below
                _bar(drawing, scale, y, way.f1[kind].classes[index].interval, css, f"{label}, {name}")
    return drawing.svg()


def _bar(drawing: Drawing, scale: Scale, y: float, of: Interval, css: str, name: str) -> None:
    if math.isnan(of.value):
        drawing.text((scale.start + 4, y + 9), "not in the truth", "small")
        return
    title = f"{name}: {percent(of.value)}"
    if of.known:
        title += f" [{percent(of.low)}, {percent(of.high)}]"
    drawing.rect((scale.start, y), (scale.at(of.value) - scale.start, 11), css, title=title)
    if of.known:
        drawing.line((scale.at(of.low), y + 5.5), (scale.at(of.high), y + 5.5), "whisker")
        for end in (of.low, of.high):
            drawing.line((scale.at(end), y + 2), (scale.at(end), y + 9), "whisker")


def latency_curve(evaluation: Evaluation) -> str:
    """Event F1 against the median onset latency, a line for each hop; empty without a curve."""
    points = [one for one in evaluation.curve if not math.isnan(float(one.latency_s.value[0]))]
    if not points:
        return ""
    offline = float(evaluation.offline.f1["event"].macro.value)
    used = next((one for one in points if one.settings == evaluation.settings), None)
    late = [_latency(one) for one in points]
    scores = [100 * float(one.event_macro.value) for one in points] + [100 * offline]
    if used is not None and used.event_macro.interval.known:
        scores += [100 * used.event_macro.interval.low, 100 * used.event_macro.interval.high]
    low, high = max(min(scores) - 3, 0), min(max(scores) + 3, 100)
    drawing = Drawing(820, 420, "Event F1 against onset latency")
    frame = Frame(Scale(0, max(late) * 1.06, 60, 660), Scale(low, high, 360, 20))
    frame.draw(
        drawing,
        ticks(0, max(late) * 1.06),
        ticks(low, high),
        "median onset latency in seconds",
        "event F1, macro, in %",
    )
    drawing.line(frame.at(0, 100 * offline), (660, frame.y.at(100 * offline)), "dashed")
    drawing.text((664, frame.y.at(100 * offline) + 4), f"offline {percent(offline)}", "small")
    if used is not None and used.event_macro.interval.known:
        ends = [
            frame.at(_latency(used), 100 * end)
            for end in (used.event_macro.interval.low, used.event_macro.interval.high)
        ]
        drawing.line(ends[0], ends[1], "whisker")
    for index, (hop, its) in enumerate(groupby(sorted(points, key=_hop), key=_hop)):
        line = sorted(its, key=lambda one: one.settings.lookahead_cells)
        css = f"line{index % 5}"
        drawing.path([_at(frame, one) for one in line], f"line {css}")
        for one in line:
            drawing.circle(_at(frame, one), 6 if one is used else 3.5, f"dot {css}", title=_point_title(one))
            if one is used or index == 0:
                x, y = _at(frame, one)
                drawing.text((x + 5, y - 8), f"{one.settings.lookahead_cells}", "small")
        y = 40 + 20 * index
        drawing.path([(690, y), (715, y)], f"line {css}")
        drawing.text((722, y + 4), f"hop {hop} ({hop * _CELL_S:.2f} s)", "small")
    drawing.text((664, 366), "numbers: lookahead in cells", "small")
    return drawing.svg()


def _hop(point: CurvePoint) -> int:
    return point.settings.hop_cells


def _latency(point: CurvePoint) -> float:
    return float(point.latency_s.value[0])


def _at(frame: Frame, point: CurvePoint) -> Point:
    return frame.at(_latency(point), 100 * float(point.event_macro.value))


def _point_title(point: CurvePoint) -> str:
    settings = point.settings
    return (
        f"hop {settings.hop_cells}, lookahead {settings.lookahead_cells} cells: "
        f"event F1 macro {percent(float(point.event_macro.value))}, median latency {_latency(point):.2f} s"
    )


def psd_roc(evaluation: Evaluation) -> str:
    """The PSD-ROC curve of each scenario, offline and streaming; empty without PSDS."""
    if not evaluation.offline.psds:
        return ""
    count = len(evaluation.offline.psds)
    drawing = Drawing(430 * count, 330, "PSD-ROC curves, offline and as a live stream")
    for index, (offline, streaming) in enumerate(zip(evaluation.offline.psds, evaluation.streaming.psds, strict=True)):
        left = 430 * index + 60
        frame = Frame(Scale(0, MAX_FALSE_PER_HOUR, left, left + 340), Scale(0, 100, 270, 34))
        frame.draw(
            drawing, range(0, 101, 20), range(0, 101, 20), "effective false alarms an hour", "events found, in %"
        )
        drawing.text((left, 16), offline.scenario.name, "heading")
        for of, css in ((offline, "offline"), (streaming, "streaming")):
            title = f"{offline.scenario.name} {css}: {percent(float(of.score.value))}"
            drawing.path(_steps(frame, of.curve), f"line of-{css}", title=title)
    return drawing.svg()


def _steps(frame: Frame, curve: Curve) -> list[Point]:
    points: list[Point] = []
    for x, y in zip(curve.false_per_hour, curve.found, strict=True):
        if points:
            points.append((frame.x.at(x), points[-1][1]))
        points.append(frame.at(x, 100 * y))
    return points


def confusions(evaluation: Evaluation) -> str:
    """False alarms of the live stream by what really sounded meanwhile; empty if there were none."""
    confused = evaluation.streaming.alarms.confused
    if not confused.sum():
        return ""
    classes = evaluation.bundle.classes
    columns = [*classes, "nothing of these"]
    side, top = 48.0, 132.0
    drawing = Drawing(_LABEL + side * len(columns) + 120, top + side * 0.6 * len(classes) + 10, "Confusions")
    most = float(confused.max())
    drawing.text((_LABEL - 12, top - 8), "reported ↓   sounded instead →", "small", anchor="end")
    for column, label in enumerate(columns):
        x = _LABEL + side * (column + 0.5)
        drawing.text((x, top - 8), short(label), "small", turned=-40, title=label)
    for row, label in enumerate(classes):
        y = top + side * 0.6 * row
        drawing.text((_LABEL - 12, y + 18), short(label, 26), anchor="end", title=label)
        for column, other in enumerate(columns):
            value = float(confused[row, column])
            at = (_LABEL + side * column, y)
            drawing.rect(at, (side - 2, side * 0.6 - 2), "cell")
            if value:
                title = f"{value:.1f} false alarms of {label} while {other} sounded"
                share = 0.15 + 0.85 * value / most
                drawing.rect(at, (side - 2, side * 0.6 - 2), "heat", title=title, opacity=share)
                css = "small strong" if share > 0.55 else "small"
                drawing.text(
                    (at[0] + side / 2 - 1, y + 18),
                    f"{value:.0f}" if value == round(value) else f"{value:.1f}",
                    css,
                    anchor="middle",
                )
    return drawing.svg()
