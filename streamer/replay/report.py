"""The files of `earwitness replay --report`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.escapes import escaped
from streamer.replay.replayer import ClipResult
from streamer.replay.scoring import Report
from streamer.replay.truth import strong_tsv, weak_tsv
from streamer.types import CELL, SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """One replay: what was asked, what was found, and how right it was."""

    command: str
    mode: str
    bundle: str
    classes: tuple[str, ...]
    results: Sequence[ClipResult]
    broken: Sequence[str]  # a line for each clip that could not be replayed
    truth: str | None
    scores: Report | None


def make_folder(folder: Path) -> None:
    """Make the report's folder before the work begins. Raises `UsageError` if it can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--report {folder}: can't make the folder: {error.strerror}") from None


def write_report(folder: Path, report: ReplayReport, *, scores: bool) -> None:
    """Write `events.tsv`, `tags.tsv`, `scores.json`, `report.md`, and with `scores` the cells' `scores.npz`.

    `scores.npz` holds an array (cells, classes) for each clip by its name, and `classes`.
    Raises `UsageError` if a file can't be written.
    """
    texts = {
        "events.tsv": strong_tsv({result.name: result.events for result in report.results}),
        "tags.tsv": weak_tsv({result.name: result.tags for result in report.results}),
        "scores.json": json.dumps(_json(report), indent=1, ensure_ascii=False) + "\n",
        "report.md": _markdown(report),
    }
    try:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        if scores:
            arrays = {escaped(result.name): result.scores for result in report.results}
            _write_npz(folder / "scores.npz", {"classes": np.array(report.classes), **arrays})
    except OSError as error:
        raise UsageError(f"--report {folder}: can't write: {error.strerror}") from None


def _write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """What `np.savez_compressed` writes; its parameters are names that no array could have (`file`)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _json(report: ReplayReport) -> dict[str, Any]:
    cells = sum(result.coverage.cells for result in report.results)
    covered = sum(result.coverage.covered for result in report.results)
    return {
        "command": report.command,
        "bundle": report.bundle,
        "mode": report.mode,
        "truth": report.truth,
        "clips": len(report.results),
        "seconds": round(sum(result.duration_s for result in report.results), 3),
        "events": sum(len(result.events) for result in report.results),
        "coverage": covered / cells if cells else None,
        "broken": list(report.broken),
        "scores": report.scores.json() if report.scores else None,
        "tags": {
            escaped(result.name): {
                label: round(float(score), 6) for label, score in zip(report.classes, result.tag_scores, strict=True)
            }
            for result in report.results
        },
    }


def _markdown(report: ReplayReport) -> str:
    seconds = sum(result.duration_s for result in report.results)
    events = sum(len(result.events) for result in report.results)
    lines = [
        "# Replay",
        "",
        f"- command: `{report.command}`",
        f"- model: {report.bundle}, mode: {report.mode}",
        f"- {len(report.results)} clips, {seconds:.1f} s, {events} events",
    ]
    if report.broken:
        lines += [f"- {len(report.broken)} clips could not be replayed and are in no figure:"]
        lines += [f"  - {line}" for line in report.broken]
    if report.scores:
        lines += [
            "",
            f"F1 in percent against {report.truth}, by sed_eval: clips, segments of 1 s, events (onset within 200 ms, "
            "offset within 200 ms or 20 % of the event, whichever is more). Macro means are over the classes that the "
            "truth holds; one that was never found counts as 0.",
            "",
            report.scores.table(),
        ]
    lines += ["", f"A cell of `scores.npz` is {CELL / SAMPLE_RATE_HZ * 1000:.2f} ms.", ""]
    return "\n".join(lines)
