"""`earwitness bench`: the processor time of models' networks, side by side."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from streamer.arguments import number_from_0, number_from_1
from streamer.bundle import Bundle
from streamer.detect import Detector
from streamer.errors import UsageError
from streamer.models import bundle_path, model_help
from streamer.networks.backends import use_threads
from streamer.networks.crnn import inputs_of
from streamer.timeline import seconds
from streamer.types import CELL, Cells
from streamer.windows import StreamSettings, Windower

_WARM_UP_S = 10.0
"""Until a window is full, so that every run costs the same."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The processor time of one model's network."""

    bundle: Bundle
    ms_per_s: float  # ms for a second of one stream: the median over the runs


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bench` to the command line."""
    defaults = StreamSettings()
    parser = subparsers.add_parser(
        "bench",
        help="measure the processor time of models' networks",
        description="Measures how much processor time the networks of one or more models take for a second of a "
        "stream, without media and features. They take turns on the same noise, so that other work on the machine "
        "slows all of them alike.",
        epilog="example: earwitness bench --hop 4 --lookahead 8 models/window models/stream",
    )
    parser.add_argument("models", nargs="*", metavar="NAME|BUNDLE", help=model_help())
    parser.add_argument("--hop", type=number_from_1, default=defaults.hop_cells, metavar="CELLS", help="%(default)s")
    parser.add_argument(
        "--lookahead", type=number_from_0, default=defaults.lookahead_cells, metavar="CELLS", help="%(default)s"
    )
    parser.add_argument("--streams", type=number_from_1, default=1, metavar="N", help="streams that share batches")
    parser.add_argument("--seconds", type=number_from_1, default=30, metavar="S", help="of each stream: %(default)s")
    parser.add_argument("--threads", type=number_from_1, default=1, metavar="N", help="of the networks: %(default)s")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Measure, and print a table; 0, or an `EarwitnessError`."""
    use_threads(args.threads)
    bundles = [Bundle.load(bundle_path(named)) for named in args.models or [None]]
    settings = StreamSettings(args.hop, args.lookahead)
    for one in bundles:
        if wrong := one.misfit(settings):
            raise UsageError(f"--hop and --lookahead: {wrong}")
    costs = measured(bundles, settings, args.streams, float(args.seconds))
    sys.stdout.write("\n".join(_table(costs, args.threads)) + "\n")
    return 0


def measured(bundles: Sequence[Bundle], settings: StreamSettings, streams: int, duration_s: float) -> list[Cost]:
    """The cost of each bundle's network for `duration_s` of `streams` streams, after a warm-up.

    Raises:
        BundleError: a bundle's tensors do not match its network.

    """
    turns = [_turns(one, settings, streams) for one in bundles]
    took: list[list[float]] = [[] for _ in bundles]
    hop_s = seconds(settings.hop_cells * CELL)
    warm_up = round(_WARM_UP_S / hop_s)
    for number in tqdm(range(warm_up + max(round(duration_s / hop_s), 1)), desc="measuring", unit="run", leave=False):
        for each, turn in zip(took, turns, strict=True):
            spent_s = next(turn)
            if number >= warm_up:
                each.append(1000 * spent_s / hop_s / streams)
    return [Cost(one, statistics.median(each)) for one, each in zip(bundles, took, strict=True)]


def _turns(bundle: Bundle, settings: StreamSettings, streams: int) -> Iterator[float]:
    """The processor time in seconds of one run after the other, for all streams together."""
    detector = Detector(bundle)
    shapes, _ = inputs_of(bundle.tensors, bundle.feature_specs)
    noise = _noise(shapes, settings.hop_cells)
    windowers = [
        Windower(
            f"stream{number}",
            0,
            shapes,
            tuple(shapes),
            window_cells=bundle.window_cells,
            hop_cells=settings.hop_cells,
            lookahead_cells=settings.lookahead_cells,
            skew_cells=settings.skew_cells,
            carried=bundle.carried,
        )
        for number in range(streams)
    ]
    there = np.ones(settings.hop_cells, np.bool_)
    cell = 0
    while True:
        windows = [
            window
            for windower in windowers
            for name, values in noise.items()
            for window in windower.push(name, Cells(cell, values, there))
        ]
        began_s = time.process_time()
        detector.scores(windows)
        yield time.process_time() - began_s
        cell += settings.hop_cells


def _noise(
    shapes: Mapping[str, tuple[int, ...]], cells: int
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    random = np.random.default_rng(0)
    return {name: np.abs(random.normal(0, 3, (cells, *shape))).astype(np.float32) for name, shape in shapes.items()}


def _table(costs: Sequence[Cost], threads: int) -> Iterator[str]:
    width = max(len("model"), *(len(one.bundle.name) for one in costs))
    yield f"{'model':<{width}}  form    parameters  ms per second of a stream  of the first  streams per core"
    for one in costs:
        parameters = sum(tensor.numel() for tensor in one.bundle.tensors.values())
        share = one.ms_per_s / costs[0].ms_per_s
        form = "stream" if one.bundle.carried else "window"
        yield (
            f"{one.bundle.name:<{width}}  {form:<6}  {parameters:>10,}  {one.ms_per_s:>25.2f}  {share:>11.1%}  "
            f"{1000 / one.ms_per_s:>16.0f}"
        )
    plural = "s" if threads > 1 else ""
    yield f"processor time of the network alone, in {threads} thread{plural}; media and features cost more"
