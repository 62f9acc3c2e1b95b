"""The tables of a report, as HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from streamer.replay.scoring import KINDS
from train.evaluation.bootstrap import Drawn, difference
from train.evaluation.measuring import Evaluation, Way
from train.report import words


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, css: str = "") -> str:
    """A table of cells that are HTML; the first column is its rows' names."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return f'<div class="wide"><table class="{css}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def scores(evaluation: Evaluation) -> str:
    """Every score of both ways with its interval, their paired difference, and what it is counted in."""
    offline, streaming = evaluation.offline, evaluation.streaming
    units = {"clip": "true tags", "segment": "true class-seconds", "event": "true events"}
    rows = []
    for kind in KINDS:
        count = offline.report.total(kind).true
        for mean in ("micro", "macro"):
            pair = [_mean(way, kind, mean) for way in (offline, streaming)]
            paper = " *" if (kind, mean) in (("clip", "micro"), ("segment", "micro"), ("event", "macro")) else ""
            rows.append(_score(f"{kind.capitalize()} F1, {mean}{paper}", pair, f"{count:,} {units[kind]}"))
    for one, other in zip(offline.psds, streaming.psds, strict=True):
        count = offline.report.total("event").true
        rows.append(_score(one.scenario.name, [one.score, other.score], f"{count:,} true events"))
    return table(["", "offline", "streaming", "streaming − offline", "n"], rows, css="numbers")


def _mean(way: Way, kind: str, mean: str) -> Drawn:
    of = next(one for name, one in way.f1.items() if name == kind)
    return of.micro if mean == "micro" else of.macro


def _score(name: str, pair: Sequence[Drawn], n: str) -> list[str]:
    offline, streaming = pair
    change = difference(streaming, offline)
    mark = " <b>differs</b>" if change.apart else ""
    return [
        name,
        words.ranged(offline.interval),
        words.ranged(streaming.interval),
        words.ranged(change, sign=True) + mark,
        n,
    ]


def classes(evaluation: Evaluation) -> str:
    """Class by class: how many, and the scores of both ways, with the live stream's intervals."""
    rows = []
    for column, label in enumerate(evaluation.bundle.classes):
        events = evaluation.offline.report.classes[column].event.true
        cells = [escape(label), f"{evaluation.groups_of(column)}", f"{events}"]
        for kind in KINDS:
            cells.append(words.percent(float(evaluation.offline.f1[kind].classes[column].value)))
            cells.append(words.ranged(evaluation.streaming.f1[kind].classes[column].interval))
        for way in (evaluation.offline, evaluation.streaming):
            if way.psds:
                cells.append(" / ".join(words.percent(one.classes.get(label, math.nan)) for one in way.psds))
        rows.append(cells)
    header = ["class", escape(evaluation.groups.units), "events"]
    header += [f"{kind} F1, {way}" for kind in KINDS for way in ("offline", "streaming")]
    if evaluation.offline.psds:
        header += [f"PSDS 1 / 2, {way}" for way in ("offline", "streaming")]
    return table(header, rows, css="numbers dense")


def live(evaluation: Evaluation) -> str:
    """What a live stream's subscriber notices, class by class and for all."""
    late, alarms = evaluation.latencies, evaluation.streaming.alarms
    rows = []
    for column, label in enumerate((*evaluation.bundle.classes, "all classes")):
        every = column == len(evaluation.bundle.classes)
        seconds = evaluation.latency_s if every else evaluation.class_latency_s[column]
        count = len(late.seconds) if every else int((late.classes == column).sum())
        false = int(alarms.counts.sum() if every else alarms.counts[:, column].sum())
        rate = evaluation.streaming.alarms_per_hour[column]
        other = evaluation.offline.alarms_per_hour[column]
        rows.append(
            [
                f"<b>{label}</b>" if every else escape(label),
                f"{count}",
                *(words.ranged(seconds[index].interval, times=1, digits=2) for index in range(3)),
                f"{false}",
                words.ranged(rate.interval, times=1),
                words.ranged(other.interval, times=1),
            ]
        )
    header = [
        "class", "onsets", "latency, median (s)", "90 % within (s)", "95 % within (s)", "false alarms",
        "false alarms an hour", "the same, offline",
    ]  # fmt: skip
    return table(header, rows, css="numbers dense")
