"""What `earwitness-train evaluate --report` measured, as a bundle records it and its card shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.windows import PRESETS, StreamSettings

FIGURES = "evaluation.json"
"""In the report's folder."""
NAME, BACKGROUNDS = "evaluation", "backgrounds"
"""Of these figures among a bundle's scores; the second if none of the classes sounds in the clips."""
_F1 = tuple(f"{kind}_f1_{mean}" for kind in ("clip", "segment", "event") for mean in ("micro", "macro"))
_SETTINGS = ("hop_cells", "lookahead_cells", "early_threshold")
_POINT = (*_SETTINGS, "event_f1_macro", "onset_latency_s")


def evaluated(folder: Path, bundle: Bundle) -> tuple[str, dict[str, Any]]:
    """The figures of the report in `folder`: F1 with intervals, false alarms by class, the latency curve; their name.

    Raises:
        EarwitnessError: the report can't be read, or is about another bundle.

    """
    try:
        report = json.loads((folder / FIGURES).read_text())
        sha256, name = report["model_sha256"], report["model"]
        events = sum(of["event"]["true"] for of in report["offline"]["classes"].values())
        found = {
            "clips": report["clips"],
            "seconds": round(report["seconds"], 1),
            "resampled": report["resampled"],
            **{way: _way(report[way]) for way in ("offline", "streaming")},
            "onset_latency_s": _rounded(report["streaming"]["onset_latency_s"]),
            "hop_cells": report["streaming"]["hop_cells"],
            "lookahead_cells": report["streaming"]["lookahead_cells"],
            "curve": [{key: _rounded(point[key]) for key in _POINT} for point in report.get("curve", ())],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = " ".join(str(error).split())[:120]
        raise EarwitnessError(
            f"{folder}: does not contain a report of `earwitness-train evaluate --report`: {what}"
        ) from None
    if sha256 != bundle.fingerprint():
        other = f"about {name}, not {bundle.name}" if name != bundle.name else f"about another {name}"
        raise EarwitnessError(f"{folder}: is a report {other}: its weights or thresholds have changed since")
    return NAME if events else BACKGROUNDS, found


def sections(scores: Mapping[str, Any]) -> list[str]:
    """What a bundle's scores have of such figures, as lines of Markdown."""
    with_events = _with_events(scores[NAME]) if NAME in scores else []
    return [*with_events, *(_backgrounds(scores[BACKGROUNDS]) if BACKGROUNDS in scores else ())]


def _backgrounds(figures: Mapping[str, Any]) -> list[str]:
    return [
        "## False alarms where nothing is to be heard",
        f"`earwitness-train evaluate --report`, {figures['clips']} clips, {figures['seconds'] / 60:.0f} minutes in "
        f"which none of the classes sounds: backgrounds and other sounds. {_resampled(figures)}",
        "",
        *_alarms(figures),
    ]


def _resampled(figures: Mapping[str, Any]) -> str:
    of = figures["resampled"]
    return (
        f"In brackets 95 % intervals over {of['count']} {of['what']}. Streaming has a hop of {figures['hop_cells']} "
        f"and a lookahead of {figures['lookahead_cells']} cells."
    )


def _alarms(figures: Mapping[str, Any]) -> list[str]:
    return [
        "| false alarms an hour, streaming | |",
        "|---|---:|",
        *(f"| {label} | {_plain(of)} |" for label, of in figures["streaming"]["false_alarms"].items()),
        f"| **all** | {_plain(figures['streaming']['false_alarms_per_hour'])} |",
        "",
    ]


def _with_events(figures: Mapping[str, Any]) -> list[str]:
    return [
        "## Intervals, latency and false alarms",
        f"`earwitness-train evaluate --report`, {figures['clips']} clips. {_resampled(figures)}",
        "",
        "| | whole clips | streaming |",
        "|---|---:|---:|",
        *(
            f"| {name.replace('_f1_', ' F1, ')} | {_percent(figures['offline'][name])} | "
            f"{_percent(figures['streaming'][name])} |"
            for name in _F1
        ),
        "",
        "| preset | hop, lookahead (cells) | event F1, macro | from onset to decision: median, 95 % |",
        "|---|---:|---:|---:|",
        *(_preset(name, one, figures["curve"]) for name, one in PRESETS.items()),
        "",
        *_alarms(figures),
    ]


def _way(way: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: _rounded(way[name]) for name in _F1},
        "false_alarms_per_hour": _rounded(way["false_alarms_per_hour"]),
        "false_alarms": {label: _rounded(of["false_alarms_per_hour"]) for label, of in way["classes"].items()},
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _preset(name: str, settings: StreamSettings, curve: list[Mapping[str, Any]]) -> str:
    wanted = tuple(getattr(settings, field) for field in _SETTINGS)
    point = next((one for one in curve if tuple(map(one.get, _SETTINGS)) == wanted), None)
    where = f"| {name} | {settings.hop_cells}, {settings.lookahead_cells} |"
    if point is None:
        return f"{where} not measured | |"
    late = [point["onset_latency_s"][quantile]["value"] for quantile in ("p50", "p95")]
    told = "no onset was found" if None in late else f"{late[0]:.2f} s, {late[1]:.2f} s"
    return f"{where} {_percent(point['event_f1_macro'])} | {told} |"


def _percent(one: Mapping[str, float | None]) -> str:
    return _plain({bound: None if value is None else 100 * value for bound, value in one.items()})


def _plain(one: Mapping[str, float | None]) -> str:
    """With its interval, if it is known: what never happened has none."""
    interval = "" if one["low"] is None else f" [{one['low']:.1f}, {one['high']:.1f}]"
    return f"{one['value']:.1f}{interval}"
