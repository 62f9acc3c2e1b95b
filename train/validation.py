"""How good a network is on the validation clips: as the paper scores it, and as the product does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from streamer.bundle import Bundle
from streamer.networks.forms import FusionNetwork
from streamer.replay.scoring import KINDS, Report
from streamer.timeline import seconds
from streamer.types import CELL
from streamer.windows import StreamSettings
from train.config import FitConfig
from train.data.dataset import PartData
from train.evaluation.stored import posteriors, score, untuned
from train.evaluation.streaming import stream_posteriors
from train.learning.network import judged
from train.tuning import search
from train.tuning.ledger import Ledger, Material
from train.tuning.merit import Merit


def as_the_paper(network: FusionNetwork, part: PartData, classes: Sequence[str], config: FitConfig) -> Report:
    """Scores of whole clips with one threshold and one median filter for all classes (paper section 2.2)."""
    assert part.truth is not None  # only unlabelled parts have none
    with _in_full(network, config), judged(network, config):
        return score(posteriors(network, part), part.truth, untuned(classes, config))


def as_the_product(
    network: FusionNetwork, part: PartData, classes: Sequence[str], groups: Mapping[str, int], config: FitConfig
) -> Report:
    """Scores of the clips as streams with the product's hop and lookahead, by the thresholds that `export` tunes.

    The thresholds are tuned on these very clips, so the scores are a little too good; they can be compared within a run
    and with `validation_stream` of a bundle.

    Args:
        network, part, classes, config: what is scored on what.
        groups: the number of groups of recordings in each class's validation clips.

    """
    assert part.truth is not None
    tensors = {name: value.cpu() for name, value in network.state_dict().items()}
    specs = {name: part.features.specs[name] for name in network.modalities}
    bundle = Bundle("validation", specs, untuned(classes, config), tensors, stream=config.stream)
    with _in_full(network, config):
        whole = posteriors(network, part)
    stream = stream_posteriors(bundle, part)
    with Ledger(Material((tuple(whole), tuple(stream)), part.truth, tuple(classes)), workers=1) as ledger:
        return score(stream, part.truth, search.tune(Merit(ledger, groups)))


def figures_of(report: Report) -> dict[str, float]:
    """Macro and micro F1 of clips, segments and events, by the names that `log.jsonl` uses."""
    macro = {f"{kind}_f1_macro": report.macro_f1(kind) or 0.0 for kind in KINDS}
    return {**macro, **{f"{kind}_f1_micro": report.micro_f1(kind) or 0.0 for kind in KINDS}}


def merit_of(figures: Mapping[str, float]) -> float:
    """What decides which networks are the best: the mean of the three macro F1 scores."""
    return sum(figures[f"{kind}_f1_macro"] for kind in KINDS) / len(KINDS)


def shown_paper(config: FitConfig) -> str:
    """How `as_the_paper` scores, in words."""
    heard = f"{config.judged_context} cells of lookahead, " if config.form == "stream" and config.judged_context else ""
    return f"whole clips, {heard}threshold {config.threshold:g}, median filter of {config.median_cells} cells"


def shown_product() -> str:
    """How `as_the_product` scores, in words."""
    settings = StreamSettings()
    ahead_s = seconds(CELL * settings.lookahead_cells)
    return f"streamed with {ahead_s:.1f} s of lookahead, thresholds tuned on these clips"


@contextmanager
def _in_full(network: FusionNetwork, config: FitConfig) -> Iterator[Any]:
    """The network in evaluation mode, in full precision and not compiled: clips have many lengths."""
    network.eval()
    network.reduced_precision = False
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        network.reduced_precision = config.reduced_precision
