"""What the defaults promise about time, for tests that measure it."""

from streamer.timeline import seconds
from streamer.types import CELL
from streamer.windows import StreamSettings

LOOKAHEAD_S = seconds(StreamSettings().lookahead_cells * CELL)
LATENCY_LIMIT_S = LOOKAHEAD_S + seconds(StreamSettings().hop_cells * CELL) + 0.7
"""Within which an onset must be said, from the moment it sounded."""
