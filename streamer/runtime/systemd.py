"""Notifies systemd of the daemon's state: `READY=1`, `WATCHDOG=1`, `STOPPING=1` (sd_notify(3)), without a library.

The protocol is a datagram of `NAME=value` lines to the Unix socket that `NOTIFY_SOCKET` names; a leading `@` stands
for the zero byte of an abstract socket name.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping


class Notifier:
    """Sends to the socket that `NOTIFY_SOCKET` names; does nothing if it is not set.

    `watchdog_s` is how often `WATCHDOG=1` is due: half of what systemd allows (sd_watchdog_enabled(3)); None if it is
    not asked for.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        """`environ` is the process's environment. `WATCHDOG_PID` may name another process than `pid`."""
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        self.watchdog_s = int(usec) / 2e6 if self._address and ours and usec.isdigit() and int(usec) > 0 else None

    def send(self, *lines: str) -> bool:
        """Send `lines` (`NAME=value`) in one datagram; False if there is no socket or sending fails."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)  # a full socket must not block the daemon
                out.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True
