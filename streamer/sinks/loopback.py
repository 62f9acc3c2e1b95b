"""Resolves a host name to loopback addresses.

Of two programs that resolve `localhost`, one may choose 127.0.0.1 and the other ::1, so that they never connect.
Therefore a server binds to all addresses of a name, and a client tries them all.
"""

from __future__ import annotations

import ipaddress
import socket


def loopback_addresses(host: str) -> list[str]:
    """The loopback addresses of `host` (a name, or an IP address with or without brackets), IPv4 first.

    Addresses that this machine does not have are left out. [] if `host` is unknown or has any other address.
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
    """Whether this machine has the address; many have no IPv6."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
