"""`earwitness-train export`: a trained network, tuned decoding and measured scores as a bundle for the daemon."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.crnn import Crnn, inputs_of
from streamer.replay.scoring import Report
from streamer.replay.truth import read_truth
from train import evaluate
from train.checkpoint import check_split
from train.data import cache
from train.data.corpus import read_summary


def load_network(path: Path, classes: int, modalities: tuple[str, ...]) -> tuple[Crnn, int]:
    """The teacher of a `best.pt`, ready to detect, and the step it is from.

    Raises:
        EarwitnessError: the file is missing or is not one of `fit`'s.

    """
    try:
        state = torch.load(path, weights_only=True)
        shapes, widths = inputs_of(state["teacher"], modalities)
        network = Crnn(shapes, classes, widths)
        network.load_state_dict(state["teacher"])
    except FileNotFoundError:
        raise EarwitnessError(f"{path}: there is no such file: run `earwitness-train fit` first") from None
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise EarwitnessError(
            f"{path}: is not a checkpoint of this network: {' '.join(str(error).split())[:200]}"
        ) from None
    return network.eval().requires_grad_(False), int(state["step"])


def make(
    corpus: Path, features: Path, fit: Path, out: Path, name: str, weights: Path, workers: int, tuned: Bundle | None
) -> Report:
    """Write the best teacher of `fit` as the bundle `out`, with thresholds and scores: its scores on the test clips.

    Thresholds are tuned on the validation clips, heard whole and as streams, or are those of the bundle `tuned`.

    Raises:
        EarwitnessError: the run, the corpus or its features are not complete; the validation recordings were
            trained on, the run knows another split, or `tuned` has other classes.
        BundleError, WeightsError, SourceError: as replay does.

    """
    summary = read_summary(corpus)
    classes = tuple(summary["config"]["classes"])
    if tuned is not None and tuned.classes != classes:
        raise EarwitnessError(f"{tuned.name} has other classes than {corpus}: its thresholds can't be taken")
    if tuned is None and summary["config"].get("train_on_validation", False):
        raise EarwitnessError(
            f"{corpus}: its validation recordings were trained on, so they can't tune thresholds: take those of a "
            "bundle that was tuned before, with --decoding BUNDLE"
        )
    modalities = tuple(_setting(fit, "modalities"))
    network, step = load_network(fit / "best.pt", len(classes), modalities)
    check_split(str(fit), _setting(fit, "phases"), summary["config"])
    test = cache.read(features / "test", modalities)
    made = Bundle(
        name,
        {modality: test.specs[modality] for modality in modalities},
        evaluate.default_decoding(classes) if tuned is None else tuned.decoding,
        network.state_dict(),
        provenance=provenance(corpus, fit, step),
    )
    scores: dict[str, Any] = {}
    if tuned is None:
        made.save(out)
        validation = cache.read(features / "validation", modalities)
        truth = read_truth(corpus / "metadata" / "validation.tsv")
        whole = evaluate.posteriors(network, validation, progress=True)
        audio = corpus / "audio" / "validation"
        streamed = evaluate.streamed_posteriors(out, weights, audio, validation.names, workers)
        groups = {label: len(names) for label, names in summary["groups"]["validation"].items()}
        made = replace(made, decoding=evaluate.tune([whole, streamed], truth, classes, groups))
        scores["validation_clip"] = evaluate.score(whole, truth, made.decoding).json()
        scores["validation_stream"] = evaluate.score(streamed, truth, made.decoding).json()
    clips = evaluate.posteriors(network, test, progress=True)
    report = evaluate.score(clips, read_truth(corpus / "metadata" / "test.tsv"), made.decoding)
    scores["test_clip"] = {"command": "earwitness-train evaluate --part test", **report.json()}
    replace(made, scores=scores).save(out)
    return report


def provenance(corpus: Path, fit: Path, step: int) -> dict[str, Any]:
    """What a model was trained on: recordings by source and licence, and every setting.

    Raises:
        EarwitnessError: the corpus or the training run lacks a file.

    """
    try:
        with (corpus / "metadata" / "sources.tsv").open(newline="") as file:
            rows = [
                row for row in csv.DictReader(file, delimiter="\t") if row["part"] in ("train", "weak", "unlabeled")
            ]
    except (OSError, ValueError, KeyError) as error:
        raise EarwitnessError(f"{corpus}: is not complete: {error}") from None
    made, settings = read_summary(corpus), _setting(fit, "phases")
    groups = {(row["source"], row["licence"], row["use"], row["group"]) for row in rows}
    sources = Counter((source, licence, use) for source, licence, use, _ in groups)
    return {
        "steps": step,
        "fit": settings,
        "corpus": made["config"],
        "recordings": {
            part: {label: len(names) for label, names in groups.items() if "/" not in label}
            for part, groups in made["groups"].items()
        },
        "trained_on": [
            {"source": source, "licence": licence, "use": use, "recordings": count}
            for (source, licence, use), count in sorted(sources.items())
        ],
    }


def _setting(fit: Path, name: str) -> Any:
    """A field of the run's `fit.json`."""
    try:
        return json.loads((fit / "fit.json").read_text())[name]
    except (OSError, ValueError, KeyError) as error:
        raise EarwitnessError(f"{fit}: is not a run of `earwitness-train fit`: {error}") from None
