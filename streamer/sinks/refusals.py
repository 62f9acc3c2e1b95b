"""Who was not let in, and why: counted by reason, and logged so that a port scan does not fill the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

ZMQ_REASONS = {
    "unknown_key": "its key is not on the list",
    "revoked_key": "its key was revoked",
    "wrong_server_key": "it takes this daemon for another one: the server's key in its key file is wrong",
    "no_key": "it has no key",
    "unwanted_key": "it has a key, and this daemon has none: set publish.keys, or leave its key out",
    "not_zeromq": "it does not speak ZeroMQ",
    "closed": "it left before it had said who it is",
    "timeout": "it did not say who it is in time",
    "no_descriptors": "no file descriptors are left: raise the limit (ulimit -n)",
    "other": "it could not be understood",
}
"""What can go wrong at a ZeroMQ socket between a connection and its first message."""
HTTP_REASONS = {
    "no_token": "it sent no token (Authorization: Bearer)",
    "wrong_token": "its token is wrong",
    "no_tls": "it does not speak TLS, or does not trust our certificate",
    "malformed": "its request could not be understood",
    "closed": "it left before it had asked for anything",
    "timeout": "it took too long",
    "crowded": "more connections than we hold at a time were open, and it was the oldest",
}
"""What can go wrong with a request for /metrics, /healthz or /readyz."""
_HARMLESS = frozenset({"not_zeromq", "closed", "timeout", "malformed"})
"""What load balancers and port scanners do all day: no reason to warn."""
_SAY_EVERY_S = 60.0


_WAIT_S = 2.0
"""How long a line waits for the address of somebody who comes again: ZeroMQ may be done before we can ask for it."""


@dataclass(slots=True)
class _Told:
    at_s: float
    since: int = 0  # how many came since, which were not told


@dataclass(slots=True)
class _Untold:
    since_s: float
    endpoint: str
    count: int = 1


class Refusals:
    """The refusals of one daemon at its sockets, or at its HTTP port. One thread writes; any may read `counts`."""

    def __init__(self, clock_s: Callable[[], float], reasons: Mapping[str, str] = ZMQ_REASONS) -> None:
        """`clock_s` is monotonic; `reasons` are all there are, with what is said of each."""
        self._reasons = reasons
        self.counts: Counter[str] = Counter(dict.fromkeys(reasons, 0))
        """How often each reason was met."""
        self._clock_s = clock_s
        self._told: dict[str, _Told] = {}
        self._untold: dict[str, _Untold] = {}

    def push(self, reason: str, endpoint: str, peer: str, name: str = "") -> None:
        """Somebody at `peer` ("": not known), whose key is called `name` if it is known, was refused at `endpoint`."""
        reason = reason if reason in self._reasons else "other"
        self.counts[reason] += 1
        now_s = self._clock_s()
        told = self._told.get(reason)
        if told is not None and now_s - told.at_s < _SAY_EVERY_S:
            told.since += 1
        elif peer:
            self._say(reason, endpoint, f"{peer} ({name})" if name else peer, now_s)
        elif reason in self._untold:
            self._untold[reason].count += 1
        else:
            self._untold[reason] = _Untold(now_s, endpoint)

    def poll(self) -> None:
        """Say what has waited for an address in vain; to be called often."""
        now_s = self._clock_s()
        for reason, one in list(self._untold.items()):
            if now_s - one.since_s >= _WAIT_S:
                self._say(reason, one.endpoint, "somebody who was gone before his address could be asked for", now_s)

    def _say(self, reason: str, endpoint: str, who: str, now_s: float) -> None:
        untold, told = self._untold.pop(reason, None), self._told.get(reason)
        alone = untold is not None and untold.since_s + _WAIT_S <= now_s  # it is this one that is told now
        others = (untold.count - alone if untold else 0) + (told.since if told else 0)
        self._told[reason] = _Told(now_s)
        more = f"; and {others} more for this since the last such line" if others else ""
        level = logging.INFO if reason in _HARMLESS else logging.WARNING
        log.log(level, "%s: refused %s: %s (%s)%s", endpoint, who, self._reasons[reason], reason, more)
