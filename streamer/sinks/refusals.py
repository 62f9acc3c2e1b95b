"""Counts refused connections by reason, and logs them at a limited rate, so that a port scan can't fill the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

ZMQ_REASONS = {
    "unknown_key": "its key is not on the allow-list",
    "revoked_key": "its key was revoked",
    "wrong_server_key": "its key file is for another daemon (wrong server-key)",
    "no_key": "it has no key",
    "unwanted_key": "it uses a key, but this daemon has none: set publish.keys, or remove the key there",
    "not_zeromq": "it does not speak ZeroMQ",
    "closed": "it disconnected before the handshake was complete",
    "timeout": "it did not complete the handshake in time",
    "no_descriptors": "no file descriptors are left: raise the limit (ulimit -n)",
    "other": "it violated the protocol",
}
"""Why a connection to a ZeroMQ socket can be refused."""
HTTP_REASONS = {
    "no_token": "it sent no token (Authorization: Bearer)",
    "wrong_token": "its token is wrong",
    "no_tls": "its TLS handshake failed: it does not use TLS, or does not trust our certificate",
    "malformed": "its request is malformed",
    "closed": "it disconnected before it sent a request",
    "timeout": "it did not send its request in time",
    "crowded": "too many connections were open, and it was the oldest",
}
"""Why a request for /metrics, /healthz or /readyz can be refused."""
_HARMLESS = frozenset({"not_zeromq", "closed", "timeout", "malformed"})
"""What load balancers and port scanners do all day: not worth a warning."""
_LOG_EVERY_S = 60.0
_WAIT_S = 2.0
"""How long a line waits for an address: ZeroMQ may close a connection before we can read it, but most peers retry."""


@dataclass(slots=True)
class _Logged:
    at_s: float
    suppressed: int = 0  # refusals since then, which were not logged


@dataclass(slots=True)
class _Waiting:
    since_s: float
    endpoint: str
    count: int = 1


class Refusals:
    """The refused connections of one daemon's sockets, or of its HTTP port. Any thread may read `counts`."""

    def __init__(self, clock_s: Callable[[], float], reasons: Mapping[str, str] = ZMQ_REASONS) -> None:
        """`clock_s` is monotonic; `reasons` are all possible reasons, with the text that is logged for each."""
        self._reasons = reasons
        self.counts: Counter[str] = Counter(dict.fromkeys(reasons, 0))
        """Refusals by reason."""
        self._clock_s = clock_s
        self._logged: dict[str, _Logged] = {}
        self._waiting: dict[str, _Waiting] = {}

    def push(self, reason: str, endpoint: str, peer: str, name: str = "") -> None:
        """Count a refused connection from `peer` ("": unknown) to `endpoint`; `name` is that of a known key."""
        reason = reason if reason in self._reasons else "other"
        self.counts[reason] += 1
        now_s = self._clock_s()
        logged = self._logged.get(reason)
        if logged is not None and now_s - logged.at_s < _LOG_EVERY_S:
            logged.suppressed += 1
        elif peer:
            self._log(reason, endpoint, f"{peer} ({name})" if name else peer, now_s)
        elif reason in self._waiting:
            self._waiting[reason].count += 1
        else:
            self._waiting[reason] = _Waiting(now_s, endpoint)

    def poll(self) -> None:
        """Log the refusals that have waited for an address in vain; to be called often."""
        now_s = self._clock_s()
        for reason, one in list(self._waiting.items()):
            if now_s - one.since_s >= _WAIT_S:
                self._log(reason, one.endpoint, "a peer whose address is unknown", now_s)

    def _log(self, reason: str, endpoint: str, peer: str, now_s: float) -> None:
        waiting, logged = self._waiting.pop(reason, None), self._logged.get(reason)
        expired = waiting is not None and waiting.since_s + _WAIT_S <= now_s  # this line is about one of these
        others = (waiting.count - expired if waiting else 0) + (logged.suppressed if logged else 0)
        self._logged[reason] = _Logged(now_s)
        more = f"; and {others} more for this reason since it was last logged" if others else ""
        level = logging.INFO if reason in _HARMLESS else logging.WARNING
        log.log(level, "%s: refused %s: %s (%s)%s", endpoint, peer, self._reasons[reason], reason, more)
