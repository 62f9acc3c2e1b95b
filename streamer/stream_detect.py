"""Runs a network of the stream form on the new cells of all streams, in batches, with what it remembers of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from streamer.decoding import Decoding
from streamer.networks.backends import Array, Network, TorchNetwork
from streamer.networks.crnn import linear_pooling
from streamer.networks.stream_crnn import StreamCrnn
from streamer.networks.stream_steps import PositionalAgain, PositionalStreamCrnn
from streamer.onsets import BACKDATE_CELLS
from streamer.types import Bools, Carried, CellScores, Floats, NewestScores, Window

MAX_BATCH = 64
"""Streams in one pass of the network."""
_WAITING_VALID, _HIDDEN, _CONTEXT, _COVERED = -4, -3, -2, -1  # places in the state's arrays


@dataclass(slots=True)
class _Remembered:
    """What is remembered of one epoch."""

    state: list[Array]  # the network's; the batch of each array is 1
    known: int  # cells that have posteriors
    scores: Floats  # the newest (n, classes) of the cells before `known` that tags are for
    covered: Bools  # (n,)
    waiting: Floats  # (p, classes), of the cells behind them: provisional
    decided: list[Array]  # context and covered, as in the state, of the cells that were decided last

    @property
    def newest(self) -> NewestScores:
        """The newest posteriors, of waiting cells too."""
        waiting = self.state[_WAITING_VALID][0, : len(self.waiting)].any(axis=1)
        return NewestScores(
            self.known - len(self.scores),
            np.concatenate([self.scores, self.waiting]),
            np.concatenate([self.covered, waiting]),
        )

    def add(self, posteriors: Floats, new_cells: int, since: int) -> None:
        """Accept the posteriors of the cells in the state's context and of waiting ones; drop those before `since`."""
        cells = self.state[_CONTEXT].shape[1]
        posteriors, self.waiting = posteriors[:cells], posteriors[cells:]
        self.known += new_cells
        start = self.known - len(posteriors)  # posteriors of earlier cells are final
        old = start - (self.known - new_cells - len(self.scores))
        covered: Bools = self.state[_COVERED][0]
        scores, flags = np.concatenate([self.scores[:old], posteriors]), np.concatenate([self.covered[:old], covered])
        drop = max(since - (self.known - len(scores)), 0)
        self.scores, self.covered = scores[drop:], flags[drop:]

    def correct(self, posteriors: Floats, stop: int) -> None:
        """Replace the scores of the cells before `stop`."""
        end = stop - (self.known - len(self.scores))
        start = max(end - len(posteriors), 0)
        self.scores[start:end] = posteriors[len(posteriors) - (end - start) :]

    def decide(self, stop: int, keep: int) -> None:
        """The cells before `stop` are decided; the context of the last `keep` of them is kept."""
        count = stop - (self.known - self.state[_CONTEXT].shape[1])
        if count:
            size = self.state[_HIDDEN].shape[2]
            self.state[_HIDDEN][:, 1] = self.state[_CONTEXT][:, count - 1, -size:]
        for index, place in enumerate((_CONTEXT, _COVERED)):
            array = self.state[place]
            before = np.concatenate([self.decided[index], array[:, :count]], axis=1)
            self.decided[index] = before[:, max(before.shape[1] - keep, 0) :]
            self.state[place] = array[:, count:]


class StreamDetector:
    """A network of the stream form, shared by all streams. Not thread-safe."""

    def __init__(self, network: StreamCrnn, decoding: Decoding) -> None:
        self._modalities = network.modalities
        self._network = network
        self._step: Network = TorchNetwork(PositionalStreamCrnn(network, last=False))
        self._last: Network = TorchNetwork(PositionalStreamCrnn(network, last=True))
        self._go_on: Network = TorchNetwork(PositionalAgain(network))
        self._thresholds = np.array([one.onset_threshold for one in decoding.per_class])
        # An onset is sought so far back, and the filter of its trigger reaches back from the last cell that is decided.
        half = max(one.median_cells for one in decoding.per_class) // 2
        self._again = max(BACKDATE_CELLS, half) + half

    def scores(self, windows: Sequence[Window]) -> list[CellScores]:
        """Scores of the cells that each window decides, in the order of the windows.

        Windows of one epoch are processed one after the other. Others share a batch if they have as many new cells and
        are as far.

        Raises:
            ValueError: a window decides cells that the network can't know yet: the lookahead is too short.

        """
        found: dict[int, CellScores] = {}
        waiting = list(range(len(windows)))
        while waiting:
            taken: dict[int, int] = {}  # the first window of each memory
            for index in waiting:
                taken.setdefault(id(_carried(windows[index]).memory), index)
            batches: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
            for index in taken.values():
                window = windows[index]
                shapes = tuple(array.shape for array in self._remembered(window).state)
                batches[len(window), _carried(window).last, shapes].append(index)
            for indices in batches.values():
                for start in range(0, len(indices), MAX_BATCH):
                    batch = indices[start : start + MAX_BATCH]
                    found.update(zip(batch, self._batch([windows[index] for index in batch]), strict=True))
            waiting = [index for index in waiting if index not in found]
        return [found[index] for index in range(len(windows))]

    def _batch(self, windows: Sequence[Window]) -> list[CellScores]:
        features = [np.stack([window.features[name] for window in windows]) for name in self._modalities]
        valid = [np.stack([window.valid[name] for window in windows]) for name in self._modalities]
        remembered = [self._remembered(window) for window in windows]
        before = remembered[0].state if len(windows) == 1 else _joined([one.state for one in remembered])
        network = self._last if _carried(windows[0]).last else self._step
        posteriors, behind, *after = network(*features, *valid, *before)
        made = []
        for row, (window, one) in enumerate(zip(windows, remembered, strict=True)):
            before_cells = one.state[_CONTEXT].shape[1]
            one.state = list(after) if len(windows) == 1 else [array[row : row + 1].copy() for array in after]
            new_cells = one.state[_CONTEXT].shape[1] - before_cells
            one.add(posteriors[row], new_cells, _carried(window).tags_start)
            if window.emit_stop > one.known:
                raise ValueError(
                    f"{window.stream}: cell {window.emit_stop - 1} can't be decided with {one.known} known cells: "
                    "the lookahead is shorter than the network's"
                )
            if self._may_begin(window, one):
                one.correct(self._go_on(*one.decided, behind[row : row + 1])[0][0], window.emit_start)
            one.decide(window.emit_stop, self._again)
            made.append(_decided(window, one))
        return made

    def _may_begin(self, window: Window, one: _Remembered) -> bool:
        """Whether an event may begin in what the window decides, so that its onset needs earlier cells' newest scores.

        A median filter crosses a threshold only where the scores do.
        """
        base = one.known - len(one.scores)
        recent = one.scores[max(window.emit_start - self._again - base, 0) : window.emit_stop - base]
        above = recent >= self._thresholds
        return bool((above.any(axis=0) & ~above.all(axis=0)).any())

    def _remembered(self, window: Window) -> _Remembered:
        memory = _carried(window).memory
        if not isinstance(memory.content, _Remembered):
            like = {name: torch.from_numpy(window.features[name][None]) for name in self._modalities}
            state = [tensor.numpy() for tensor in self._network.begin(like).tensors()]
            none = np.zeros((0, len(self._thresholds)), np.float32)
            memory.content = _Remembered(
                state, 0, none, np.zeros(0, np.bool_), none, [state[_CONTEXT], state[_COVERED]]
            )
        return memory.content


def _decided(window: Window, one: _Remembered) -> CellScores:
    tags = linear_pooling(torch.from_numpy(one.scores)[None])[0].numpy()
    return CellScores.of(window, one.newest, tags, one.known)


def _carried(window: Window) -> Carried:
    if window.carried is None:
        raise ValueError(f"{window.stream}: a network of the stream form needs windows that carry its memory")
    return window.carried


def _joined(states: Sequence[list[Array]]) -> list[Array]:
    return [np.concatenate(parts) for parts in zip(*states, strict=True)]
