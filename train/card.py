"""`earwitness-train card`: adds what `replay` and `evaluate` measured to a bundle, and writes its model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.published import KNOWN
from streamer.provenance import Provenance
from streamer.replay.report import SUMMARY, Summary
from streamer.replay.scoring import F1_EXPLAINED, KINDS, Report, percent
from train import evaluated

CARD = "MODEL_CARD.md"
_STREAM_FORM = " It has the stream form: each cell is computed once, and what was heard before is carried."


def measured(folder: Path, bundle: Bundle) -> tuple[str, dict[str, Any]]:
    """The figures of one `replay --truth --report FOLDER` or `evaluate --report FOLDER`, and their name in the bundle.

    Raises:
        EarwitnessError: the report is missing, has no scores, or belongs to another bundle.

    """
    if (folder / evaluated.FIGURES).exists():
        return evaluated.evaluated(folder, bundle)
    try:
        report = msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
    except (OSError, msgspec.MsgspecError) as error:
        raise EarwitnessError(f"{folder}: does not contain a report of `earwitness replay --report`: {error}") from None
    if not report.scores:
        raise EarwitnessError(f"{folder}: was replayed without --truth, so it has no scores")
    if not report.complete:
        raise EarwitnessError(f"{folder}: is incomplete: its replay was interrupted; finish it with --resume first")
    if report.broken:
        raise EarwitnessError(f"{folder}: {len(report.broken)} clips could not be replayed: {report.broken[0]}")
    if report.bundle != bundle.name:
        raise EarwitnessError(f"{folder}: is a report about {report.bundle}, not {bundle.name}")
    if report.bundle_sha256 not in ("", bundle.fingerprint()):
        raise EarwitnessError(
            f"{folder}: is a report about another {bundle.name}: its weights or thresholds have changed since"
        )
    return f"test_{report.mode}", {"command": report.command, "seconds": report.seconds, **report.scores}


def with_scores(bundle: Bundle, reports: Mapping[str, Mapping[str, Any]]) -> Bundle:
    """The bundle with these scores added. A score of the same name is replaced.

    Scores of an older bundle without micro F1 get it from their counts.
    """
    scores = {**bundle.scores, **reports}
    named = {name: {**one, **Report.of_json(one).json()} if _counted(one) else one for name, one in scores.items()}
    return replace(bundle, scores=named)


def _counted(figures: Any) -> bool:
    return isinstance(figures, Mapping) and "classes" in figures


def purpose(bundle: Bundle) -> str:
    """What the model is for and how it was made, in a line."""
    form = "" if bundle.stream is None else _STREAM_FORM
    more = bundle.provenance.more
    members = _members(more.get("merged", [])) or _averaged(more.get("averaged", []))
    return (
        f"Detects {len(bundle.classes)} kinds of sound in a home: {', '.join(bundle.classes)}. "
        f"Modalities: {', '.join(bundle.modalities)}. It is the fusion CRNN of Boes & Van hamme (2021), trained by "
        f"`earwitness-train fit` as a mean teacher on clips mixed from recordings; the weights are "
        f"the {bundle.provenance.network}'s.{form}{members}{_weights(bundle)}"
    )


def _weights(bundle: Bundle) -> str:
    """How to get the pretrained weights that the model needs."""
    needed = {spec.get("weights_sha256") for spec in bundle.feature_specs.values()}
    commands = [f"`{one.command}`" for one in KNOWN.values() if one.sha256 in needed]
    return f" It needs pretrained weights, which are fetched once: {', '.join(commands)}." if commands else ""


def _averaged(parts: Sequence[Mapping[str, Any]]) -> str:
    """Which networks `earwitness-train merge --average` made the model of."""
    if not parts:
        return ""
    named = ", ".join(one["name"] for one in parts)
    return (
        f" Its weights are the mean of those of {len(parts)} networks that were trained on from the same one, in "
        f"different ways: {named}; the steps are those of the first."
    )


def _members(parts: Sequence[Mapping[str, Any]]) -> str:
    """Which networks `earwitness-train merge` made the model of."""
    if not parts:
        return ""
    named = ", ".join(f"{one['name']} ({one['share']:g})" for one in parts)
    return (
        f" Its scores are the weighted mean of the logits of {len(parts)} networks that were trained apart: {named}; "
        "their steps are counted together."
    )


def _shown(command: str) -> str:
    """A command with the names of hundreds of clips is cut in the middle: its options come last."""
    return command if len(command) <= 300 else f"{command[:100]} ... {command[-150:]}"


def card(bundle: Bundle) -> str:
    """The model card in Markdown: the model's purpose, scores, training data and limits."""
    provenance = bundle.provenance
    return "\n".join(
        [
            f"# {bundle.name}",
            "",
            purpose(bundle),
            "",
            "## Scores",
            "F1 in percent, on clips mixed from recordings that the model never saw. "
            f"{_thresholds(provenance)} {F1_EXPLAINED}",
            "",
            *_scores(bundle.scores),
            *evaluated.sections(bundle.scores),
            "## What it was trained on",
            "Recordings by class; those that were cut from one original count once. No recording of the test part is "
            "in another part:",
            "",
            *_recordings(provenance.recordings),
            "The clips were mixed by `earwitness-train corpus`. Groups of recordings in the training clips, by source "
            "and licence:",
            "",
            "| source | licence | groups |",
            "|---|---|---:|",
            *(f"| {one.source} | {one.licence} | {one.recordings} |" for one in provenance.trained_on),
            "",
            "Recordings under non-commercial licences were left out. This repository contains none of the recordings, "
            "except those in the demo.",
            "",
            "## What it does not do",
            "- It was trained and measured on mixtures, not on real scenes: expect lower scores in a real room.",
            "- Some classes were learned from a handful of recordings (see the table): sounds unlike these may be "
            "missed.",
            "- It recognises kinds of sound, not who or what makes them: do not use it to decide about people, or as a "
            "safety alarm.",
            "",
            "## Training",
            f"{provenance.steps or '?'} steps. Every setting is in `bundle.json` under `provenance`.",
            "",
        ]
    )


def _thresholds(provenance: Provenance) -> str:
    if provenance.decoding == "untuned":
        return "Thresholds and median filter were not tuned: they are the same for every class."
    tuned = "Thresholds were tuned on other recordings, which"
    if provenance.corpus.get("train_on_validation", False):
        return f"{tuned} were then added to the training data of the last phase."
    return f"{tuned} it was not trained on either."


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for name, one in scores.items():
        if not name.startswith("test_"):
            continue
        report = Report.of_json(one)
        lines += [
            f"`--mode {name.removeprefix('test_')}` ({report.clips} clips):",
            "",
            f"    {_shown(one['command'])}",
            "",
            "| class | events (n) | clip F1 | segment F1 | event F1 |",
            "|---|---:|---:|---:|---:|",
            *(_row(row.label, row.event.true, [row.counts(kind).f1 for kind in KINDS]) for row in report.classes),
            _row("**micro**", report.total("event").true, [report.micro_f1(kind) for kind in KINDS]),
            _row("**macro**", report.total("event").true, [report.macro_f1(kind) for kind in KINDS]),
            "",
            f"The three figures that the paper gives (section 4.3.2): {report.paper()}.",
            "",
        ]
    return lines


def _row(label: str, events: int, f1: Sequence[float | None]) -> str:
    return f"| {label} | {events} | {' | '.join(percent(one, 1) for one in f1)} |"


def _recordings(parts: Mapping[str, Mapping[str, int]]) -> list[str]:
    labels = sorted({label for counts in parts.values() for label in counts})
    names = ("train", "validation", "test")
    rows = [f"| {label} | " + " | ".join(str(parts[name].get(label, 0)) for name in names) + " |" for label in labels]
    return ["| class | training | validation | test |", "|---|---:|---:|---:|", *rows, ""]
