"""Times the stages of the pipelines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from streamer.runtime.metrics import Metrics


class Stopwatch:
    """Times the stages of the pipelines, for metrics and for shedding load."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.spent_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the `with` block as one step of the stage `name`."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            took_s = time.perf_counter() - began_s
            self.spent_s[name] = self.spent_s.get(name, 0.0) + took_s
            self._metrics.stage(name, took_s)
