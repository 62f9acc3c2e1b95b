"""Which addresses of this machine alone a host's name stands for.

Two programs that resolve `localhost` may take another of its addresses each, 127.0.0.1 or ::1, and never meet. So who
listens at a name listens at all of its addresses, and who connects to one tries them all.
"""

from __future__ import annotations

import ipaddress
import socket


def loopback_addresses(host: str) -> list[str]:
    """The IP addresses of `host` (a name, or an address with or without brackets), IPv4 first.

    Only those that this machine has; [] if `host` is unknown, or any of its addresses reaches beyond this machine.
    """
    host = host.removeprefix("[").removesuffix("]")
    if _is_address(host):
        return [host] if ipaddress.ip_address(host).is_loopback else []
    if host.lower().rstrip(".") == "localhost":
        found = {"127.0.0.1", "::1"}  # whatever /etc/hosts says: RFC 6761
    else:
        try:
            found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError):
            return []
        if not all(_is_address(one) and ipaddress.ip_address(one).is_loopback for one in found):
            return []
    return [one for one in sorted(found, key=lambda one: (":" in one, one)) if _is_here(one)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_here(address: str) -> bool:
    """Whether this machine has the address: many have no IPv6."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
