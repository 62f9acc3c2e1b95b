"""`earwitness-train fit`: the training loop, from top to bottom."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.networks.crnn import Crnn
from streamer.networks.inputs import EmbeddingInput, SpectralInput
from streamer.replay.truth import read_truth
from streamer.types import Floats
from train import checkpoint
from train.augment import Batch, augment, blanked
from train.config import FitConfig, Kind, Part
from train.data import cache, targets
from train.data.corpus import read_summary
from train.evaluate import default_decoding, posteriors, score
from train.mean_teacher import costs, follow, learning_rate, new_teacher, ramp

_KINDS: dict[Kind, Part] = {"strong": "train", "weak": "weak", "unlabeled": "unlabeled"}


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A part with its targets: (clips, cells, classes), (clips, classes), or none."""

    part: cache.CachedPart
    target: Floats


def fit(
    corpus: Path, features: Path, out: Path, classes: tuple[str, ...], config: FitConfig, begin: Bundle | None = None
) -> None:
    """Train a mean teacher and its student; the best teacher by validation is `out/best.pt`.

    Continues from `out/checkpoint.pt` where there is one, else from the bundle `begin`, else from nothing.
    `out` also gets TensorBoard's events and `log.jsonl`, a line a validation.

    Raises:
        EarwitnessError: features or annotations are missing, or the checkpoint is of another configuration, or
            `begin` of another network, or its training recordings are among those to be judged by.

    """
    torch.manual_seed(config.seed)
    torch.set_flush_denormal(True)  # numbers that small tell nothing and cost a processor a hundred times the others
    rng = np.random.default_rng(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    data = {
        kind: _read(corpus, features, part, classes, config)
        for kind, part in _KINDS.items()
        if config.batch.get(kind, 0)
    }
    validation = cache.read(features / "validation", config.modalities)
    truth = read_truth(corpus / "metadata" / "validation.tsv")

    student = Crnn(data["strong"].part.shapes, len(classes), dropout=config.dropout).to(
        memory_format=torch.channels_last
    )
    student.reduced_precision = config.reduced_precision
    _standardise(student, data["strong"].part)
    _expect_priors(student, data["strong"].target)
    teacher = new_teacher(student)
    optimiser = torch.optim.AdamW(student.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)

    out.mkdir(parents=True, exist_ok=True)
    mixed = read_summary(corpus)["config"]
    step, best = checkpoint.resume(out, student, teacher, optimiser, rng)
    if step == 0 and begin is not None:
        step = checkpoint.begin_with(begin, out, student, teacher, classes, mixed)
    checkpoint.note_settings(out, step, student, classes, {**config.model_dump(mode="json"), "corpus": mixed})
    board = SummaryWriter(out)
    started = time.monotonic()
    bar = tqdm(total=config.steps, initial=step, desc="fit", unit="step", mininterval=5)
    while step < config.steps:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        batch = augment(_draw(data, config, rng), config, rng)
        valid = torch.stack(list(batch.valid.values())).any(dim=0)

        student.train()
        said = student(blanked(batch, config, rng), batch.valid)
        with torch.no_grad():
            taught = teacher(batch.features, batch.valid)
        parts = costs(said, taught, batch, valid, config)
        trust = ramp(step, config) if config.consistency_ramp else 1.0
        cost = (
            parts["frames"]
            + parts["clips"]
            + trust * config.consistency_frames * parts["consistency_frames"]
            + trust * config.consistency_clip * parts["consistency_clips"]
        )
        optimiser.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        cost = cost.detach()
        follow(teacher, student, step, config)
        step += 1

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
            teacher.reduced_precision = False
            report = score(posteriors(teacher, validation), truth, default_decoding(classes))
            teacher.reduced_precision = config.reduced_precision
            figures = {"clip_f1": report.clip_f1, "segment_f1": report.segment_f1, "event_f1": report.event_f1}
            for name, value in figures.items():
                board.add_scalar(f"validation/{name}", value, step)
            merit = sum(figures.values()) / 3
            row = {"step": step, "seconds": round(time.monotonic() - started), "cost": float(cost), **figures}
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            tqdm.write(f"step {step}: " + ", ".join(f"{name} {100 * value:.2f}" for name, value in figures.items()))
            if merit > best or config.keep == "last":
                best = merit
                checkpoint.save(out / "best.pt", {"teacher": teacher.state_dict(), "step": step, "validation": figures})
        if step % config.checkpoint_every == 0 or step == config.steps:
            state = {
                "student": student.state_dict(),
                "teacher": teacher.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "best": best,
                "rng": json.dumps(rng.bit_generator.state),
                "torch_rng": torch.get_rng_state(),
                "modalities": list(config.modalities),
            }
            checkpoint.save(out / "checkpoint.pt", state)
    bar.close()
    board.close()


def _read(corpus: Path, features: Path, part: Part, classes: tuple[str, ...], config: FitConfig) -> _Labelled:
    cached = cache.read(features / part, config.modalities)
    metadata = corpus / "metadata" / f"{part}.tsv"
    cells = int(cached.cells.max())
    if part == "train":
        return _Labelled(cached, targets.strong(metadata, cached.names, classes, cells))
    if part == "weak":
        return _Labelled(cached, targets.weak(metadata, cached.names, classes))
    return _Labelled(cached, np.zeros((len(cached.names), 0), np.float32))


def _draw(data: Mapping[Kind, _Labelled], config: FitConfig, rng: np.random.Generator) -> Batch:
    """Random clips of every kind, the strong ones first."""
    cells = data["strong"].target.shape[1]
    features: dict[str, list[Tensor]] = {name: [] for name in config.modalities}
    valid: dict[str, list[Tensor]] = {name: [] for name in config.modalities}
    drawn: dict[str, Tensor] = {}
    for kind, one in data.items():
        count, clips = config.batch[kind], len(one.part.names)
        rows = sorted(rng.choice(clips, count, replace=clips < count).tolist())
        clip_features, clip_valid = one.part.batch(rows, cells)
        for name in config.modalities:
            features[name].append(clip_features[name])
            valid[name].append(clip_valid[name])
        drawn[kind] = torch.from_numpy(one.target[rows])
    classes = drawn["strong"].shape[2]
    return Batch(
        {name: torch.cat(parts) for name, parts in features.items()},
        {name: torch.cat(parts) for name, parts in valid.items()},
        drawn["strong"],
        drawn.get("weak", torch.zeros(0, classes)),
    )


def _standardise(network: Crnn, part: cache.CachedPart, most_clips: int = 1000) -> None:
    """Set each input's mean and standard deviation per bin, over valid cells of the training clips."""
    rows = np.linspace(0, len(part.names) - 1, min(most_clips, len(part.names))).astype(int)
    for name in network.modalities:
        module = network.spectral_input if name == network.spectral else network.embeddings[name]
        assert isinstance(module, SpectralInput | EmbeddingInput)
        total, square, count = torch.zeros_like(module.mean).double(), torch.zeros_like(module.mean).double(), 0
        for row in rows:
            features, flags = part.batch([row], int(part.cells[row]))
            values, valid = features[name], flags[name]
            cells = module.log(values, valid) if isinstance(module, SpectralInput) else values
            bins = cells[valid].flatten(0, -2).double()
            total, square, count = total + bins.sum(0), square + bins.square().sum(0), count + len(bins)
        mean = total / count
        module.mean.copy_(mean)
        module.std.copy_((square / count - mean.square()).clamp_min(1e-8).sqrt())


def _expect_priors(network: Crnn, target: Floats) -> None:
    """Let the untrained network expect each class as often as it is there, which saves the first hundreds of steps."""
    share = torch.from_numpy(target).mean(dim=(0, 1)).clamp(1e-3, 0.5)
    with torch.no_grad():
        network.classify.bias.copy_(torch.logit(share))
