"""Verifies the certificates of RTSPS, HTTPS and RTMPS sources.

By default FFmpeg verifies nothing, and its errors do not say what is wrong: after one we connect again, in Python.
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
"""Through a redirect."""
_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
"""Where common systems keep trusted CA certificates. PyAV's FFmpeg only looks where its build machine had them."""
_CONNECT_S = 3.0
_SELF_SIGNED, _UNKNOWN_ISSUER, _NOT_YET, _EXPIRED, _OTHER_NAME = {18, 19}, {2, 20, 21}, {9}, {10}, {62, 64}
"""OpenSSL's verify codes (x509_vfy.h)."""


def tls_options(address: Address, *, verify: bool, ca_file: Path | None) -> dict[str, str]:
    """FFmpeg's options for verifying certificates; {} for sources without TLS.

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
    """The file of CA certificates that this machine trusts; None if there is none."""
    found = ssl.get_default_verify_paths().cafile
    return next((Path(one) for one in (found, *_CA_FILES) if one is not None and os.path.isfile(one)), None)


def tls_problem(address: Address, options: Mapping[str, str], within_s: float) -> SourceError | None:
    """Why a TLS connection with these FFmpeg options fails; None if it does not. Connects to find out."""
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
        with socket.create_connection((address.host, port), min(within_s, _CONNECT_S)) as plain:
            plain.settimeout(min(within_s, _CONNECT_S))
            context.wrap_socket(plain, server_hostname=name).close()
    except ssl.SSLCertVerificationError as error:
        return SourceError("tls", f"{address}: {_why(error, name, f'{address.host}:{port}')}")
    except ssl.SSLError:
        return SourceError("tls", f"{address}: the TLS handshake failed: check that this port uses TLS")
    except (OSError, ValueError):
        return None
    return None


def _why(error: ssl.SSLCertVerificationError, name: str, place: str) -> str:
    code = error.verify_code
    fetch = f"`openssl s_client -connect {place} </dev/null | openssl x509 > camera.pem`"
    trust = f"if the server is yours, save its certificate ({fetch}) and set the stream's ca_file to it"
    if code in _OTHER_NAME:
        return (
            f"the certificate is not valid for {name}: use the name in the certificate in the URL, or set the stream's "
            "ffmpeg: {verifyhost: NAME}"
        )
    if code in _SELF_SIGNED:
        return f"the certificate is self-signed: {trust} (verify: false accepts any certificate)"
    if code in _UNKNOWN_ISSUER:
        return "the certificate's issuer is not trusted: set the stream's ca_file to the certificate of its CA"
    if code in _EXPIRED | _NOT_YET:
        when = "has expired" if code in _EXPIRED else "is not valid yet"
        return f"the certificate {when}: renew it, or correct the clock of this machine or the server"
    return f"the certificate can't be verified ({error.verify_message}): see the stream's ca_file and verify"


def _usable(address: Address, ca_file: Path) -> Path:
    ca_file = ca_file.expanduser()
    with suppress(OSError, ssl.SSLError, UnicodeError):
        ssl.create_default_context(cafile=ca_file)
        return ca_file
    raise SourceError(
        "tls", f"{address}: its ca_file {ca_file} can't be read, or holds no PEM certificates: check the path"
    )
