"""`earwitness-train export`: a trained network, tuned decoding and measured scores as a bundle for the daemon."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from streamer.errors import EarwitnessError
from streamer.events import Decoding
from streamer.model import Bundle, Crnn
from train.data.cache import CachedPart


def load_network(path: Path, classes: int, modalities: tuple[str, ...]) -> tuple[Crnn, int]:
    """The teacher of a `best.pt`, ready to detect, and the step it is from.

    Raises:
        EarwitnessError: the file is missing or is not one of `fit`'s.

    """
    try:
        state = torch.load(path, weights_only=True)
        network = Crnn(modalities, classes)
        network.load_state_dict(state["teacher"])
    except FileNotFoundError:
        raise EarwitnessError(f"{path}: there is no such file: run `earwitness-train fit` first") from None
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise EarwitnessError(
            f"{path}: is not a checkpoint of this network: {' '.join(str(error).split())[:200]}"
        ) from None
    return network.eval().requires_grad_(False), int(state["step"])


def bundle(
    name: str,
    network: Crnn,
    decoding: Decoding,
    part: CachedPart,
    provenance: Mapping[str, Any],
    scores: Mapping[str, Any],
) -> Bundle:
    """Put together what the daemon needs; the features' specs are those that `part` was computed with."""
    return Bundle(
        name,
        {modality: part.specs[modality] for modality in network.modalities},
        decoding,
        network.state_dict(),
        provenance=provenance,
        scores=scores,
    )


def provenance(corpus: Path, fit: Path, step: int) -> dict[str, Any]:
    """What a model was trained on: recordings by source and licence, and every setting.

    Raises:
        EarwitnessError: the corpus or the training run lacks a file.

    """
    try:
        made = json.loads((corpus / "corpus.json").read_text())
        settings = json.loads((fit / "fit.json").read_text())["phases"]
        with (corpus / "metadata" / "sources.tsv").open(newline="") as file:
            rows = [
                row for row in csv.DictReader(file, delimiter="\t") if row["part"] in ("train", "weak", "unlabeled")
            ]
    except (OSError, ValueError, KeyError) as error:
        raise EarwitnessError(f"{corpus} or {fit}: is not complete: {error}") from None
    groups = {(row["source"], row["licence"], row["use"], row["group"]) for row in rows}
    sources = Counter((source, licence, use) for source, licence, use, _ in groups)
    return {
        "steps": step,
        "fit": settings,
        "corpus": made["config"],
        "recordings": {
            part: {k: v for k, v in counts.items() if "/" not in k} for part, counts in made["recordings"].items()
        },
        "trained_on": [
            {"source": source, "licence": licence, "use": use, "recordings": count}
            for (source, licence, use), count in sorted(sources.items())
        ],
    }
