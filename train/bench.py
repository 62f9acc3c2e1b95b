"""`earwitness-train bench`: what each way of running a training step saves, measured side by side in one run.

All variants train on the same batches, turn by turn, so that whatever else the machine does slows all of them alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from streamer.errors import EarwitnessError
from streamer.features import EXTRACTORS, SPECTRAL
from streamer.features.base import FEATURES_VERSION
from streamer.networks.dropout import ByteDropout
from streamer.networks.weights import WeightsStore
from streamer.replay.truth import Truth
from train.checkpoint import Learner
from train.config import FitConfig, Kind
from train.data import cache
from train.data.config import CLASSES
from train.data.dataset import PartData
from train.data.loader import Labelled, Loader
from train.data.store import Key, Writer, narrowed
from train.learning.distributed import Group
from train.learning.runner import Runner, new_learner, prepared
from train.learning.step import learn
from train.learning.student import new_student

_PLAIN = "plain PyTorch: fp32, contiguous, eager"
_AGREE = 3
"""Steps, without dropout, over which costs are compared."""
_CLIP_CELLS = 151


@dataclass(frozen=True, slots=True)
class Timed:
    """A variant's steps."""

    name: str
    step_s: float  # median
    difference: float  # largest relative difference of its costs from plain PyTorch's, without dropout


@dataclass(frozen=True, slots=True)
class Measured:
    """All variants, plain PyTorch first, and how long the steps of the last one waited when it ran alone."""

    variants: tuple[Timed, ...]
    waited_s: float
    ran_s: float

    def table(self, config: FitConfig, threads: int) -> str:
        """The result as text."""
        plain = self.variants[0].step_s
        width = max(len(one.name) for one in self.variants)
        clips = " + ".join(f"{count} {kind}" for kind, count in config.batch.items() if count)
        lines = [
            f"a training step of student and teacher, {clips} clips, {', '.join(config.modalities)}; {threads} threads",
            f"{'':<{width}}  s/step  steps/hour  x plain  cost differs",
        ]
        for one in self.variants:
            differs = "-" if one is self.variants[0] else f"{100 * one.difference:.3f} %"
            speed = f"{one.step_s:6.2f}  {3600 / one.step_s:10.0f}  {plain / one.step_s:7.2f}"
            lines.append(f"{one.name:<{width}}  {speed}  {differs:>12}")
        fastest, epoch = self.variants[-1], config.epoch_steps
        lines += [
            f"an epoch of {epoch} steps: {epoch * fastest.step_s / 60:.1f} min instead of {epoch * plain / 60:.1f} min",
            f"alone, {fastest.name}: its steps waited {self.waited_s:.3f} of {self.ran_s:.1f} s for data",
        ]
        return "\n".join(lines)


def variants_of(config: FitConfig, *, compiled: bool) -> dict[str, FitConfig]:
    """Name -> settings, from plain PyTorch to everything together."""

    def settings(*, channels_last: bool, reduced_precision: bool, compile: bool = False) -> FitConfig:
        return config.model_copy(
            update={
                "channels_last": channels_last,
                "reduced_precision": reduced_precision,
                "compile": compile,
            }
        )

    made = {
        _PLAIN: settings(channels_last=False, reduced_precision=False),
        "the same, dropout by bytes and fused Adam": settings(channels_last=False, reduced_precision=False),
        "and channels-last": settings(channels_last=True, reduced_precision=False),
        "and bfloat16, contiguous": settings(channels_last=False, reduced_precision=True),
        "and both": settings(channels_last=True, reduced_precision=True),
    }
    if compiled:
        made["and both, compiled"] = settings(channels_last=True, reduced_precision=True, compile=True)
    return made


def measure(data: Mapping[Kind, Labelled], config: FitConfig, group: Group, steps: int, *, compiled: bool) -> Measured:
    """Time `steps` steps of each variant, after one that is not counted.

    Args:
        data: clips of each kind that `config.batch` has.
        config: what is trained; its layout, precision and `compile` are those of the variants.
        group: this process, alone.
        steps: of each variant.
        compiled: also with torch.compile, which takes a minute or more before the first step.

    Raises:
        EarwitnessError: the clips do not fit the configuration.

    """
    classes = next(one.target.shape[-1] for kind, one in data.items() if kind != "unlabeled")
    variants = variants_of(config, compiled=compiled)
    still = {"dropout": 0.0, "embedding_dropout": 0.0, "classifier_dropout": 0.0}
    costs: dict[str, list[float]] = {name: [] for name in variants}
    bar = tqdm(total=len(variants) * (_AGREE + 1 + steps), desc="bench", unit="step")
    ready = {name: _ready(name, data, classes, one.model_copy(update=still), group) for name, one in variants.items()}
    with _loader(data, classes, config) as loader:
        for _ in range(_AGREE):
            drawn = next(loader)
            for name, (learner, runner) in ready.items():
                costs[name].append(learn(learner, runner, drawn, None, variants[name]).cost)
                bar.update()
        took_s: dict[str, list[float]] = {name: [] for name in variants}
        ready = {name: _ready(name, data, classes, one, group) for name, one in variants.items()}
        for turn in range(1 + steps):
            drawn = next(loader)
            for name, (learner, runner) in ready.items():
                started = time.perf_counter()
                learn(learner, runner, drawn, None, variants[name])
                if turn:
                    took_s[name].append(time.perf_counter() - started)
                bar.update()
    bar.close()
    fastest = list(variants)[-1]
    learner, runner = ready[fastest]
    with _loader(data, classes, config) as loader:
        next(loader)  # nothing was drawn ahead of the first one
        loader.waited_s, started = 0.0, time.perf_counter()
        for _ in range(steps):
            learn(learner, runner, next(loader), None, variants[fastest])
        ran_s, waited_s = time.perf_counter() - started, loader.waited_s
    timed = tuple(Timed(name, statistics.median(took_s[name]), _furthest(costs, name)) for name in variants)
    return Measured(timed, waited_s, ran_s)


@contextmanager
def made_up(config: FitConfig) -> Iterator[dict[Kind, Labelled]]:
    """Clips of noise with random labels, stored as real ones are, in a folder that is removed afterwards.

    Raises:
        EarwitnessError: `config` has other modalities than spectral, whose features need real media.

    """
    if set(config.modalities) != {SPECTRAL}:
        raise EarwitnessError(
            f"features of {', '.join(config.modalities)} can't be made up: name a corpus and its features"
        )
    rng = np.random.default_rng(0)
    factory = EXTRACTORS[SPECTRAL]({}, WeightsStore(Path(), {}))
    with tempfile.TemporaryDirectory(prefix="earwitness-bench-") as folder:
        key = Key(FEATURES_VERSION, dict(factory.spec()), factory.shape, pictures_alone=False)
        counts = {kind: 2 * count for kind, count in config.batch.items() if count}
        clips = {kind: [f"{kind}-{row}" for row in range(count)] for kind, count in counts.items()}
        with Writer(Path(folder) / SPECTRAL, key) as writer:
            for name in (one for of_kind in clips.values() for one in of_kind):
                cells = rng.gamma(0.5, 20.0, (_CLIP_CELLS, *factory.shape)).astype(np.float32)
                writer.add(name, narrowed(cells, key.number), np.ones(_CLIP_CELLS, np.bool_), 0)
        yield {kind: _labelled(kind, names, Path(folder), rng) for kind, names in clips.items()}


def _labelled(kind: Kind, names: list[str], folder: Path, rng: np.random.Generator) -> Labelled:
    features = cache.read(folder, {Path(name): name for name in names}, [SPECTRAL])
    shapes = {"strong": (len(names), _CLIP_CELLS, len(CLASSES)), "weak": (len(names), len(CLASSES))}
    target = (rng.random(shapes.get(kind, (len(names), 0))) < 0.15).astype(np.float32)
    truth: Truth | None = None
    part = PartData("unlabeled", tuple(map(Path, names)), tuple(names), truth, features, "")
    return Labelled(part, target)


def _loader(data: Mapping[Kind, Labelled], classes: int, config: FitConfig) -> Loader:
    return Loader(data, classes, config, np.random.default_rng(config.seed))


def _ready(
    name: str, data: Mapping[Kind, Labelled], classes: int, config: FitConfig, group: Group
) -> tuple[Learner, Runner]:
    """A variant's networks, with the same initial weights as the others'."""
    torch.manual_seed(config.seed)
    labelled = data.get("strong", data.get("weak"))
    assert labelled is not None
    student = new_student(labelled.part.features, labelled.target, classes, config)
    learner = new_learner(student, config, group.device)
    if name == _PLAIN:
        for one in learner.optimiser.param_groups:
            one["fused"] = False
        for module in student.modules():
            for child, layer in module.named_children():
                if isinstance(layer, ByteDropout):
                    setattr(module, child, nn.Dropout(layer.probability))
    return learner, prepared(learner, config, group, None)


def _furthest(costs: Mapping[str, list[float]], name: str) -> float:
    """The largest relative difference between a variant's costs and plain PyTorch's."""
    return max(abs(ours / plain - 1) for ours, plain in zip(costs[name], costs[_PLAIN], strict=True))
