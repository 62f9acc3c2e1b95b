"""`earwitness-train export`: a trained network, tuned decoding and measured scores as a bundle for the daemon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.crnn import inputs_of
from streamer.networks.forms import FusionNetwork, network_of
from streamer.networks.stream_crnn import StreamForm
from streamer.provenance import Provenance
from streamer.replay.scoring import Report
from train.checkpoint import reading
from train.config import NetworkName
from train.data import cache
from train.data.dataset import Corpus, PartData
from train.evaluation import stored
from train.kept import find
from train.provenance import known_of
from train.run import FILE, Run
from train.split import check_split
from train.tuning import search
from train.tuning.ledger import Ledger, Material
from train.tuning.merit import Merit, groups_in


def load_network(
    path: Path, classes: int, modalities: tuple[str, ...], which: NetworkName, stream: StreamForm | None = None
) -> tuple[FusionNetwork, int]:
    """The teacher or the student in a `best.pt`, in evaluation mode, and its step; `stream`: of the stream form.

    Raises:
        EarwitnessError: the file is missing, damaged, was not written by `fit`, or has no student.

    """
    if not path.exists():
        raise EarwitnessError(f"{path}: there is no such file: run `earwitness-train fit` first")
    with reading(path) as state:
        if which not in state and "teacher" in state:
            raise EarwitnessError(
                f"{path}: was written by a version that kept the teacher alone: export that one, with --network teacher"
            )
        shapes, widths = inputs_of(state[which], modalities)
        network = network_of(state[which], shapes, classes, widths, stream)
        return network.eval().requires_grad_(False), int(state["step"])


def make(
    corpus: Corpus,
    features: Path,
    fit: Path,
    out: Path,
    name: str,
    weights: Path,
    workers: int,
    tuned: Bundle | None,
    network: NetworkName | None = None,
    tune: bool | None = None,
    checkpoint: str = "best",
) -> Report:
    """Write the teacher or student of `fit` as the bundle `out`, with thresholds and scores; returns its test scores.

    The thresholds are tuned on the validation clips, processed whole and as streams, or taken from the bundle `tuned`,
    or stay untuned: one threshold and one median filter for all classes.

    Args:
        corpus, features, fit: what `fit` was run with, and its folder.
        out, name: the bundle's folder and name.
        weights, workers: the folder of pretrained networks, and the number of processes.
        tuned: the bundle whose thresholds are taken.
        network: whose weights are exported; None: as the run's settings say.
        tune: whether to tune; None: as the run's settings say. Means nothing with `tuned`.
        checkpoint: which of the run's networks, as `kept.find` takes it.

    Raises:
        EarwitnessError: the run, the checkpoint, the corpus or its features are incomplete; the validation recordings
            were trained on; the run or `tuned` used another split; or `tuned` has other classes.
        BundleError, WeightsError, SourceError: as replay does.

    """
    summary, classes = corpus.summary, corpus.classes
    if tuned is not None and tuned.classes != classes:
        raise EarwitnessError(f"{tuned.name} has other classes than {corpus.folder}: its thresholds can't be used")
    run = Run.read(fit)
    if run is None:
        raise EarwitnessError(f"{fit / FILE}: there is no such file: run `earwitness-train fit` first")
    settings = run.settings()
    tune = tuned is None and (settings.tune if tune is None else tune)
    if tune and summary.trains_on_validation:
        raise EarwitnessError(
            f"{corpus.folder}: its validation recordings were trained on, so thresholds can't be tuned on them: use "
            "those of a bundle that was tuned before, with --decoding BUNDLE, or --no-tune"
        )
    if run.classes != classes:
        raise EarwitnessError(f"{fit}: was trained on other classes than those of {corpus.folder}")
    which = network or settings.network
    trained, step = load_network(find(fit, checkpoint), len(classes), run.modalities, which, settings.stream)
    certain = run.check_corpus(summary)
    if tuned is not None:
        check_split(known_of(tuned), summary)
    test = _part(corpus, "test", features, run)
    made = Bundle(
        name,
        {modality: test.features.specs[modality] for modality in run.modalities},
        stored.untuned(classes, settings) if tuned is None else tuned.decoding,
        trained.state_dict(),
        stream=settings.stream,
        provenance=msgspec.structs.replace(
            _provenance(corpus, run, step, certain=certain),
            network=which,
            decoding="tuned" if tune else "untuned" if tuned is None else tuned.provenance.decoding,
        ),
    )
    scores: dict[str, Any] = {}
    if tune:
        validation = _part(corpus, "validation", features, run)
        assert validation.truth is not None
        whole = stored.posteriors(trained, validation, progress=True)
        with TemporaryDirectory() as folder:  # `out` must never hold an untuned bundle
            made.save(Path(folder))
            streamed = stored.streamed_posteriors(Path(folder), weights, validation, workers)
        with Ledger(Material((tuple(whole), tuple(streamed)), validation.truth, classes), workers) as ledger:
            made = replace(made, decoding=search.tune(Merit(ledger, groups_in(summary, "validation"))))
        scores["validation_clip"] = stored.score(whole, validation.truth, made.decoding).json()
        scores["validation_stream"] = stored.score(streamed, validation.truth, made.decoding).json()
    clips = stored.posteriors(trained, test, progress=True)
    assert test.truth is not None
    report = stored.score(clips, test.truth, made.decoding)
    scores["test_clip"] = {"command": "earwitness-train evaluate --part test", **report.json()}
    replace(made, scores=scores).save(out)
    return report


def _part(corpus: Corpus, part: Literal["validation", "test"], features: Path, run: Run) -> PartData:
    data = corpus.part(part, features, run.modalities)
    cache.check_specs(data.features, run.specs, run.name)
    return data


def _provenance(corpus: Corpus, run: Run, step: int, *, certain: bool) -> Provenance:
    """The provenance of a model: its recordings by source and licence, and all settings."""
    summary = corpus.summary
    return Provenance(
        steps=step,
        phases=tuple(one for one in run.phases if one.from_step < step),
        corpus=summary.config,
        recordings={
            part: {label: len(names) for label, names in groups.items() if "/" not in label}
            for part, groups in summary.groups.items()
        },
        trained_on=corpus.sources(),
        split=None if run.split is None else run.split.json(),
        split_unchecked=run.split_unchecked or not certain,
    )
