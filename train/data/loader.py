"""The batches of a training run, drawn while the steps before them are computed.

All randomness of a batch (which clips, how they are augmented, what the student does not see) comes from one generator
and depends on nothing that training computes, so batches can be made ahead and are still those of a loop that draws
each one when it needs it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamer.errors import EarwitnessError
from streamer.networks.backends import use_threads
from streamer.networks.dropout import Rows
from streamer.types import Bools, Floats
from train.config import FitConfig, Kind
from train.data.dataset import PartData
from train.learning.augment import Batch, augment, blanked
from train.learning.masking import masked
from train.learning.mean_teacher import Guidance
from train.learning.pseudo_labels import Labeller

_LOOK_S = 0.1
"""Interval at which the thread checks that its batches are still wanted, while there is no room for another."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A part with its targets: (clips, cells, classes) if strong, (clips, classes) if weak, or empty."""

    part: PartData
    target: Floats


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one step trains on."""

    batch: Batch  # augmented; the teacher's input
    student: Mapping[str, Tensor]  # the student's: the same, with some bins and cells blanked or masked
    student_valid: Mapping[str, Tensor]  # its masks
    pseudo: Guidance | None  # labels that its unlabelled clips got
    rng_state: Mapping[str, Any]  # the generator's, after this batch


class Loader:
    """An endless iterator over the batches of a run. Use it in `with`: that ends its thread.

    The generator that it is given is always in the state after the batch that was taken last, although later ones may
    have been drawn already: saved with the networks of that step, it continues with the very next batch.

    Of `world` processes that share a run, each has its own `rank`, the same data and a generator in the same state.
    Each takes its share of every batch of `config.batch` clips; together they have exactly the clips, augmented in
    the same way, that one process alone would have.
    """

    def __init__(
        self,
        data: Mapping[Kind, Labelled],
        classes: int,
        config: FitConfig,
        rng: np.random.Generator,
        *,
        rank: int = 0,
        world: int = 1,
        ahead: int = 2,
        labeller: Labeller | None = None,
        unheard: Collection[str] = (),
    ) -> None:
        """Begin.

        Args:
            data, config: of the run.
            classes: of the model's outputs.
            rng: all draws come from it.
            rank, world: this process, and their number.
            ahead: batches in memory at most; 0: each is drawn when it is taken.
            labeller: makes labels for unlabelled clips.
            unheard: modalities that only the labeller uses.

        Raises:
            EarwitnessError: there are more processes than clips to share.

        """
        sizes = {kind: config.batch[kind] for kind in data}
        if not any(size >= world for size in sizes.values()):
            raise EarwitnessError(
                f"batch: {', '.join(f'{size} {kind}' for kind, size in sizes.items())} clips are too few for {world} "
                "processes: start fewer"
            )
        self.waited_s = 0.0
        """How long the steps have waited for data so far."""
        self._data, self._classes, self._config = data, classes, config
        self._rank, self._world = rank, world
        self._cells = max(int(one.part.features.cells.max()) for one in data.values())
        self._taken = rng
        self._rng = np.random.default_rng()
        self._rng.bit_generator.state = rng.bit_generator.state
        self._labeller, self._unheard = labeller, frozenset(unheard)
        self._made: queue.Queue[Drawn | Exception] = queue.Queue(max(1, ahead))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._make, name="loader", daemon=True) if ahead else None

    def __enter__(self) -> Loader:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def __iter__(self) -> Loader:
        return self

    @property
    def rows(self) -> Rows | None:
        """The clips of every batch that this process has; None: all of them."""
        if self._world == 1:
            return None
        return Rows(sum(self._config.batch[kind] for kind in self._data), torch.tensor(self._ours()))

    def __next__(self) -> Drawn:
        """The next batch. Raises what drawing it raised."""
        started = time.monotonic()
        made = self._made.get() if self._thread is not None else self._draw()
        self.waited_s += time.monotonic() - started
        if isinstance(made, Exception):
            raise made
        self._taken.bit_generator.state = made.rng_state
        return made

    def _make(self) -> None:
        use_threads(1)  # the other cores are the networks'
        made: Drawn | Exception | None = None
        while not isinstance(made, Exception):
            try:
                made = self._draw()
            except Exception as error:
                made = error
            while not self._closing.is_set():
                try:
                    self._made.put(made, timeout=_LOOK_S)
                    break
                except queue.Full:
                    continue
            else:
                return

    def _draw(self) -> Drawn:
        whole = augment(self._clips(), self._config, self._rng)
        student = blanked(whole, self._config, self._rng)
        student, valid = masked(student, whole.valid, self._config.modalities, self._config, self._rng)
        if self._world > 1:
            ours = self._ours()
            whole = self._share(whole, ours)
            student = {name: values[ours] for name, values in student.items()}
            valid = {name: flags[ours] for name, flags in valid.items()}
        pseudo = None if self._labeller is None else self._labeller.of(whole)
        return Drawn(whole, student, valid, pseudo, self._rng.bit_generator.state)

    def _clips(self) -> Batch:
        """Random clips of every kind, the strong ones first, padded to the longest clip of the data.

        Of clips for other processes only the place is there, unless what becomes of ours depends on them.
        """
        config, cells = self._config, self._cells
        count = sum(config.batch[kind] for kind in self._data)
        shapes = next(iter(self._data.values())).part.features.shapes
        features = {name: np.zeros((count, cells, *shape), np.float32) for name, shape in shapes.items()}
        valid: dict[str, Bools] = {name: np.zeros((count, cells), np.bool_) for name in shapes}
        strong = np.zeros((config.batch["strong"] if "strong" in self._data else 0, cells, self._classes), np.float32)
        weak = np.zeros((0, self._classes), np.float32)
        first = 0
        for kind, one in self._data.items():
            clips = len(one.part)
            size = config.batch[kind]
            rows = sorted(self._rng.choice(clips, size, replace=clips < size).tolist())
            mixed = kind == "strong" and config.mixup > 0
            for place, row in enumerate(rows):
                if mixed or place % self._world == self._rank:
                    one.part.features.fill(row, first + place, features, valid)
            if kind == "strong":
                strong[:, : one.target.shape[1]] = one.target[rows]
            elif kind == "weak":
                weak = one.target[rows]
            first += size
        return Batch(
            {name: torch.from_numpy(values) for name, values in features.items()},
            {name: torch.from_numpy(flags) for name, flags in valid.items()},
            torch.from_numpy(strong),
            torch.from_numpy(weak),
            self._unheard,
        )

    def _ours(self) -> list[int]:
        """This process's clips of a batch: of each kind every `world`-th."""
        ours: list[int] = []
        first = 0
        for kind in self._data:
            size = self._config.batch[kind]
            ours += range(first + self._rank, first + size, self._world)
            first += size
        return ours

    def _share(self, whole: Batch, ours: Sequence[int]) -> Batch:
        mine = slice(self._rank, None, self._world)
        return Batch(
            {name: values[ours] for name, values in whole.features.items()},
            {name: flags[ours] for name, flags in whole.valid.items()},
            whole.strong[mine],
            whole.weak[mine],
            whole.unheard,
        )
