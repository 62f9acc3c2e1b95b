"""The student of a run: the form and the sizes that its configuration names, and the contexts in which it learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from streamer.networks.context_gru import Context
from streamer.networks.crnn import Crnn, default_widths
from streamer.networks.forms import FusionNetwork
from streamer.networks.stream_crnn import StreamCrnn
from train.config import FitConfig


def new_network(shapes: Mapping[str, tuple[int, ...]], classes: int, config: FitConfig) -> FusionNetwork:
    """A network with random weights. `shapes`: modality -> shape of a cell's values."""
    widths = {**default_widths(shapes), **config.widths}
    student: FusionNetwork
    if config.stream is None:
        student = Crnn(shapes, classes, widths, config.dropouts, gru_size=config.gru_size)
    else:
        student = StreamCrnn(
            shapes, classes, widths, config.dropouts, config.stream, filters=config.filters, gru_size=config.gru_size
        )
        student.carried = config.carried
    return student


def begin_step(student: FusionNetwork, step: int, config: FitConfig) -> None:
    """Bring a student into training mode; until `frozen_until`, its convolutions neither learn nor adapt."""
    student.train()
    if student.convolutions is None:
        return
    frozen = step < config.frozen_until
    student.convolutions.requires_grad_(not frozen)
    for layer in student.convolutions.modules():
        if frozen and isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def draw_context(student: FusionNetwork, config: FitConfig) -> None:
    """Set how far a student of the stream form hears ahead in the next batch; nothing is drawn for the window form.

    From torch's generator, which a checkpoint keeps: the other one is ahead, where the loader is.
    """
    if isinstance(student, StreamCrnn):
        student.context = Context(_drawn(config.right_contexts), _drawn(config.hops))


def _drawn(values: Sequence[int]) -> int:
    return values[int(torch.randint(len(values), ()))]


@contextmanager
def judged(network: FusionNetwork, config: FitConfig) -> Iterator[None]:
    """A network of the stream form decides cells in the context of `judged_context`; others hear whole clips anyway."""
    if not isinstance(network, StreamCrnn):
        yield
        return
    before = network.context
    network.context = Context(config.judged_context, max(config.hops)) if config.judged_context else None
    try:
        yield
    finally:
        network.context = before
