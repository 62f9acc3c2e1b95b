"""Whether a source is who it says it is: the certificates of RTSPS, HTTPS and RTMPS.

FFmpeg verifies nothing unless it is told to, and then does not say what was wrong: we ask once more, in Python.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from streamer.address import Address
from streamer.errors import SourceError

TLS_PORTS = {"rtsps": 322, "https": 443, "rtmps": 443, "tls": 443}
"""The schemes that are TLS, with FFmpeg's default ports."""
_MAY_BECOME_TLS = {"http"}
"""By a redirect."""
_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
"""Where systems keep the authorities that they trust. The FFmpeg in PyAV's wheel looks where it was built."""
_ASK_S = 3.0
_SELF_SIGNED, _UNKNOWN_ISSUER, _NOT_YET, _EXPIRED, _OTHER_NAME = {18, 19}, {2, 20, 21}, {9}, {10}, {62, 64}
"""OpenSSL's verify codes (x509_vfy.h)."""


def tls_options(address: Address, *, verify: bool, ca_file: Path | None) -> dict[str, str]:
    """FFmpeg's options for who is trusted; {} where there can be no TLS.

    Raises:
        SourceError: `ca_file` can't be used.

    """
    if address.scheme not in (*TLS_PORTS, *_MAY_BECOME_TLS):
        return {}
    if not verify:
        return {"tls_verify": "0"}
    trusted = _usable(address, ca_file) if ca_file is not None else system_ca_file()
    return {"tls_verify": "1", **({"ca_file": str(trusted)} if trusted is not None else {})}


def system_ca_file() -> Path | None:
    """The authorities that this machine trusts; None if it has no such file."""
    found = ssl.get_default_verify_paths().cafile
    return next((Path(one) for one in (found, *_CA_FILES) if one is not None and os.path.isfile(one)), None)


def tls_problem(address: Address, options: Mapping[str, str], within_s: float) -> SourceError | None:
    """Why no TLS connection can be had with these FFmpeg options; None if one can. Connects to find out."""
    if address.scheme not in TLS_PORTS or not address.host:
        return None
    verify = options.get("tls_verify", "0") != "0"
    context = ssl.create_default_context(cafile=options.get("ca_file") or options.get("cafile"))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    port = address.port or TLS_PORTS[address.scheme]
    name = options.get("verifyhost", address.host)
    try:
        with socket.create_connection((address.host, port), min(within_s, _ASK_S)) as plain:
            plain.settimeout(min(within_s, _ASK_S))
            context.wrap_socket(plain, server_hostname=name).close()
    except ssl.SSLCertVerificationError as error:
        return SourceError("tls", f"{address}: {_why(error, name, f'{address.host}:{port}')}")
    except ssl.SSLError:
        return SourceError("tls", f"{address}: no TLS connection: check that this port speaks TLS")
    except (OSError, ValueError):
        return None
    return None


def _why(error: ssl.SSLCertVerificationError, name: str, place: str) -> str:
    code = error.verify_code
    fetch = f"`openssl s_client -connect {place} </dev/null | openssl x509 > camera.pem`"
    trust = f"if it is yours, fetch it ({fetch}) and name it as the stream's ca_file"
    if code in _OTHER_NAME:
        return (
            f"the certificate is for another name than {name}: connect by its own name, or set the stream's "
            "ffmpeg: {verifyhost: NAME}"
        )
    if code in _SELF_SIGNED:
        return f"the certificate is signed by itself, so it can't be verified: {trust} (verify: false trusts anybody)"
    if code in _UNKNOWN_ISSUER:
        return "the certificate is signed by nobody who is trusted: name its authority's as the stream's ca_file"
    if code in _EXPIRED | _NOT_YET:
        when = "has expired" if code in _EXPIRED else "is not valid yet"
        return f"the certificate {when}: renew it, and check the clocks of both machines"
    return f"the certificate can't be verified ({error.verify_message}): see the stream's ca_file and verify"


def _usable(address: Address, ca_file: Path) -> Path:
    ca_file = ca_file.expanduser()
    with suppress(OSError, ssl.SSLError, UnicodeError):
        ssl.create_default_context(cafile=ca_file)
        return ca_file
    raise SourceError("tls", f"{address}: its ca_file {ca_file} can't be read as certificates (PEM): check the path")
