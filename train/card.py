"""`earwitness-train card`: puts what replay measured into a bundle, and writes its model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError

CARD = "MODEL_CARD.md"


def measured(folder: Path, bundle: Bundle) -> tuple[str, dict[str, Any]]:
    """The figures of one `earwitness replay --truth --report FOLDER`, and the name they go by.

    Raises:
        EarwitnessError: the report is missing, has no scores, or is another bundle's.

    """
    try:
        report = json.loads((folder / "scores.json").read_text())
        scores, mode = report["scores"], report["mode"]
    except (OSError, ValueError, KeyError) as error:
        raise EarwitnessError(f"{folder}: holds no report of `earwitness replay --report`: {error}") from None
    if not scores:
        raise EarwitnessError(f"{folder}: was replayed without --truth, so there is nothing to put into the bundle")
    if bundle.name not in str(report["bundle"]):
        raise EarwitnessError(f"{folder}: is about {report['bundle']}, not {bundle.name}")
    return f"test_{mode}", {"command": report["command"], "seconds": report["seconds"], **scores}


def with_scores(bundle: Bundle, reports: Mapping[str, Mapping[str, Any]]) -> Bundle:
    """The bundle with these figures beside or instead of those that it has."""
    return replace(bundle, scores={**bundle.scores, **reports})


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
            "F1 in percent, macro over classes; events by sed_eval (onset within 200 ms, offset within "
            "200 ms or 20 % of the event); a class that was never found counts as 0.",
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
        mode = name.removeprefix("test_")
        lines += [
            f"`--mode {mode}` ({one['clips']} clips): clip {_percent(one['clip_f1'])}, "
            f"segment {_percent(one['segment_f1'])}, event {_percent(one['event_f1'])}",
            "",
            f"    {one['command']}",
            "",
            "| class | events (n) | clip F1 | segment F1 | event F1 |",
            "|---|---:|---:|---:|---:|",
            *(
                f"| {label} | {row['event']['true']} | {_percent(row['clip']['f1'])} | "
                f"{_percent(row['segment']['f1'])} | {_percent(row['event']['f1'])} |"
                for label, row in one["classes"].items()
            ),
            "",
        ]
    return lines


def _recordings(parts: Mapping[str, Mapping[str, int]]) -> list[str]:
    labels = sorted({label for counts in parts.values() for label in counts})
    names = ("train", "validation", "test")
    rows = [f"| {label} | " + " | ".join(str(parts[name].get(label, 0)) for name in names) + " |" for label in labels]
    return ["| class | training | validation | test |", "|---|---:|---:|---:|", *rows, ""]


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.1f}"
