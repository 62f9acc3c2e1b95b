"""`earwitness-train fit`: the training loop, from top to bottom."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.backends import use_threads
from streamer.networks.forms import FusionNetwork
from streamer.provenance import Phase
from train import checkpoint, curves, manifest, validation
from train.checkpoint import Best, Learner
from train.config import FitConfig, Kind
from train.data import cache, targets
from train.data.config import Part
from train.data.dataset import Corpus, PartData
from train.data.loader import Labelled, Loader
from train.kept import Kept
from train.learning.augment import unused
from train.learning.distillation import Guides, StoredGuide, modalities_of
from train.learning.distributed import joined
from train.learning.mean_teacher import learning_rate
from train.learning.pseudo_labels import Labeller
from train.learning.runner import Runner, new_learner, prepared
from train.learning.step import learn
from train.learning.student import new_student
from train.lock import only_writer
from train.provenance import environment
from train.run import Run, new_run

_log = logging.getLogger(__name__)
_KINDS: dict[Kind, Part] = {"strong": "train", "weak": "weak", "unlabeled": "unlabeled"}


def fit(
    corpus: Corpus,
    features: Path,
    out: Path,
    config: FitConfig,
    begin: Bundle | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Train a student and its mean teacher; `out/best.pt` has both, as of the best validation scores or the last step.

    Resumes from `out/checkpoint.pt` if it exists, else starts from the bundle `begin`, else from random weights.
    Also writes TensorBoard events, `log.jsonl` (one line per validation), `curves.png` (the same as a picture),
    `fit.json` (the run and its phases), `manifest.tsv` (every hyperparameter, with its section of the paper), and the
    networks that `train.kept` describes. Started by torchrun, its processes share the work
    (`train.learning.distributed`).
    `progress` gets the number of every finished step.

    Raises:
        EarwitnessError: features or annotations are missing or do not match the clips; the run to resume is damaged,
            has another network or features, or used a corpus with another split; a bundle to learn from is not fit
            for this corpus; there is no such device; or another process of the run has ended.

    """
    torch.manual_seed(config.seed)
    torch.set_flush_denormal(True)  # denormals carry no information and are a hundred times slower
    if config.threads:
        use_threads(config.threads)
    with joined(config.device) as group, ExitStack() as stack:
        needed = modalities_of(config)
        data = read_parts(corpus, features, needed, config)
        judged = corpus.part("validation", features, config.modalities)
        labelled = data.get("strong", data.get("weak"))  # every configuration has at least one of them
        assert labelled is not None
        stored = labelled.part.features
        specs = {name: config.features[name] for name in config.modalities if name in config.features}
        cache.check_specs(stored, specs, "the configuration", partial=True)
        guides = Guides.read(config, corpus.summary, group.device)
        if guides is not None:
            guides.check(stored)
        heard = {*config.modalities, *(name for one in (guides.bundles if guides else ()) for name in one.modalities)}
        for name in unused(heard, config):
            _log.warning("%s has no effect here: it needs%s spectral cells", name, " only" if name == "mixup" else "")
        guide = StoredGuide.of_run(corpus.summary, stored) if config.distil_stored else guides
        labeller = Labeller.of_run(config, corpus.classes, stored)
        student = new_student(stored, labelled.target, len(corpus.classes), config)
        learner = new_learner(student, config, group.device)
        goes_on = False
        if group.leads:
            stack.enter_context(only_writer(out))
            goes_on = _take_up(
                out, learner, corpus, [*(one.part for one in data.values()), judged], config, begin, guide
            )
        if not group.share(goes_on):
            return
        if group.size > 1:
            learner.restore(group.share(learner.state()))
            if learner.step < config.frozen_until:
                raise EarwitnessError("frozen_until works in a single process: start this phase without torchrun")
        loader = Loader(
            data, len(corpus.classes), config, learner.rng,
            rank=group.rank, world=group.size, labeller=labeller, unheard=set(needed) - heard,
        )  # fmt: skip
        runner = prepared(learner, config, group, loader.rows)
        with loader:
            _train(out, learner, runner, loader, guide, judged, corpus, config, progress)


def _take_up(
    out: Path,
    learner: Learner,
    corpus: Corpus,
    data: list[PartData],
    config: FitConfig,
    begin: Bundle | None,
    guide: Guides | StoredGuide | None,
) -> bool:
    """Resume the run, or start it, and record the phase in `fit.json`; False if nothing is left to do."""
    run: Run | None = None
    resumed = learner.load(out)
    if resumed:
        run = Run.read(out)
        if run is None:
            raise EarwitnessError(f"{out}: has a checkpoint but no fit.json, which describes the run: restore it")
        if begin is not None:
            _log.info("%s: resuming the existing run; --from %s is ignored", out, begin.name)
    elif begin is not None:
        run = Run.of_bundle(begin)
        learner.step = run.steps
    summary = corpus.summary
    specs = {name: data[0].features.specs[name] for name in cache.in_order(config.modalities)}
    seen = [one.sha256 for one in data] + ([guide.sha256] if isinstance(guide, Guides) else [])
    phase = Phase(
        from_step=learner.step,
        corpus=summary.config,
        data_sha256=hashlib.sha256("".join(seen).encode()).hexdigest(),
        environments=(environment(learner.step),),
        settings=config.model_dump(mode="json"),
    )
    now = new_run(out, phase, summary, specs) if run is None else run.taken_up(phase, summary, specs)
    for known, certain in guide.teachers if guide else ():
        now = now.taught_by(known, certain=certain)
    if resumed:
        if len(now.phases) > 1 and now.phases[-1].from_step == learner.step:
            learner.change_settings(config, reseed=now.phases[-2].settings.get("seed") != config.seed)
    elif begin is not None:
        learner.start_from(begin, learner.step)
    if learner.step >= config.steps:
        _log.info("%s: already has %d steps; the configuration asks for %d", out, learner.step, config.steps)
        return False
    now.write(out)
    rows = manifest.rows_of(config, learner.student, learner.optimiser, specs)
    manifest.write(out, rows)
    _log.info("%s: every hyperparameter, with its section of the paper:\n%s", out, manifest.table(rows))
    learner.best.save(out)
    Kept(learner.kept).tidy(out, learner.step if resumed else -1)
    checkpoint.trim_log(out, learner.step if resumed else -1)
    if not resumed:
        learner.save(out)
    return True


def _train(
    out: Path,
    learner: Learner,
    runner: Runner,
    loader: Loader,
    guide: Guides | StoredGuide | None,
    judged: PartData,
    corpus: Corpus,
    config: FitConfig,
    progress: Callable[[int], None] | None,
) -> None:
    leads = runner.group.leads
    # purge_step drops what a killed run wrote after its checkpoint.
    board = SummaryWriter(out, purge_step=learner.step + 1) if leads else None
    started = time.monotonic()
    bar = tqdm(total=config.steps, initial=learner.step, desc="fit", unit="step", mininterval=5, disable=not leads)
    while learner.step < config.steps:
        learned = learn(learner, runner, next(loader), guide, config)
        step = learner.step

        bar.update(1)
        if progress is not None:
            progress(step)
        bar.set_postfix(cost=f"{learned.cost:.3f}", refresh=False)
        if not math.isfinite(learned.cost):
            raise EarwitnessError(
                f"{out}: the cost became {learned.cost} at step {step}: lower learning_rate and start again"
            )
        for name, value in {**learned.weighted, "total": learned.cost}.items():
            learner.sums[name] = learner.sums.get(name, 0.0) + value
        learner.summed += 1
        if board is not None and step % 10 == 0:
            board.add_scalar("learning_rate", learning_rate(step, config), step)
            for name, value in {**learned.terms, "total": learned.cost}.items():
                board.add_scalar(f"cost/{name}", value, step)
        if step % config.validate_every == 0 or step == config.steps:
            if board is not None:
                network = learner.teacher if config.network == "teacher" else learner.student
                report = validation.as_the_paper(network, judged, corpus.classes, config)
                figures = validation.figures_of(report)
                row = {
                    "step": step,
                    "seconds": round(time.monotonic() - started),
                    "waited_for_data_s": round(loader.waited_s, 3),
                    "learning_rate": learning_rate(step - 1, config),  # of the step just done, as are the costs
                    "cost": learned.cost,
                    "costs": dict(learned.terms),
                    "mean_costs": {name: total / learner.summed for name, total in learner.sums.items()},
                    "subset_sha256": report.subset_sha256,
                    "scored": validation.shown_paper(config),
                    **figures,
                }
                if config.product_every and (step % config.product_every == 0 or step == config.steps):
                    groups = {label: len(names) for label, names in corpus.summary.groups["validation"].items()}
                    report = validation.as_the_product(network, judged, corpus.classes, groups, config)
                    row["product"] = {"scored": validation.shown_product(), **validation.figures_of(report)}
                _report(out, board, row)
                networks = {"teacher": _copied(learner.teacher), "student": _copied(learner.student)}
                state = {**networks, "step": step, "validation": figures}
                merit = validation.merit_of(figures)
                kept = Kept(learner.kept).plus(merit, step, config.keep_best)
                kept.save(out, state)
                learner.kept = kept.rows
                if merit > learner.best.merit or config.keep == "last":
                    learner.best = Best(merit, state)
                    learner.best.save(out)
            learner.sums, learner.summed = {}, 0
        if leads and (step % config.checkpoint_every == 0 or step == config.steps):
            learner.save(out)
            Kept(learner.kept).tidy(out, step)
    bar.close()
    if board is not None:
        board.close()
    _log.info("the steps waited %.2f of %.0f s for data", loader.waited_s, time.monotonic() - started)


def _report(out: Path, board: SummaryWriter, row: dict[str, object]) -> None:
    """Append a validation to the log, to TensorBoard and to the picture of the curves, and print it."""
    with (out / checkpoint.LOG).open("a") as file:
        file.write(json.dumps(row) + "\n")
    curves.draw(out)
    product = row.get("product", {})
    assert isinstance(product, dict)
    for prefix, figures in (("", row), ("product_", product)):
        found = {name: value for name, value in figures.items() if "_f1_" in name and isinstance(value, float)}
        for name, value in found.items():
            board.add_scalar(f"{prefix}validation/{name}", value, row["step"])
        if found:
            shown = ", ".join(f"{name} {100 * value:.2f}" for name, value in found.items())
            tqdm.write(f"step {row['step']}, {figures['scored']}: {shown}")


def _copied(network: FusionNetwork) -> dict[str, Tensor]:
    return {name: value.cpu().clone() for name, value in network.state_dict().items()}


def read_parts(corpus: Corpus, features: Path, modalities: Sequence[str], config: FitConfig) -> dict[Kind, Labelled]:
    """The clips of each kind that `config.batch` has, with their targets. Raises as `Corpus.part`."""
    return {
        kind: _read(corpus, features, part, modalities) for kind, part in _KINDS.items() if config.batch.get(kind, 0)
    }


def _read(corpus: Corpus, features: Path, part: Part, modalities: Sequence[str]) -> Labelled:
    data = corpus.part(part, features, modalities)
    if data.truth is None or part == "unlabeled":
        return Labelled(data, np.zeros((len(data), 0), np.float32))
    if part == "weak":
        return Labelled(data, targets.weak(data.truth, data.rows, corpus.classes))
    cells = int(data.features.cells.max())
    return Labelled(data, targets.strong(data.truth, data.rows, corpus.classes, cells))
