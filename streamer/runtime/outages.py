"""Logs when a sink begins to fail, while it keeps failing, and when it works again, with the messages lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

_SETTLE_S = 1.0
"""An outage is over after so long without a failure."""
_LONGEST_SETTLE_S = 64.0
"""Limit of that time, which doubles for each outage soon after another, so that the log is not flooded."""
_REMIND_S = 600.0


@dataclass(slots=True)
class _Outage:
    began_s: float
    failed_s: float
    logged_s: float
    lost: int


@dataclass(slots=True)
class _Past:
    ended_s: float
    settle_s: float


class Outages:
    """Logs the outages of a daemon's sinks: a few lines for each, however many messages it costs."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        """`clock_s` is monotonic."""
        self._clock_s = clock_s
        self._open: dict[str, _Outage] = {}
        self._past: dict[str, _Past] = {}

    def failed(self, name: str, why: str, lost: int = 1) -> None:
        """The sink `name` failed, and `lost` messages with it; `why` is logged."""
        now_s = self._clock_s()
        outage = self._open.get(name)
        if outage is None:
            self._open[name] = _Outage(now_s, now_s, now_s, lost)
            log.error("%s: %s", name, why)
            return
        outage.lost += lost
        outage.failed_s = now_s
        if now_s - outage.logged_s >= _REMIND_S:
            outage.logged_s = now_s
            log.error("%s: %s; %s", name, why, _lost(outage, now_s))

    def worked(self, name: str) -> None:
        """The sink `name` works."""
        outage = self._open.get(name)
        if outage is None:
            return
        now_s = self._clock_s()
        settle_s = self._settle_s(name, outage)
        if now_s - outage.failed_s >= settle_s:
            del self._open[name]
            self._past[name] = _Past(now_s, settle_s)
            log.warning("%s: works again; %s", name, _lost(outage, outage.failed_s))

    def close(self) -> None:
        """Log the outages that last until shutdown."""
        for name, outage in self._open.items():
            log.warning("%s: still failing at shutdown; %s", name, _lost(outage, self._clock_s()))
        self._open.clear()

    def _settle_s(self, name: str, outage: _Outage) -> float:
        past = self._past.get(name)
        if past is None or outage.began_s - past.ended_s > 2 * past.settle_s + _SETTLE_S:
            return _SETTLE_S
        return min(2 * past.settle_s, _LONGEST_SETTLE_S)


def _lost(outage: _Outage, now_s: float) -> str:
    count = {0: "no message was", 1: "1 message was"}.get(outage.lost, f"{outage.lost} messages were")
    return f"{count} lost in {now_s - outage.began_s:.0f} s"
