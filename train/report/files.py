"""The folder that `earwitness-train evaluate --report` writes, and `compare` reads."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from streamer.errors import UsageError
from streamer.replay.counts import counts_tsv
from streamer.replay.truth import strong_tsv
from train.evaluated import FIGURES
from train.evaluation.measuring import Evaluation
from train.report.figures import figures
from train.report.page import Made, page

PAGE, GROUPS = "report.html", "groups.tsv"
COUNTS = {"clip": "counts-clip.tsv", "stream": "counts-stream.tsv"}
EVENTS = {"clip": "events-clip.tsv", "stream": "events-stream.tsv"}
"""By the mode of `earwitness replay` that does the same."""


def write(folder: Path, evaluation: Evaluation, made: Made) -> None:
    """Write the page, the figures, the counts and events of both ways, and the groups of recordings if they are known.

    Raises:
        UsageError: the folder can't be written.

    """
    texts = {
        FIGURES: msgspec.json.format(msgspec.json.encode(figures(evaluation)), indent=1).decode() + "\n",
        PAGE: page(evaluation, made),
    }
    for mode, way in (("clip", evaluation.offline), ("stream", evaluation.streaming)):
        texts[COUNTS[mode]] = counts_tsv(way.counts)
        texts[EVENTS[mode]] = strong_tsv({name: one.events for name, one in way.predictions.items()})
    if evaluation.groups.known:
        texts[GROUPS] = evaluation.groups.tsv(evaluation.offline.counts.names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / GROUPS).unlink(missing_ok=True)  # of an older report
        for name, text in texts.items():
            part = folder / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            os.replace(part, folder / name)
    except OSError as error:
        raise UsageError(f"--report {folder}: can't write: {error.strerror or error}") from None
