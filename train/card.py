"""`earwitness-train card`: adds the scores that replay measured to a bundle, and writes its model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.replay.report import SUMMARY, Summary
from streamer.replay.scoring import KINDS, Report

CARD = "MODEL_CARD.md"


def measured(folder: Path, bundle: Bundle) -> tuple[str, dict[str, Any]]:
    """The scores of one `earwitness replay --truth --report FOLDER`, and their name in the bundle.

    Raises:
        EarwitnessError: the report is missing, has no scores, or belongs to another bundle.

    """
    try:
        report = msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
    except (OSError, msgspec.MsgspecError) as error:
        raise EarwitnessError(f"{folder}: holds no report of `earwitness replay --report`: {error}") from None
    if not report.scores:
        raise EarwitnessError(f"{folder}: was replayed without --truth, so there is nothing to put into the bundle")
    if not report.complete:
        raise EarwitnessError(f"{folder}: was interrupted: finish it with --resume first")
    if report.broken:
        raise EarwitnessError(f"{folder}: {len(report.broken)} of its clips could not be replayed: {report.broken[0]}")
    if report.bundle != bundle.name:
        raise EarwitnessError(f"{folder}: is about {report.bundle}, not {bundle.name}")
    if report.bundle_sha256 not in ("", bundle.fingerprint()):
        raise EarwitnessError(f"{folder}: is about another {bundle.name}: its weights or thresholds have changed since")
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


def card(bundle: Bundle) -> str:
    """The model card in Markdown: what it is for, what it was trained on, how well it does, and what it does not do."""
    provenance = bundle.provenance
    return "\n".join(
        [
            f"# {bundle.name}",
            "",
            f"Hears {len(bundle.classes)} kinds of sound in a home: {', '.join(bundle.classes)}. "
            f"Looks at: {', '.join(bundle.modalities)}. The fusion CRNN of Boes & Van hamme (2021), trained by "
            "`earwitness-train fit` with the mean teacher on clips mixed from recordings; this is the teacher.",
            "",
            "## Scores",
            f"On clips mixed from recordings that it never saw; thresholds were tuned on others, {_tuned(provenance)}. "
            "F1 in percent, counted by sed_eval: clips, segments of 1 s, events (onset within 200 ms, offset within "
            "200 ms or 20 % of the event, whichever is more). Micro is F1 of all classes' counts together, macro the "
            "mean over classes; one that was never found counts as 0 in it.",
            "",
            *_scores(bundle.scores),
            "## What it was trained on",
            "Recordings by class (what was cut from one original counts once); none is both in the test part and in "
            "another:",
            "",
            *_recordings(provenance.get("recordings", {})),
            "Mixed by `earwitness-train corpus`; groups of recordings in its training clips, by source and licence:",
            "",
            "| source | licence | groups |",
            "|---|---|---:|",
            *(
                f"| {one['source']} | {one['licence']} | {one['recordings']} |"
                for one in provenance.get("trained_on", [])
            ),
            "",
            "Recordings under non-commercial licences were left out. No recording is part of the model or of this "
            "repository, but for those of the demo.",
            "",
            "## What it does not do",
            "- It was trained and measured on mixtures, not on real scenes: expect less in a real room.",
            "- Some classes were learned from a handful of recordings (see the table): a sound unlike them is missed.",
            "- It tells kinds of sound, not who or what: do not use it to decide about people, or as a safety alarm.",
            "",
            "## Training",
            f"{provenance.get('steps', '?')} steps. Every setting is in `bundle.json` under `provenance`.",
            "",
        ]
    )


def _tuned(provenance: Mapping[str, Any]) -> str:
    if provenance.get("corpus", {}).get("train_on_validation", False):
        return "before its last phase taught it these too"
    return "which it did not learn from either"


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for name, one in scores.items():
        if not name.startswith("test_"):
            continue
        report = Report.of_json(one)
        lines += [
            f"`--mode {name.removeprefix('test_')}` ({report.clips} clips):",
            "",
            f"    {one['command']}",
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
    return f"| {label} | {events} | {' | '.join(map(_percent, f1))} |"


def _recordings(parts: Mapping[str, Mapping[str, int]]) -> list[str]:
    labels = sorted({label for counts in parts.values() for label in counts})
    names = ("train", "validation", "test")
    rows = [f"| {label} | " + " | ".join(str(parts[name].get(label, 0)) for name in names) + " |" for label in labels]
    return ["| class | training | validation | test |", "|---|---:|---:|---:|", *rows, ""]


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.1f}"
