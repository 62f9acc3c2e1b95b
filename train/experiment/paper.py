"""What Boes & Van hamme (2021) report, for tables that print ours beside it."""

from __future__ import annotations

from collections.abc import Mapping

from train.experiment.metrics import Metric

METRICS: tuple[Metric, ...] = ("clip_micro", "segment_micro", "event_macro")
"""The columns of table 3 (paper section 4.3.2)."""
TABLE_3: Mapping[str, tuple[float, float, float]] = {
    "S": (76.22, 70.09, 33.03),
    "V": (61.60, 51.83, 15.68),
    "A": (78.17, 70.20, 18.83),
    "S+V": (80.72, 73.81, 32.58),
    "S+A": (81.03, 74.74, 33.40),
    "A+V": (80.04, 71.01, 22.31),
    "S+A+V": (83.72, 76.86, 32.65),
}
"""Table 3: inputs (S: spectral, A: pretrained auditory, V: pretrained visual) -> F1 in percent, by `METRICS`."""
INITIALISATIONS = 20
"""Systems trained for each row (paper section 5)."""
KEPT = 5
"""Of these, those with the best validation scores, whose test scores are averaged (paper section 5)."""
STEPS = 50_000
"""200 epochs of 250 batches (paper section 4.3.1)."""
BATCH = 48
"""Clips of a batch (paper section 4.3.1)."""


def figure(row: str, metric: Metric) -> float | None:
    """A figure of table 3 as a share of 1; None if it has no such row or column."""
    if row not in TABLE_3 or metric not in METRICS:
        return None
    return TABLE_3[row][METRICS.index(metric)] / 100
