"""`manifest.tsv`: every hyperparameter of a run, with the section of Boes & Van hamme (2021) that gives it.

Values are read from the network, the optimiser and the stored features themselves, so that the manifest says what runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from streamer.features import vggish
from streamer.networks.forms import FusionNetwork
from streamer.networks.inputs import EmbeddingInput
from streamer.networks.stream_crnn import StreamCrnn
from streamer.networks.vggish import FRAMES, MELS
from streamer.types import CELL, FRAMES_PER_CELL, SAMPLE_RATE_HZ
from train.config import FitConfig

FILE = "manifest.tsv"
BEYOND = "-"
"""Stands for the section of what the paper does not have or does not say."""
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "2.1": ("dropout", "classifier_dropout"),
    "2.2": ("threshold", "median_cells", "tune"),
    "2.3": ("ema", "consistency_clip", "consistency_frames"),
    "3": ("modalities", "widths", "embedding_dropout"),
    "4.2": ("features",),
    "4.3.1": (*("epochs", "epoch_steps", "steps", "batch", "optimiser", "learning_rate", "ramp_steps", "decay"),),
    "4.3.2": ("network", "keep"),
    BEYOND: (
        *("seed", "weight_decay", "clip_gradient", "bias_priors", "anneal_steps", "ema_warmup", "consistency_ramp"),
        *("clip_cost", "mixup", "filter_db", "shift", "mask_mels", "mask_cells", "crop"),
        *("modality_dropout", "holes", "hole_cells", "onset_weight", "offset_weight", "edge_cells"),
        *("distil_from", "distil_stored", "distil_frames", "distil_clips"),
        *("pseudo_frames", "pseudo_clips", "pseudo_low", "pseudo_high"),
        *("device", "reduced_precision", "channels_last", "compile"),
        *("validate_every", "product_every", "keep_best", "checkpoint_every", "threads"),
        *("form", "ahead_cells", "release_db_s", "filters", "gru_size", "right_contexts", "hops", "judged_context"),
        *("carried", "frozen_until"),
    ),
}
"""Fields of `FitConfig` by section."""


_FRONT_ENDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "spectral": (("sample rate", f"{SAMPLE_RATE_HZ} Hz"), ("hop", f"{CELL // FRAMES_PER_CELL} samples")),
    "vggish": (
        ("sample rate", f"{vggish.RATE_HZ} Hz"),
        ("frame and hop", f"{vggish.WINDOW} and {vggish.HOP} samples"),
        ("mel bins", f"{MELS}, which its first dense layer requires; the paper says 128"),
        ("chunk", f"{FRAMES} frames"),
    ),
    "vgg16": (("pictures", f"{SAMPLE_RATE_HZ / CELL:.1f} per second"),),
}
"""What is the same for every spec of a modality."""


class Row(NamedTuple):
    """One hyperparameter."""

    section: str
    name: str
    value: str


def rows_of(
    config: FitConfig, network: FusionNetwork, optimiser: torch.optim.Optimizer, specs: Mapping[str, Mapping[str, Any]]
) -> tuple[Row, ...]:
    """Every hyperparameter, sorted by section; what the paper does not say comes last.

    Args:
        config: of the run.
        network, optimiser: of the student.
        specs: of the stored features, by modality.

    """
    rows = [Row(section, name, _shown(getattr(config, name))) for section, names in _FIELDS.items() for name in names]
    rows += [Row("2.1", name, value) for name, value in _architecture(network)]
    rows += [
        Row("2.3", "clip cost", "binary cross-entropy of clip posteriors, weight 1 on weak clips"),
        Row("2.3", "consistency costs", "mean squared error of student and teacher posteriors, of clips and of cells"),
        Row("2.3", "teacher", "moving average per step of weights and batch norm statistics; sees no dropout"),
    ]
    for name, module in network.embeddings.items():
        assert isinstance(module, EmbeddingInput)
        rows.append(Row("3", f"{name}: projection", f"{module.project.in_features} to {module.project.out_features}"))
        rows.append(Row("3", f"{name}: after the projection", f"ReLU, dropout {_share(module.dropout)}"))
    rows += [
        Row("4.2", f"{name}: {field}", _shown(value)) for name, spec in specs.items() for field, value in spec.items()
    ]
    rows += [Row("4.2", f"{name}: {what}", value) for name in specs for what, value in _FRONT_ENDS.get(name, ())]
    if network.spectral is not None:
        peak = "of the window's mel magnitudes"
        if isinstance(network, StreamCrnn):
            peak = f"by a running peak, which starts at the clips' median and falls by {network.form.release_db_s} dB/s"
        rows.append(Row("4.2", "peak normalisation", f"{peak}; silence is not raised"))
    for one in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        rows.append(Row(BEYOND, "batch norm", f"momentum {one.momentum}, eps {one.eps}"))
        break
    rows.append(Row("4.2", "standardisation", "per bin, by mean and deviation over labelled training clips"))
    group = optimiser.param_groups[0]
    rows += [
        Row("4.3.1", "optimiser in use", type(optimiser).__name__),
        *(Row("4.3.1", f"{type(optimiser).__name__}: {name}", _shown(group[name])) for name in ("betas", "eps")),
        Row("4.3.1", "learning rate", "learning_rate x exp(-5 (1 - step / ramp_steps)^2), then x decay per step"),
    ]
    return tuple(sorted(rows, key=lambda row: (row.section == BEYOND, row.section)))


def write(folder: Path, rows: Sequence[Row]) -> None:
    """Write `manifest.tsv` atomically."""
    part = folder / (FILE + ".part")
    part.write_text("".join("\t".join(row) + "\n" for row in (Row("section", "hyperparameter", "value"), *rows)))
    part.replace(folder / FILE)


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    width = max(len(row.name) for row in rows)
    return "\n".join(f"  {row.section:<6} {row.name:<{width}}  {row.value}" for row in rows)


def _architecture(network: FusionNetwork) -> Iterator[tuple[str, str]]:
    layers = [one for one in network.convolutions.modules() if not list(one.children())] if network.convolutions else []
    if network.spectral_input is not None:
        yield "mel bins", str(len(network.spectral_input.mean))
    convolutions = [one for one in layers if isinstance(one, nn.Conv2d)]
    for number, one in enumerate(convolutions):
        yield f"convolution {number}", f"kernel {one.kernel_size}, stride {one.stride}, {one.out_channels} channels"
    for number, pooling in enumerate(one for one in layers if isinstance(one, nn.AvgPool2d)):
        yield f"average pooling {number}", f"kernel and stride {pooling.kernel_size}"
    if convolutions:
        stack = layers[: len(layers) // len(convolutions)]
        names = {nn.Conv2d: "convolution", nn.BatchNorm2d: "batch norm", nn.ReLU: "ReLU", nn.AvgPool2d: "pooling"}
        yield "a stack", ", ".join(names.get(type(one)) or f"dropout {_share(one)}" for one in stack)
    depth = len(network.gru.forwards) if isinstance(network, StreamCrnn) else network.gru.num_layers
    yield "GRU", f"{depth} layers, {network.gru.hidden_size} per direction, bidirectional"
    if isinstance(network, StreamCrnn):
        yield "backwards", "over what was heard when a cell is decided"
        yield "convolutions' lookahead", f"{network.ahead_cells} cells; the paper's: 6"
    yield "before the classifier", f"dropout {network.dropout.p:.3f}"
    yield "classifier", f"dense layer with {network.classify.out_features} outputs, sigmoid"
    yield "clip posteriors", "linear pooling"


def _share(module: nn.Module) -> str:
    """A dropout's share as it is drawn."""
    return f"{round(256 * float(module.probability)) / 256:.3f}"  # type: ignore[arg-type]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
