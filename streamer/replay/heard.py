"""What of a clip was not heard, in words: a clip that is cut short or silent must not look like a quiet room."""

from __future__ import annotations

import math

from streamer.timeline import seconds
from streamer.types import CELL
from streamer.windows import Coverage

_SHORTER_S, _SHORTER_SHARE = 0.5, 0.02
"""What a clip may lack of the length that its header says: headers round, and codecs cut a frame off."""
_QUIETEST_PEAK_DBFS = -70.0
"""No microphone in a room stays below: even its own noise is louder."""


def notes_of(
    *,
    expected_s: float | None,
    ends_at_s: float,
    skipped_s: float,
    coverage: Coverage,
    corrupt_packets: int,
    peak: float | None,
) -> tuple[str, ...]:
    """A line for each thing of which a listener should know.

    Args:
        expected_s: the clip's length by its header; None if it says none.
        ends_at_s: where its media ended.
        skipped_s: what its timestamps jumped over.
        coverage: of the cells of the rest.
        corrupt_packets: those that could not be decoded.
        peak: the largest sample, 0 to 1; None for a model that hears nothing.

    """
    notes: list[str] = []
    if expected_s is not None and ends_at_s < expected_s * (1 - _SHORTER_SHARE) - _SHORTER_S:
        notes.append(f"only {ends_at_s:.1f} of its {expected_s:.1f} s are there: cut short, or a track ends early")
    missing_s = skipped_s + seconds((coverage.cells - coverage.covered) * CELL)
    if missing_s:
        notes.append(f"{missing_s:.1f} of {ends_at_s:.1f} s have no media")
    if corrupt_packets:
        notes.append(f"damaged: {corrupt_packets} packets can't be decoded")
    if peak == 0:
        notes.append("digital silence: every sample is 0")
    elif peak is not None and 20 * math.log10(peak) < _QUIETEST_PEAK_DBFS:
        notes.append(f"nearly silent: its loudest sample is at {20 * math.log10(peak):.0f} dBFS")
    return tuple(notes)
