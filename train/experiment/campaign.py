"""Carries out an experiment: computes missing features, then trains and scores every run that is not finished."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamer.errors import ConfigError, EarwitnessError
from train.data import cache
from train.data.dataset import Corpus
from train.experiment import result
from train.experiment.executor import Executor
from train.experiment.job import Job
from train.experiment.plan import Plan, RunPlan
from train.experiment.standing import Standing
from train.files import replace
from train.learning.distillation import modalities_of
from train.lock import only_writer
from train.run import Run

FILE = "experiment.json"
_TELL_S = 60.0
_log = logging.getLogger(__name__)


class _Record(msgspec.Struct, frozen=True):
    """`experiment.json`: what all runs of an experiment have in common."""

    corpus: str  # its folder, for people
    corpus_sha256: str  # of its summary: settings, groups, parts


def carry_out(plan: Plan, weights: Path, workers: int, executor: Executor) -> Standing:
    """Carry out all runs that are not finished, and return what became of them. A finished run is never repeated.

    An interrupted or killed command is resumed by running it again: at the last checkpoint of each run. A run that
    fails does not stop the others.

    Args:
        plan: the experiment.
        weights: folder of pretrained networks.
        workers: processes that compute features; those of `executor` are its own.
        executor: where runs are carried out.

    Raises:
        EarwitnessError: another command works on the experiment; the corpus can't be read, or is another one; or a run
            was begun with other settings.

    """
    corpus = Corpus.read(plan.corpus)
    with only_writer(plan.out):
        _check_corpus(plan, corpus)
        standing = take_stock(plan, workers)
        if not standing.left:
            return standing
        _add_features(plan, corpus, standing.left, weights, workers)
        jobs = {run.name: _job(run, plan) for run in standing.left}
        runs = {run.name: run for run in standing.left}
        told_s = 0.0

        def watch(running: Sequence[Job]) -> None:
            nonlocal told_s
            if time.monotonic() - told_s >= _TELL_S:
                told_s = time.monotonic()
                _log.info("%s: %s", plan.name, standing.line(running))

        for ended in executor.run(tuple(jobs.values()), watch):
            run = runs[f"{ended.job.row}/{ended.job.seed}"]
            standing.ended(run, ended.error)
            if run.name in standing.failed:
                _log.warning("%s: run %s failed: %s", plan.name, run.name, standing.failed[run.name])
            told_s = 0.0
        _log.info("%s: %s", plan.name, standing.line(()))
    return standing


def prepare(plan: Plan, weights: Path, workers: int) -> None:
    """Compute the features of all rows that are not stored.

    Raises:
        EarwitnessError: the corpus can't be read, or its features can't be computed.

    """
    _add_features(plan, Corpus.read(plan.corpus), plan.runs, weights, workers)


def take_stock(plan: Plan, workers: int) -> Standing:
    """The state of all runs, by their folders.

    A run that was scored in another way is not finished: it is scored again, not trained again.

    Raises:
        EarwitnessError: a run was begun with other settings, or its files are damaged.

    """
    standing = Standing(plan, workers)
    scoring = plan.config.scoring.model_dump(mode="json")
    for run in plan.runs:
        done = result.read(run.folder)
        begun = Run.read(run.folder) if done is None else None
        before = done.settings if done is not None else begun.phases[-1].settings if begun and begun.phases else None
        changed = None if before is None else result.changed(before, run.settings)
        if changed is not None:
            raise EarwitnessError(
                f"{run.folder}: was trained with other settings ({changed}): name another folder with --out, or delete "
                "this one"
            )
        if done is not None and done.scoring == scoring:
            standing.finished[run.name] = done
    return standing


def _check_corpus(plan: Plan, corpus: Corpus) -> None:
    """Record the corpus, or check that it is the recorded one."""
    sha256 = hashlib.sha256(msgspec.json.encode(corpus.summary, order="deterministic")).hexdigest()
    path = plan.out / FILE
    try:
        known = msgspec.json.decode(path.read_bytes(), type=_Record)
    except FileNotFoundError:
        replace(path, msgspec.json.encode(_Record(str(plan.corpus), sha256)) + b"\n")
        return
    except msgspec.MsgspecError as error:
        raise EarwitnessError(f"{path}: is damaged ({error}): restore it, or name another folder with --out") from None
    if known.corpus_sha256 != sha256:
        raise EarwitnessError(
            f"{plan.out}: its runs were trained on another corpus ({known.corpus}) than {plan.corpus}, or that one was "
            "made anew: name another folder with --out"
        )


def _add_features(plan: Plan, corpus: Corpus, runs: Sequence[RunPlan], weights: Path, workers: int) -> None:
    """Compute the features that the runs need and that are not stored."""
    wanted: dict[Path, dict[str, tuple[str, Mapping[str, Any]]]] = {}  # folder -> modality -> a row and its spec
    for run in runs:
        of_folder = wanted.setdefault(run.features, {})
        for name in modalities_of(run.settings):
            spec = run.settings.features.get(name, {})
            other, known = of_folder.setdefault(name, (run.row, spec))
            if known != spec:
                raise ConfigError(
                    f"{plan.name}: rows {other} and {run.row} need different {name} features: give one of them a "
                    "folder of its own, with `features`"
                )
    for folder, its in wanted.items():
        folder.mkdir(parents=True, exist_ok=True)  # it remembers the hashes of the media
        media = corpus.media(folder)
        specs = {name: spec for name, (_, spec) in its.items() if spec}
        if not _complete(folder, media, list(its)):
            _log.info("%s: computing features: %s", folder, ", ".join(its))
            cache.add(folder, media, list(its), weights, workers, specs, tolerant=corpus.partial)


def _complete(folder: Path, media: Mapping[Path, str], modalities: Sequence[str]) -> bool:
    broken = cache.broken(folder)
    try:
        cache.read(folder, {path: sha256 for path, sha256 in media.items() if sha256 not in broken}, modalities)
    except EarwitnessError:
        return False
    return True


def _job(run: RunPlan, plan: Plan) -> Job:
    return Job(run.row, run.seed, run.settings, plan.config.scoring, plan.corpus, run.features, run.folder)
