"""What of a clip was not heard, in words: a clip that is cut short or silent must not look like a quiet room."""

from __future__ import annotations

from collections.abc import Sequence

from streamer.media.level import Level, input_detail, input_state
from streamer.media.tracks import AudioInput
from streamer.timeline import seconds
from streamer.types import CELL
from streamer.windows import Coverage

_SHORTER_S, _SHORTER_SHARE = 0.5, 0.02
"""What a clip may lack of the length that its header says: headers round, and codecs cut a frame off."""


def notes_of(
    *,
    expected_s: float | None,
    ends_at_s: float,
    skipped_s: float,
    coverage: Coverage,
    corrupt_packets: int,
    levels: Sequence[Level],
    audio: AudioInput | None,
    chosen: bool,
    clock_fault: str,
) -> tuple[str, ...]:
    """A line for each thing of which a listener should know.

    Args:
        expected_s: the clip's length by its header; None if it says none.
        ends_at_s: where its media ended.
        skipped_s: what its timestamps jumped over.
        coverage: of the cells of the rest.
        corrupt_packets: those that could not be decoded.
        levels: of what was listened to, second by second; none for a model that hears nothing.
        audio: what was listened to.
        chosen: whether the user had a say in that.
        clock_fault: one line about an implausible clock, or none.

    """
    notes: list[str] = []
    if expected_s is not None and ends_at_s < expected_s * (1 - _SHORTER_SHARE) - _SHORTER_S:
        notes.append(f"only {ends_at_s:.1f} of its {expected_s:.1f} s are there: cut short, or a track ends early")
    missing_s = skipped_s + seconds((coverage.cells - coverage.covered) * CELL)
    if missing_s:
        notes.append(f"{missing_s:.1f} of {ends_at_s:.1f} s have no media")
    if corrupt_packets:
        notes.append(f"damaged: {corrupt_packets} packets can't be decoded")
    if audio is not None and (chosen or audio.tracks > 1):
        notes.append(f"listened to {audio}")
    notes += filter(None, (input_detail(input_state(levels), levels), clock_fault))
    return tuple(notes)
