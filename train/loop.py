"""`earwitness-train fit`: the training loop, from top to bottom."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.backends import use_threads
from streamer.networks.crnn import Crnn, default_widths
from streamer.networks.inputs import EmbeddingInput, SpectralInput
from streamer.provenance import Phase
from streamer.replay.scoring import KINDS
from streamer.types import Floats
from train import checkpoint, manifest
from train.augment import unused
from train.checkpoint import Best, Learner
from train.config import FitConfig, Kind, Part
from train.data import cache, targets
from train.data.dataset import Corpus, PartData
from train.data.loader import Labelled, Loader
from train.evaluate import posteriors, score, untuned
from train.lock import only_writer
from train.mean_teacher import costs, follow, learning_rate, new_teacher, ramp
from train.provenance import environment
from train.run import Run, new_run

_log = logging.getLogger(__name__)
_KINDS: dict[Kind, Part] = {"strong": "train", "weak": "weak", "unlabeled": "unlabeled"}


def fit(corpus: Corpus, features: Path, out: Path, config: FitConfig, begin: Bundle | None = None) -> None:
    """Train a student and its mean teacher; `out/best.pt` has both, as of the best validation scores or the last step.

    Resumes from `out/checkpoint.pt` if it exists, else starts from the bundle `begin`, else from random weights.
    Also writes TensorBoard events, `log.jsonl` (one line per validation), `fit.json` (the run and its phases) and
    `manifest.tsv` (every hyperparameter, with its section of the paper).

    Raises:
        EarwitnessError: features or annotations are missing or do not match the clips; or the run to resume is
            damaged, has another network or features, or used a corpus with another split.

    """
    torch.manual_seed(config.seed)
    torch.set_flush_denormal(True)  # denormals carry no information and are a hundred times slower
    if config.threads:
        use_threads(config.threads)
    data = {
        kind: _read(corpus, features, part, config.modalities)
        for kind, part in _KINDS.items()
        if config.batch.get(kind, 0)
    }
    validation = corpus.part("validation", features, config.modalities)
    labelled = data.get("strong", data.get("weak"))  # every configuration has at least one of them
    assert labelled is not None
    shapes = labelled.part.features.shapes
    strange = [name for name in config.widths if len(shapes.get(name, ())) != 1]
    if strange:
        raise EarwitnessError(f"widths: {', '.join(strange)} are not among this run's embeddings")
    for name in unused(shapes, config):
        _log.warning("%s has no effect here: it needs%s spectral cells", name, " only" if name == "mixup" else "")
    specs = {name: config.features[name] for name in shapes if name in config.features}
    cache.check_specs(labelled.part.features, specs, "the configuration", partial=True)
    student = Crnn(shapes, len(corpus.classes), {**default_widths(shapes), **config.widths}, config.dropouts).to(
        memory_format=torch.channels_last
    )
    student.reduced_precision = config.reduced_precision
    _standardise(student, labelled.part.features)
    if config.bias_priors:
        _expect_priors(student, labelled.target)
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimiser]
    optimiser = make(student.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    learner = Learner(student, new_teacher(student), optimiser, np.random.default_rng(config.seed))
    with only_writer(out):
        if _take_up(out, learner, corpus, [*(one.part for one in data.values()), validation], config, begin):
            with Loader(data, len(corpus.classes), config, learner.rng) as loader:
                _train(out, learner, loader, validation, corpus.classes, config)


def _take_up(
    out: Path, learner: Learner, corpus: Corpus, data: list[PartData], config: FitConfig, begin: Bundle | None
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
    summary, specs = corpus.summary, data[0].features.specs
    phase = Phase(
        from_step=learner.step,
        corpus=summary.config,
        data_sha256=hashlib.sha256("".join(one.sha256 for one in data).encode()).hexdigest(),
        environments=(environment(learner.step),),
        settings=config.model_dump(mode="json"),
    )
    now = new_run(out, phase, summary, specs) if run is None else run.taken_up(phase, summary, specs)
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
    checkpoint.trim_log(out, learner.step if resumed else -1)
    if not resumed:
        learner.save(out)
    return True


def _train(
    out: Path,
    learner: Learner,
    loader: Loader,
    validation: PartData,
    classes: tuple[str, ...],
    config: FitConfig,
) -> None:
    student, teacher, optimiser = learner.student, learner.teacher, learner.optimiser
    board = SummaryWriter(out, purge_step=learner.step + 1)  # drops what a killed run wrote after its checkpoint
    started = time.monotonic()
    assert validation.truth is not None  # only unlabelled parts have none
    bar = tqdm(total=config.steps, initial=learner.step, desc="fit", unit="step", mininterval=5)
    while learner.step < config.steps:
        step = learner.step
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        drawn = next(loader)
        batch = drawn.batch
        valid = torch.stack(list(batch.valid.values())).any(dim=0)

        student.train()
        student_out = student(drawn.student, batch.valid)
        with torch.no_grad():
            teacher_out = teacher(batch.features, batch.valid)
        parts = costs(student_out, teacher_out, batch, valid, config)
        consistency_weight = ramp(step, config) if config.consistency_ramp else 1.0
        cost = (
            parts["frames"]
            + parts["clips"]
            + consistency_weight * config.consistency_frames * parts["consistency_frames"]
            + consistency_weight * config.consistency_clip * parts["consistency_clips"]
        )
        optimiser.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        if config.clip_gradient:
            torch.nn.utils.clip_grad_norm_(student.parameters(), config.clip_gradient)
        optimiser.step()
        cost = cost.detach()
        follow(teacher, student, step, config)
        learner.step = step = step + 1

        bar.update(1)
        bar.set_postfix(cost=f"{float(cost):.3f}", refresh=False)
        if not torch.isfinite(cost):
            raise EarwitnessError(
                f"{out}: the cost became {float(cost)} at step {step}: lower learning_rate and start again"
            )
        if step % 10 == 0:
            board.add_scalar("learning_rate", learning_rate(step, config), step)
            for name, part in {**parts, "total": cost}.items():
                board.add_scalar(f"cost/{name}", float(part.detach()), step)
        if step % config.validate_every == 0 or step == config.steps:
            judged = (teacher if config.network == "teacher" else student).eval()
            judged.reduced_precision = False
            report = score(posteriors(judged, validation), validation.truth, untuned(classes, config))
            judged.reduced_precision = config.reduced_precision
            macro = {f"{kind}_f1_macro": report.macro_f1(kind) or 0.0 for kind in KINDS}
            figures = {**macro, **{f"{kind}_f1_micro": report.micro_f1(kind) or 0.0 for kind in KINDS}}
            for name, value in figures.items():
                board.add_scalar(f"validation/{name}", value, step)
            merit = sum(macro.values()) / 3
            row = {
                "step": step,
                "seconds": round(time.monotonic() - started),
                "waited_for_data_s": round(loader.waited_s, 3),
                "learning_rate": learning_rate(step - 1, config),  # of the step just done, as are the costs
                "cost": float(cost),
                "costs": {name: float(part.detach()) for name, part in parts.items()},
                "subset_sha256": report.subset_sha256,
                **figures,
            }
            with (out / checkpoint.LOG).open("a") as file:
                file.write(json.dumps(row) + "\n")
            tqdm.write(f"step {step}: " + ", ".join(f"{name} {100 * value:.2f}" for name, value in figures.items()))
            if merit > learner.best.merit or config.keep == "last":
                networks = {"teacher": _copied(teacher), "student": _copied(student)}
                learner.best = Best(merit, {**networks, "step": step, "validation": figures})
                learner.best.save(out)
        if step % config.checkpoint_every == 0 or step == config.steps:
            learner.save(out)
    bar.close()
    board.close()
    took_s = time.monotonic() - started
    _log.info("the steps waited %.2f of %.0f s for data", loader.waited_s, took_s)


def _copied(network: Crnn) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _read(corpus: Corpus, features: Path, part: Part, modalities: tuple[str, ...]) -> Labelled:
    data = corpus.part(part, features, modalities)
    if data.truth is None or part == "unlabeled":
        return Labelled(data, np.zeros((len(data), 0), np.float32))
    if part == "weak":
        return Labelled(data, targets.weak(data.truth, data.rows, corpus.classes))
    cells = int(data.features.cells.max())
    return Labelled(data, targets.strong(data.truth, data.rows, corpus.classes, cells))


def _standardise(network: Crnn, features: cache.Features, most_clips: int = 1000) -> None:
    """Set the mean and standard deviation of each input, per bin, from valid cells of the training clips."""
    clips = np.flatnonzero(features.cells)
    rows = clips[np.linspace(0, len(clips) - 1, min(most_clips, len(clips))).astype(int)]
    for name in network.modalities:
        module = network.spectral_input if name == network.spectral else network.embeddings[name]
        assert isinstance(module, SpectralInput | EmbeddingInput)
        total, square, count = torch.zeros_like(module.mean).double(), torch.zeros_like(module.mean).double(), 0
        for row in rows:
            clip, flags = features.batch([row], int(features.cells[row]))
            values, valid = clip[name], flags[name]
            cells = module.log(values, valid) if isinstance(module, SpectralInput) else values
            bins = cells[valid].flatten(0, -2).double()
            total, square, count = total + bins.sum(0), square + bins.square().sum(0), count + len(bins)
        if count == 0:
            raise EarwitnessError(f"none of the training clips has a valid cell of {name}: train without it")
        mean = total / count
        module.mean.copy_(mean)
        module.std.copy_((square / count - mean.square()).clamp_min(1e-8).sqrt())


def _expect_priors(network: Crnn, target: Floats) -> None:
    """Set the output bias to each class's share of the cells, which saves the first hundreds of steps."""
    share = torch.from_numpy(target).flatten(0, -2).mean(dim=0).clamp(1e-3, 0.5)
    with torch.no_grad():
        network.classify.bias.copy_(torch.logit(share))
