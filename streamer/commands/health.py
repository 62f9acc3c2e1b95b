"""`earwitness health`: checks a running daemon, for containers that have no curl."""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from streamer.address import Address
from streamer.commands.options import add_config_file
from streamer.config.loading import load_config
from streamer.config.schema import DaemonConfig, HttpConfig
from streamer.errors import UsageError
from streamer.escapes import printable
from streamer.private import read_text

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_TIMEOUT_S = 5.0
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "*": "127.0.0.1"}
"""Which address to check if a daemon listens on all of its machine's addresses."""


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `health`."""
    parser = subparsers.add_parser(
        "health",
        help="check whether a running daemon is healthy",
        description="Requests /healthz from a running daemon, prints one line, and exits with 0 if the daemon is "
        "healthy or 1 if not. A lost source does not make the daemon unhealthy: see --ready.",
        epilog="example: earwitness health --config /etc/earwitness/earwitness.yaml",
    )
    add_config_file(parser)
    parser.add_argument("--url", help="URL of the daemon's HTTP port (default: from `metrics` in the config)")
    parser.add_argument(
        "--ready",
        action="store_true",
        help="request /readyz instead: is every source connected, ended or waiting to reconnect?",
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print one line; returns 0 if the daemon is healthy, 1 if it is not or does not answer."""
    config = DaemonConfig() if args.config is None else load_config(args.config, os.environ)
    base = base_url(args.url, config)
    ok, found = asked(base, "/readyz" if args.ready else "/healthz", config.http)
    words = ("ready", "not ready") if args.ready else ("healthy", "unhealthy")
    line = f"{words[not ok]}: {found}"
    print(printable(line), file=sys.stdout if ok else sys.stderr)
    return 0 if ok else 1


def base_url(url: str | None, config: DaemonConfig) -> str:
    """The URL of the daemon's HTTP port, without a path.

    Raises:
        UsageError: the URL is invalid, or `metrics` is off in the config.

    """
    if url is not None:
        address = Address.parse(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise UsageError(f"--url {address}: must be like http://127.0.0.1:9464")
        return url.rstrip("/").removesuffix("/healthz").removesuffix("/readyz")
    if config.metrics is None:
        raise UsageError("`metrics` is off in the config, so there is nothing to check: set it to an address")
    host, _, port = config.metrics.rpartition(":")
    return f"http{'' if config.http.cert is None else 's'}://{_ANY.get(host, host)}:{port}"


def asked(base: str, path: str, http: HttpConfig) -> tuple[bool, str]:
    """Whether the daemon at `base` is well, and its address or what is wrong.

    Raises:
        KeysError: the token can't be read.

    """
    headers = {} if http.token is None else {"Authorization": f"Bearer {read_text(http.token).strip()}"}
    shown = Address.parse(base)
    try:
        # Not through a proxy, which would hide faults of the local network.
        answer = httpx.get(base + path, timeout=_TIMEOUT_S, trust_env=False, headers=headers, verify=_trust(http.cert))
        body = answer.json()
    except httpx.TimeoutException:
        return False, f"{shown} does not answer within {_TIMEOUT_S:.0f} s: the daemon hangs or is overloaded"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return False, f"{shown} can't be reached: {error}; is the daemon running, with this address as `metrics`?"
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("ok"), bool):
        return (
            False,
            f"{shown} answers {answer.status_code}, but not like Earwitness: does another program use this address?",
        )
    ok = answer.status_code == 200 and body["ok"]
    return ok, str(shown) if ok else _reason(body)


def _trust(cert: Path | None) -> ssl.SSLContext | bool:
    """Trust the daemon's own certificate alone, whatever host name it is valid for."""
    if cert is None:
        return True
    try:
        context = ssl.create_default_context(cafile=cert)
    except (OSError, ssl.SSLError):
        raise UsageError(f"{cert} can't be read as a certificate (PEM); see http.cert in the config") from None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _reason(body: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in body.items() if name not in ("ok", "streams")})
