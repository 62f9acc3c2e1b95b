"""The settings of a class's decoding that tuning chooses from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from streamer.decoding import ClassDecoding

ONSET_THRESHOLDS = (0.1, 0.9)
"""The lowest and the highest."""
NEIGHBOUR = 0.1
"""Distance in onset threshold of the two settings with which a setting's merit is smoothed."""
OFFSET_SHARES = (0.4, 1.0)
"""The lowest and the highest offset threshold, as a share of the onset threshold."""
MEDIANS = (1, 13)
"""The shortest and the longest median filter, in cells."""
TAG_THRESHOLDS = tuple(round(0.1 + 0.05 * step, 2) for step in range(17))
_LOWEST_OFFSET = 0.05
_GRID_ONSETS = tuple(round(0.1 * step, 1) for step in range(1, 10))
_GRID_SHARES = (0.4, 0.7, 1.0)
_GRID_MEDIANS = (1, 3, 5, 7, 9, 13)


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """How posteriors become events; the same for all classes when it is tried."""

    median_cells: int
    onset_threshold: float
    offset_share: float  # offset threshold / onset threshold

    def decoding(self, tag_threshold: float = 0.5) -> ClassDecoding:
        """The decoding of a class with this setting."""
        offset = max(_LOWEST_OFFSET, round(self.onset_threshold * self.offset_share, 3))
        return ClassDecoding(self.onset_threshold, offset, self.median_cells, tag_threshold)

    def smoothed_with(self) -> tuple[tuple[Setting, float], ...]:
        """The settings whose mean merit is this one's, with their weights, so that no lucky point wins.

        They differ in onset threshold; beyond the limits the outermost one counts again.
        """
        low, high = ONSET_THRESHOLDS
        steps = ((-NEIGHBOUR, 0.25), (0.0, 0.5), (NEIGHBOUR, 0.25))
        onsets = [(min(max(round(self.onset_threshold + step, 3), low), high), weight) for step, weight in steps]
        return tuple((Setting(self.median_cells, onset, self.offset_share), weight) for onset, weight in onsets)


def grid(longest_median: int = MEDIANS[1]) -> tuple[Setting, ...]:
    """The settings of the grid whose median filters have up to `longest_median` cells."""
    medians = [one for one in _GRID_MEDIANS if one <= longest_median]
    return tuple(Setting(*one) for one in product(medians, _GRID_ONSETS, _GRID_SHARES))
