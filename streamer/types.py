"""The values that flow through the core. Everything here is frozen, and positions are integers.

Positions are samples of a stream's master clock (`SAMPLE_RATE_HZ`), counted from the first media
timestamp of its epoch, or cells of `CELL` samples on the same clock. Seconds exist only in config,
in `timeline` and on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 22_100
"""Master clock and spectral input rate (paper section 4.2: 22.1 kHz, hop 366, 604 frames)."""
HOP = 366
"""Samples between two spectral frames."""
FRAMES_PER_CELL = 4
"""Spectral frames in a cell: the CRNN pools time by four."""
CELL = HOP * FRAMES_PER_CELL
"""Samples in a cell (66.24 ms), the model's output step."""
WINDOW_CELLS = 151
"""Cells in the paper's 10 s window."""
PICTURE_SIDE = 224
"""Pixels on each side of a `Picture`."""

Floats: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]
ClockSource: TypeAlias = Literal["rtcp", "arrival", "file"]
EndReason: TypeAlias = Literal["silence", "gap", "max_duration", "shutdown", "reload", "crash"]


def cells_in(samples: int) -> int:
    """Cells in the first `samples` samples of an epoch.

    A cell counts if the centres of all four of its spectral frames lie inside: centred frames with floor
    pooling, as in the paper, so 221 000 samples (10 s) have 151 cells.
    """
    return (samples // HOP + 1) // FRAMES_PER_CELL


@dataclass(frozen=True, slots=True)
class Chunk:
    """An unbroken run of mono audio.

    `start` is the position of `samples[0]`, counted at `rate_hz` from the start of the epoch. A `start`
    beyond the end of the previous chunk (at the same rate) is a hole; it is never before that end.
    """

    rate_hz: int
    start: int
    samples: Floats  # (n,), -1 to 1

    @property
    def end(self) -> int:
        """Position after the last sample, at `rate_hz`."""
        return self.start + len(self.samples)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: short side scaled to 256, centre-cropped."""

    at: int  # master-clock sample at which it is shown
    pixels: NDArray[np.uint8]  # (224, 224, 3), RGB


@dataclass(frozen=True, slots=True)
class Anchor:
    """A point of the master clock whose UTC is known; a newer anchor replaces it."""

    at: int  # master-clock sample
    utc_s: float  # Unix seconds
    source: ClockSource


@dataclass(frozen=True, slots=True)
class Discontinuity:
    """The epoch ends here, and the next item begins a new one at position 0."""

    reason: str  # "pts_jump" or "hole"
    skipped: int = 0  # master-clock samples without media between the two epochs, if known from timestamps


@dataclass(frozen=True, slots=True)
class Want:
    """The media that a consumer needs from a source. `|` combines the wants of several consumers."""

    rates_hz: frozenset[int] = frozenset()  # audio at each of these rates; empty: no audio
    pictures: bool = False

    @property
    def audio(self) -> bool:
        """Whether audio is wanted, at any rate."""
        return bool(self.rates_hz)

    def takes(self, item: MediaItem) -> bool:
        """Whether `item` is wanted media."""
        return item.rate_hz in self.rates_hz if isinstance(item, Chunk) else isinstance(item, Picture) and self.pictures

    def served_by(self, *, audio: bool, pictures: bool) -> bool:
        """Whether a source with `audio`, `pictures` or both has any wanted media."""
        return (self.audio and audio) or (self.pictures and pictures)

    def __or__(self, other: Want) -> Want:
        return Want(self.rates_hz | other.rates_hz, self.pictures or other.pictures)


MediaItem: TypeAlias = Chunk | Picture | Anchor | Discontinuity


@dataclass(frozen=True, slots=True)
class Cells:
    """Consecutive cells of one modality, as an extractor returns them."""

    start: int  # index of the first cell in the epoch
    values: Floats  # (n, ...)
    valid: Bools  # (n,); False: could not be computed, and its values are zero

    def __len__(self) -> int:
        return len(self.valid)


@dataclass(slots=True, eq=False)
class Memory:
    """What a network remembers of one epoch of a stream. It begins empty, and the detector alone looks inside."""

    content: object = None


@dataclass(frozen=True, slots=True)
class Carried:
    """What a network needs that computes each cell once, and remembers the cells before the window."""

    memory: Memory  # of the epoch
    tags_start: int  # the first of the cells that the clip tags are for
    last: bool  # no window of the epoch follows


@dataclass(frozen=True, slots=True)
class Window:
    """The input of one run of the model: all modalities over the same `n` cells. With `carried`, they are new cells.

    The scores of the epoch's cells from `emit_start` to before `emit_stop` are final in this window.
    """

    stream: str
    epoch: int
    start: int
    features: Mapping[str, Floats]  # modality -> (n, ...)
    valid: Mapping[str, Bools]  # modality -> (n,)
    emit_start: int
    emit_stop: int
    carried: Carried | None = None

    def __len__(self) -> int:
        return len(next(iter(self.valid.values())))


@dataclass(frozen=True, slots=True)
class NewestScores:
    """The newest posteriors of consecutive cells: of some again, with more context than when they were decided."""

    start: int
    scores: Floats  # (n, classes), 0 to 1; zero where not covered
    covered: Bools  # (n,)

    @property
    def stop(self) -> int:
        """The cell after the last one."""
        return self.start + len(self.covered)


@dataclass(frozen=True, slots=True)
class CellScores:
    """Final posteriors of consecutive cells, each cell of an epoch once, and the window's clip tags."""

    stream: str
    epoch: int
    start: int
    scores: Floats  # (n, classes), 0 to 1; zero where not covered
    covered: Bools  # (n,); False: no modality had this cell
    tags: Floats  # (classes,), the clip-level posteriors of the whole window
    tags_start: int  # first cell of the window that the tags are for
    tags_stop: int  # the cell after its last one
    newest: NewestScores | None = None  # of the same run of the network; None: the final ones are the newest

    @classmethod
    def of(cls, window: Window, newest: NewestScores, tags: Floats, tags_stop: int) -> CellScores:
        """What a run of the network on `window` decides; `tags` are of the cells of `newest` before `tags_stop`."""
        cells = slice(window.emit_start - newest.start, window.emit_stop - newest.start)
        return cls(
            stream=window.stream,
            epoch=window.epoch,
            start=window.emit_start,
            scores=newest.scores[cells].copy(),
            covered=newest.covered[cells].copy(),
            tags=tags,
            tags_start=newest.start,
            tags_stop=tags_stop,
            newest=newest,
        )


@dataclass(frozen=True, slots=True)
class Onset:
    """An event has begun. It was raised at `trigger`, by final scores or early; the newest ones say where it began."""

    event_id: str
    stream: str
    epoch: int
    label: str
    onset: int  # master-clock sample
    trigger: int  # master-clock sample of the cell that raised it; not before `onset`
    score: float  # filtered posterior of that cell; if early: the lowest posterior of the cells that raised it
    early: bool = False  # raised by cells that were not decided yet


@dataclass(frozen=True, slots=True)
class Offset:
    """The same event has ended."""

    event_id: str
    stream: str
    epoch: int
    label: str
    onset: int  # master-clock sample
    offset: int  # master-clock sample after the last active one
    confidence: float  # mean raw posterior of the event's cells, 0 to 1
    peak: float  # highest raw posterior, 0 to 1
    end_reason: EndReason
