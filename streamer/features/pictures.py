"""Cells of a picture network: what it makes of the picture at the cell.

Which picture a cell has is the same for all picture networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.features.base import stored_fields
from streamer.networks.backends import Network
from streamer.types import CELL, PICTURE_SIDE, SAMPLE_RATE_HZ, Bools, Cells, Chunk, Floats, Picture, Want

BATCH = 8
"""Cells that are computed together, starting at multiples of it: reading the weights limits the dense layers."""


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """The parameters of picture cells, as a bundle stores them."""

    hold_s: float = 1.0  # a cell without a picture has the last one, unless it is older
    weights_sha256: str | None = None  # None: any weights
    still: float = 0.0
    """A picture has the vector of the last computed one, if its pixels differ from it by less than this in the mean, in
    levels of 0 to 255. 0: every picture is computed.

    With 0.9, VGG16's vectors change by under 1 % (relative L2; pictures of other scenes differ by about 100 %). Those
    of EfficientNet-Lite0 change by 2 to 9 %, which is what noise does to them, while a fixed camera sees nothing move
    (of 90 pictures 1 is computed), and by 4 to 7 % in the median, 17 % at most, where 1 % of the picture moves (a third
    is computed). Comparing takes 0.1 ms."""

    every_cells: int = 1
    """Only cells at multiples of it are computed, and the others repeat the cell before them."""

    def __post_init__(self) -> None:
        if not 1 <= self.every_cells <= BATCH:
            raise ValueError(f"every_cells is {self.every_cells}, must be from 1 to {BATCH}")
        if not 0 <= self.hold_s <= 60:
            raise ValueError(f"hold_s is {self.hold_s}, must be from 0 to 60")
        if not 0 <= self.still <= 255:
            raise ValueError(f"still is {self.still}, must be from 0 to 255")


class Pictures:
    """Makes the extractors of a picture modality; holds the network that they share."""

    want = Want(pictures=True)

    def __init__(self, name: str, size: int, spec: PictureSpec, network: Network) -> None:
        """`network`: (B, 224, 224, 3) RGB bytes to (B, `size`)."""
        self.name = name
        self.shape: tuple[int, ...] = (size,)
        self._spec = spec
        self._network = network
        self.hold = round(spec.hold_s * SAMPLE_RATE_HZ)
        self.every_cells = spec.every_cells

    def spec(self) -> Mapping[str, Any]:
        """See `ExtractorFactory`."""
        return stored_fields(self._spec, later=("still", "every_cells"))

    def is_still(self, picture: Picture, last: Picture) -> bool:
        """Whether a picture has the vector of the `last` computed one."""
        if picture.at == last.at:
            return True
        if not self._spec.still:
            return False
        now, then = picture.pixels, last.pixels
        difference = np.maximum(now, then) - np.minimum(now, then)  # in bytes, which is fast
        return int(difference.sum(dtype=np.uint32)) < self._spec.still * difference.size

    def new(self) -> PictureExtractor:
        """An extractor at the start of an epoch."""
        return PictureExtractor(self)

    def embed(self, pixels: NDArray[np.uint8]) -> Floats:
        """(B, 224, 224, 3) RGB bytes to (B, size)."""
        (values,) = self._network(pixels)
        return values


@dataclass(frozen=True, slots=True)
class _Value:
    """The network's output for a picture."""

    picture: Picture
    values: Floats


class PictureExtractor:
    """Picture cells of one epoch.

    A cell has the picture within it that is nearest to its centre. Without one it has the last picture before, if that
    is no older than `hold_s` at the cell's centre; else the cell is not valid. A picture that several cells have is
    computed once, and one that is still (`PictureSpec.still`) not at all: it is compared with the last computed one, so
    slow changes add up until they are seen.

    `stride` sheds work and may change at any time; its value when a batch of cells is complete applies to the batch.
    Of the cells that the spec has computed, only every `stride`-th is, and the others repeat the cell before them. With
    0 no cell is computed, and none is valid.
    """

    def __init__(self, factory: Pictures) -> None:
        self.stride = 1
        self._factory = factory
        self._next = 0  # the next cell to be returned; a multiple of BATCH until the end
        self._chosen: list[
            Picture | None
        ] = []  # the pictures of the cells from there on; fewer than BATCH between calls
        self._last: Picture | None = None  # the newest picture
        self._kept: _Value | None = None  # the value of the last returned cell

    def push(self, item: Chunk | Picture) -> Cells:
        """Process a picture and return the batches of cells for which no nearer one can come.

        Raises:
            ValueError: the item is audio, or a picture that is not later than the one before.

        """
        if not isinstance(item, Picture) or item.pixels.shape != (PICTURE_SIDE, PICTURE_SIDE, 3):
            name = self._factory.name
            raise ValueError(f"{name} cells are made from pictures of {PICTURE_SIDE} x {PICTURE_SIDE} RGB pixels")
        if self._last is not None and item.at <= self._last.at:
            raise ValueError(f"a picture at {item.at} does not follow one at {self._last.at}")
        self._choose((item.at + CELL // 2) // CELL, item)  # cells whose centre is not later than this picture
        self._last = item
        return self._give(len(self._chosen) - len(self._chosen) % BATCH)

    def flush(self, cells: int) -> Cells:
        """End the pictures and return all remaining cells below `cells`."""
        self._choose(cells, None)
        return self._give(max(min(len(self._chosen), cells - self._next), 0))

    def _choose(self, stop: int, coming: Picture | None) -> None:
        """Decide which picture the cells below `stop` have, now that `coming` follows the last one."""
        decided = range(self._next + len(self._chosen), stop)
        self._chosen.extend(self._nearest(cell, coming) for cell in decided)

    def _nearest(self, cell: int, coming: Picture | None) -> Picture | None:
        start, middle = cell * CELL, cell * CELL + CELL // 2
        before = self._last
        inside = [one for one in (before, coming) if one is not None and start <= one.at < start + CELL]
        if inside:
            return min(inside, key=lambda one: abs(one.at - middle))
        if before is not None and before.at < start and middle - before.at <= self._factory.hold:
            return before
        return None

    def _give(self, count: int) -> Cells:
        """Compute and return `count` of the cells whose pictures are chosen."""
        start = self._next
        # Rows that are never written take no memory, however long there were no pictures.
        values = np.zeros((count, *self._factory.shape), np.float32)
        valid = np.zeros(count, np.bool_)
        for first in range(0, count, BATCH):
            batch = slice(first, min(first + BATCH, count))
            self._compute(start + first, self._chosen[batch], values[batch], valid[batch])
        del self._chosen[:count]
        self._next += count
        return Cells(start, values, valid)

    def _compute(self, start: int, chosen: list[Picture | None], values: Floats, valid: Bools) -> None:
        """Fill `values` and `valid` of the cells from `start`."""
        # What each cell has: the index of a picture in `pictures`, or a value that an earlier batch computed.
        pictures: list[Picture] = []
        places: list[int | _Value | None] = []
        place: int | _Value | None = self._kept
        step = self.stride * self._factory.every_cells
        for cell, picture in enumerate(chosen, start):
            if step == 0 or (cell % step == 0 and picture is None):
                place = None
            elif cell % step == 0 and picture is not None:
                last = pictures[place] if isinstance(place, int) else place.picture if place is not None else None
                if last is None or not self._factory.is_still(picture, last):
                    place = len(pictures)
                    pictures.append(picture)
            places.append(place)
        computed = self._factory.embed(np.stack([one.pixels for one in pictures])) if pictures else values[:0]
        for row, place in enumerate(places):
            if place is not None:
                values[row] = place.values if isinstance(place, _Value) else computed[place]
                valid[row] = True
        self._kept = _Value(pictures[place], computed[place].copy()) if isinstance(place, int) else place
