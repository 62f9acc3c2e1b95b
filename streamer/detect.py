"""Runs the network on windows of all streams in batches and returns the scores of the cells that they decide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from streamer.bundle import Bundle
from streamer.networks.backends import Network, TorchNetwork
from streamer.networks.crnn import PositionalCrnn
from streamer.networks.stream_crnn import StreamCrnn
from streamer.stream_detect import StreamDetector
from streamer.types import CellScores, Floats, NewestScores, Window

MAX_BATCH = 16
"""Windows in one pass of the network: more are not faster on a CPU, and their activations are 25 MB each."""


class Detector:
    """A bundle's network, shared by all streams. Not thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises `BundleError` if the bundle's tensors do not match its network."""
        network = bundle.network()
        self._modalities = network.modalities
        self._carrying: StreamDetector | None = None
        if isinstance(network, StreamCrnn):
            self._carrying = StreamDetector(network, bundle.decoding)
        else:
            self._network: Network = TorchNetwork(PositionalCrnn(network))

    def scores(self, windows: Sequence[Window]) -> list[CellScores]:
        """Scores of the cells that each window decides, in the order of the windows.

        Windows of the same length share a batch, whichever streams they are from. The batch size changes
        posteriors only by rounding (about 1e-7).
        """
        if self._carrying is not None:
            return self._carrying.scores(windows)
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            by_length[len(window)].append(index)
        found: dict[int, CellScores] = {}
        for indices in by_length.values():
            for start in range(0, len(indices), MAX_BATCH):
                batch = indices[start : start + MAX_BATCH]
                for index, scores in zip(batch, self._batch([windows[index] for index in batch]), strict=True):
                    found[index] = scores
        return [found[index] for index in range(len(windows))]

    def _batch(self, windows: Sequence[Window]) -> list[CellScores]:
        features = [np.stack([window.features[name] for window in windows]) for name in self._modalities]
        valid = [np.stack([window.valid[name] for window in windows]) for name in self._modalities]
        posteriors, clips = self._network(*features, *valid)
        return [_decided(window, posteriors[row], clips[row]) for row, window in enumerate(windows)]


def _decided(window: Window, posteriors: Floats, tags: Floats) -> CellScores:
    newest = NewestScores(window.start, posteriors.copy(), np.any(list(window.valid.values()), axis=0))
    return CellScores.of(window, newest, tags.copy(), newest.stop)
