"""The figures of an evaluation as JSON, for other programs: every score with its interval, every class, the curve."""

from __future__ import annotations

import math
from typing import Any

from streamer.replay.scoring import KINDS
from streamer.types import CELL, SAMPLE_RATE_HZ
from train.evaluation.alarms import QUANTILES
from train.evaluation.bootstrap import Drawn, Interval, difference
from train.evaluation.measuring import CurvePoint, Evaluation, Way


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """JSON-able values. Scores are 0 to 1, latencies seconds; an interval that is not known is null."""
    classes = evaluation.bundle.classes
    streaming, offline = evaluation.streaming, evaluation.offline
    report = offline.report
    return {
        "model": evaluation.bundle.name,
        "model_sha256": evaluation.bundle.fingerprint(),
        "part": evaluation.part.part,
        "clips": report.clips,
        "annotated": report.annotated,
        "subset_sha256": report.subset_sha256,
        "data_sha256": evaluation.part.sha256,
        "seconds": evaluation.seconds,
        "resampled": {
            "what": evaluation.groups.units,
            "count": len(evaluation.groups.groups.names),
            "draws": evaluation.draws,
        },
        "offline": _way(offline, classes),
        "streaming": {
            "hop_cells": evaluation.settings.hop_cells,
            "lookahead_cells": evaluation.settings.lookahead_cells,
            **_way(streaming, classes),
            "coverage": evaluation.coverage.covered / evaluation.coverage.cells if evaluation.coverage.cells else None,
            "onset_latency_s": _latency(evaluation.latency_s, len(evaluation.latencies.seconds)),
            "onset_latency_s_by_class": {
                label: _latency(one, int((evaluation.latencies.classes == column).sum()))
                for column, (label, one) in enumerate(zip(classes, evaluation.class_latency_s, strict=True))
            },
        },
        "streaming_minus_offline": {
            f"{kind}_f1_{mean}": _interval(difference(_mean(streaming, index, mean), _mean(offline, index, mean)))
            for index, kind in enumerate(KINDS)
            for mean in ("micro", "macro")
        },
        "curve": [_point(one) for one in evaluation.curve],
    }


def _way(way: Way, classes: tuple[str, ...]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for index, kind in enumerate(KINDS):
        for mean in ("micro", "macro"):
            scores[f"{kind}_f1_{mean}"] = _figure(_mean(way, index, mean))
    scores |= {one.scenario.name.lower().replace(" ", "_"): _figure(one.score) for one in way.psds}
    return {
        **scores,
        "false_alarms_per_hour": _figure(way.alarms_per_hour[len(classes)]),
        "classes": {
            label: {
                **{
                    kind: {
                        **_figure(way.f1[kind].classes[column]),
                        "true": (counted := way.report.classes[column].counts(kind)).true,
                        "found": counted.found,
                        "right": counted.right,
                    }
                    for kind in KINDS
                },
                "false_alarms": int(way.alarms.counts[:, column].sum()),
                "false_alarms_per_hour": _figure(way.alarms_per_hour[column]),
                **{one.scenario.name.lower().replace(" ", "_"): one.classes.get(label) for one in way.psds},
            }
            for column, label in enumerate(classes)
        },
    }


def _mean(way: Way, kind: int, mean: str) -> Drawn:
    of = way.f1[KINDS[kind]]
    return of.micro if mean == "micro" else of.macro


def _figure(of: Drawn) -> dict[str, float | None]:
    return _interval(of.interval)


def _interval(of: Interval) -> dict[str, float | None]:
    return {"value": _known(of.value), "low": _known(of.low), "high": _known(of.high)}


def _latency(of: Drawn, count: int) -> dict[str, Any]:
    names = [f"p{100 * share:.0f}" for share in QUANTILES]
    return {"n": count, **{name: _figure(of[index]) for index, name in enumerate(names)}}


def _point(of: CurvePoint) -> dict[str, Any]:
    return {
        "hop_cells": of.settings.hop_cells,
        "hop_s": round(of.settings.hop_cells * CELL / SAMPLE_RATE_HZ, 4),
        "lookahead_cells": of.settings.lookahead_cells,
        "early_threshold": of.settings.early_threshold,
        "lookahead_s": round(of.settings.lookahead_cells * CELL / SAMPLE_RATE_HZ, 4),
        "event_f1_macro": _figure(of.event_macro),
        "event_f1_micro": _figure(of.event_micro),
        "segment_f1_macro": _figure(of.segment_macro),
        "onset_latency_s": _latency(of.latency_s, of.latencies),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
