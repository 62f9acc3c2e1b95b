"""Notes on what was not heard of a clip: one that is cut short or silent must not look like a quiet room."""

from __future__ import annotations

from collections.abc import Sequence

from streamer.media.level import Level, input_detail, input_state
from streamer.media.tracks import AudioInput
from streamer.timeline import seconds
from streamer.types import CELL
from streamer.windows import Coverage

_SHORTER_S, _SHORTER_SHARE = 0.5, 0.02
"""How much shorter than its header says a clip may be: headers are rounded, and codecs drop a frame."""


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
    """A line for each thing that a user should know.

    Args:
        expected_s: the clip's length according to its header; None if the header has none.
        ends_at_s: where its media ends.
        skipped_s: the time that its timestamps jumped over.
        coverage: of the remaining cells.
        corrupt_packets: packets that could not be decoded.
        levels: of the audio, second by second; empty for a model without audio.
        audio: the track and channel that was listened to.
        chosen: whether the user chose it.
        clock_fault: one line about an implausible clock, or empty.

    """
    notes: list[str] = []
    if expected_s is not None and ends_at_s < expected_s * (1 - _SHORTER_SHARE) - _SHORTER_S:
        notes.append(
            f"only {ends_at_s:.1f} of its {expected_s:.1f} s are present: it is cut short, or a track ends early"
        )
    missing_s = skipped_s + seconds((coverage.cells - coverage.covered) * CELL)
    if missing_s:
        notes.append(f"{missing_s:.1f} of {ends_at_s:.1f} s have no media")
    if corrupt_packets:
        notes.append(f"damaged: {corrupt_packets} packets can't be decoded")
    if audio is not None and (chosen or audio.tracks > 1):
        notes.append(f"listened to {audio}")
    notes += filter(None, (input_detail(input_state(levels), levels), clock_fault))
    return tuple(notes)
