"""Makes windows from the cells of all modalities: every `hop`, the newest cells and the range that is decided.

The windower handles one epoch. Its `ready` count is the number of cells that windows may use: the lowest
count of the modalities that the source has, except those that lag too far behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from streamer.types import Bools, Carried, Cells, Floats, Memory, Window


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a stream is cut into windows. Cells are 66.24 ms."""

    hop_cells: int = 8  # between windows: 0.53 s
    lookahead_cells: int = 15  # right context of every decided cell: 1 s
    skew_cells: int = 30  # a modality further behind than this (2 s) no longer holds up the others
    max_event_s: float = 600.0  # a longer event is closed, and goes on as a new one
    early_threshold: float = 0.75  # cells that are not decided yet raise an event from this posterior on; 1: never


Preset: TypeAlias = Literal["fast", "balanced", "accurate"]
DEFAULT_PRESET: Preset = "balanced"
PRESETS: Mapping[Preset, StreamSettings] = {
    "fast": StreamSettings(4, 8),
    "balanced": StreamSettings(),
    "accurate": StreamSettings(8, 30),
}
"""Hops and lookaheads that were measured, by name: README.md has their figures."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the media was processed, counted in cells when they are decided."""

    cells: int = 0
    covered: int = 0  # at least one modality had the cell
    masked: Mapping[str, int] = field(default_factory=dict)  # modality -> cells that it lacked
    late_dropped: Mapping[str, int] = field(default_factory=dict)  # modality -> cells that arrived after their window

    def plus(self, other: Coverage) -> Coverage:
        """The sum of both."""
        return Coverage(
            self.cells + other.cells,
            self.covered + other.covered,
            _sum(self.masked, other.masked),
            _sum(self.late_dropped, other.late_dropped),
        )


class Windower:
    """The windows of one epoch: `push` cells of each modality in order, `flush` once at the end.

    A window is made at each multiple of `hop_cells`. It has the newest `window_cells` cells (fewer at the
    beginning) and decides every undecided cell that is followed by at least `lookahead_cells` cells. A
    window that would decide nothing is not made. Every cell is decided exactly once.

    A modality that lags more than `skew_cells` behind the most advanced one no longer delays the others:
    windows are made with it masked. Its cells that arrive after windows have passed them are dropped, so
    a cell is present in all windows or in none. A modality that the source lacks is always masked.

    For a network that carries its state (`carried`), a window has only the cells that no earlier window had. Its first
    one has more of them, and its last one may have none.
    """

    def __init__(
        self,
        stream: str,
        epoch: int,
        shapes: Mapping[str, tuple[int, ...]],
        present: Collection[str],
        *,
        window_cells: int,
        hop_cells: int,
        lookahead_cells: int,
        skew_cells: int,
        carried: bool = False,
    ) -> None:
        """`shapes`: modality -> shape of one cell; `present`: the modalities that the source has.

        Raises:
            ValueError: nothing is present, or a window is shorter than a hop plus the lookahead.

        """
        if not present or set(present) - set(shapes):
            raise ValueError(f"present must be some of {', '.join(shapes)}, not {', '.join(present) or 'none'}")
        _check(window_cells, hop_cells, lookahead_cells, skew_cells)
        self._stream = stream
        self._epoch = epoch
        self._shapes = dict(shapes)
        self._window_cells = window_cells
        self._hop_cells = hop_cells
        self._lookahead_cells = lookahead_cells
        self._skew_cells = skew_cells
        self._arrived = dict.fromkeys((name for name in shapes if name in present), 0)
        self._blocks: dict[str, deque[Cells]] = {name: deque() for name in self._arrived}
        self._memory = Memory() if carried else None
        self._passed = 0  # cells that windows have had
        self._waiting: dict[str, Bools] = {name: np.zeros(0, np.bool_) for name in shapes}  # of those, not yet decided
        self._ready = 0
        self._due = hop_cells  # the cell count at which the next window is made
        self._decided = 0
        self._covered = 0
        self._masked = dict.fromkeys(shapes, 0)
        self._late_dropped = dict.fromkeys(shapes, 0)

    @property
    def ready(self) -> int:
        """Number of cells that windows may use; it never decreases."""
        return self._ready

    @property
    def coverage(self) -> Coverage:
        """The counts of this epoch so far."""
        return Coverage(self._decided, self._covered, dict(self._masked), dict(self._late_dropped))

    def retune(self, *, hop_cells: int, lookahead_cells: int, skew_cells: int) -> None:
        """Change what `__init__` was given, from the next window on; every cell is still decided exactly once.

        Raises:
            ValueError: a window is shorter than a hop plus the lookahead.

        """
        _check(self._window_cells, hop_cells, lookahead_cells, skew_cells)
        self._hop_cells = hop_cells
        self._lookahead_cells = lookahead_cells
        self._skew_cells = skew_cells

    def push(self, modality: str, cells: Cells) -> list[Window]:
        """Add the modality's next cells and return the windows that are due.

        Raises:
            ValueError: the modality is not in `present`, or the cells are not its next ones.

        """
        if len(cells) == 0:
            return []
        self._keep(modality, cells)
        furthest = max(self._arrived.values())
        in_step = min(count for count in self._arrived.values() if count >= furthest - self._skew_cells)
        self._ready = max(self._ready, in_step)
        return self._windows_until(self._ready)

    def flush(self, cells: int, last: Mapping[str, Cells]) -> list[Window]:
        """End the epoch at `cells` cells and return windows that decide all of them.

        `last` holds the cells that each extractor's flush returned. They are passed together, so that the end
        of one modality does not make another one late.

        Raises:
            ValueError: windows have already used cells after that end.

        """
        if cells < self._ready:
            raise ValueError(f"an epoch of {cells} cells can't end before cell {self._ready}")
        for name, block in last.items():
            self._keep(name, block)
        self._ready = cells
        windows = self._windows_until(cells - 1)
        if self._decided < cells:
            windows.append(self._window(cells, cells, last=True))
        return windows

    def _keep(self, modality: str, cells: Cells) -> None:
        if modality not in self._arrived:
            raise ValueError(f"{modality} is not among the modalities of the source")
        if cells.start != self._arrived[modality]:
            raise ValueError(f"cells of {modality} from {cells.start} on do not follow {self._arrived[modality]} cells")
        self._arrived[modality] += len(cells)
        late = min(max(self._ready - cells.start, 0), len(cells))
        self._late_dropped[modality] += late
        if late < len(cells):
            self._blocks[modality].append(Cells(cells.start + late, cells.values[late:], cells.valid[late:]))

    def _windows_until(self, count: int) -> list[Window]:
        windows = []
        while self._due <= count:
            if self._due - self._lookahead_cells > self._decided:
                windows.append(self._window(self._due, self._due - self._lookahead_cells))
            # Keep the cells that this window used: the flush may make a window before the next one that is due.
            self._forget(self._due - self._window_cells if self._memory is None else self._passed)
            self._due += self._hop_cells
        return windows

    def _window(self, stop: int, decide: int, *, last: bool = False) -> Window:
        tags_start = max(stop - self._window_cells, 0)
        start = tags_start if self._memory is None else self._passed
        features: dict[str, Floats] = {}
        valid: dict[str, Bools] = {}
        for name, shape in self._shapes.items():
            features[name] = np.zeros((stop - start, *shape), np.float32)
            valid[name] = np.zeros(stop - start, np.bool_)
            for block in self._blocks.get(name, ()):
                first, end = max(block.start, start), min(block.start + len(block), stop)
                if first < end:
                    features[name][first - start : end - start] = block.values[first - block.start : end - block.start]
                    valid[name][first - start : end - start] = block.valid[first - block.start : end - block.start]
        if self._memory is None:
            self._count({name: mask[self._decided - start :] for name, mask in valid.items()}, decide)
        else:
            self._waiting = {name: np.concatenate([self._waiting[name], mask]) for name, mask in valid.items()}
            self._count(self._waiting, decide)
            self._waiting = {name: mask[decide - self._decided :] for name, mask in self._waiting.items()}
        carried = None if self._memory is None else Carried(self._memory, tags_start, last)
        window = Window(self._stream, self._epoch, start, features, valid, self._decided, decide, carried)
        self._decided, self._passed = decide, stop
        return window

    def _count(self, masks: Mapping[str, Bools], decide: int) -> None:
        """Count the cells up to `decide`; `masks` begin with the first cell that is not decided."""
        decided = {name: mask[: decide - self._decided] for name, mask in masks.items()}
        self._covered += int(np.any(list(decided.values()), axis=0).sum())
        for name, mask in decided.items():
            self._masked[name] += int((~mask).sum())

    def _forget(self, cell: int) -> None:
        """Drop the cells before `cell`, which no later window uses."""
        for blocks in self._blocks.values():
            while blocks and blocks[0].start + len(blocks[0]) <= cell:
                blocks.popleft()


def _check(window_cells: int, hop_cells: int, lookahead_cells: int, skew_cells: int) -> None:
    if hop_cells < 1 or lookahead_cells < 0 or skew_cells < 0 or window_cells < hop_cells + lookahead_cells:
        raise ValueError(f"a window of {window_cells} cells can't move by {hop_cells} and look {lookahead_cells} ahead")


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
