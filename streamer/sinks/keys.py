"""Key files: the daemon's key pair, the allow-list of subscribers, and the key file of each subscriber.

    FOLDER/server.key               the daemon's key pair; secret
    FOLDER/clients/NAME.public      the public key of an allowed subscriber; removing the file revokes it
    FOLDER/revoked/NAME.public      a revoked public key; kept so that the log can name it in later attempts
    NAME.key                        for the subscriber: its key pair, and the daemon's public key

All are certificates in the format of CZMQ and `zmq.auth` (ZPL, ZeroMQ RFC 4); keys are encoded in Z85 (RFC 32).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import zmq

from streamer.errors import KeysError
from streamer.private import check_folder, read_text
from streamer.sinks.wire import NAME

_LINE = re.compile(r'\s*([a-z-]+)\s*=\s*"([^"]*)"\s*(?:#.*)?')
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_PUBLIC = ".public"


@dataclass(frozen=True, slots=True)
class ServerKey:
    """A daemon's key pair, in Z85."""

    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientKey:
    """What a subscriber needs, in Z85: its own key pair, and the public key of the daemon it subscribes to."""

    name: str
    public: str
    secret: str = field(repr=False)
    server_public: str

    @classmethod
    def load(cls, path: str | Path) -> ClientKey:
        """Read a key file written by `earwitness keys new`. Raises `KeysError`."""
        path = Path(path)
        values = _read(path, secret=True)
        pair = _pair(path, values)
        if "server-key" not in values:
            raise KeysError(f"{path} is not a subscriber's key file: use the one that `earwitness keys new NAME` wrote")
        return cls(values.get("name", ""), pair.public, pair.secret, _key(path, values, "server-key"))


@dataclass(frozen=True, slots=True)
class AllowList:
    """The names of allowed and of revoked subscribers, by public key."""

    allowed: Mapping[str, str]
    revoked: Mapping[str, str]
    faults: tuple[str, ...] = ()
    """One line for each invalid file, which is ignored."""


class KeyFolder:
    """A daemon's key folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._server = self.path / "server.key"
        self._clients = self.path / "clients"
        self._revoked = self.path / "revoked"

    def server(self) -> ServerKey:
        """The daemon's key pair.

        Raises:
            KeysError: it is missing or damaged, or other users could read or change it.

        """
        if not self._server.exists():
            new = f"earwitness keys new NAME --keys {quote(str(self.path))}"
            raise KeysError(f"{self.path} contains no keys: create them with `{new}`")
        for folder in (self.path, self._clients):
            check_folder(folder)
        return _pair(self._server, _read(self._server, secret=True))

    def allow_list(self) -> AllowList:
        """The current allow-list. Raises `KeysError` if its folder can't be read."""
        faults: list[str] = []
        revoked = _public_keys(self._revoked, faults)
        allowed = _public_keys(self._clients, faults)
        if allowed is None:
            raise KeysError(f"{self._clients} can't be read: no subscriber can connect without it")
        in_force = {key: name for key, name in allowed.items() if key not in (revoked or {})}
        return AllowList(in_force, revoked or {}, tuple(faults))

    def state(self) -> object:
        """A value that differs from the last one if the allow-list may have changed."""
        return tuple(_listing(folder) for folder in (self._clients, self._revoked))

    def new(self, name: str, to: Path, public: str | None = None) -> bool:
        """Allow the subscriber `name`, and write its key file to `to`.

        A subscriber with a key pair of its own gives its `public` key; then no key file is written. Returns whether
        the daemon's key pair was created too.

        Raises:
            KeysError: the name is invalid or in use, the key is invalid or on the list, or a file exists or can't be
                written.

        """
        if not NAME.fullmatch(name) or name.startswith("."):
            raise KeysError(f"{name!r}: names are 1 to 64 letters, digits, '_', '.' and '-', and can't begin with '.'")
        entry = self._clients / f"{name}{_PUBLIC}"
        taken = f"{name} already has a key: choose another name, or run `earwitness keys revoke {name}` first"
        if os.path.lexists(entry):
            raise KeysError(taken)
        if public is None and os.path.lexists(to):
            raise KeysError(f"{to} already exists: move it, or choose another file with --to")
        if public is not None and not _Z85.fullmatch(public):
            raise KeysError("--public must be a CURVE public key: 40 characters in Z85")
        for folder in (self.path, self._clients, self._revoked):
            _make_folder(folder)
        known = self.allow_list()
        if public is not None and public in known.revoked:
            raise KeysError(f"this key was revoked ({known.revoked[public]}): create a new key pair")
        if public is not None and public in known.allowed:
            raise KeysError(f"this key is already allowed ({known.allowed[public]})")
        made = not self._server.exists()
        if made:
            _write(self._server, "the key pair of this daemon; keep it secret", "server", _new_pair())
        server = self.server()
        pair = _new_pair() if public is None else {"public-key": public}
        try:
            if public is None:
                secret = f"the key of {name}; anyone who has this file can read all messages"
                _write(to, secret, name, {**pair, "server-key": server.public})
            _write(entry, f"the public key of {name}, allowed to subscribe", name, {"public-key": pair["public-key"]})
        except KeysError:
            if not os.path.lexists(entry):
                raise
            raise KeysError(taken) from None  # another process was faster
        return made

    def revoke(self, name: str) -> None:
        """Revoke the key of `name`. Raises `KeysError` if there is no such subscriber, or its file can't be moved."""
        entry = self._clients / f"{name}{_PUBLIC}"
        if not NAME.fullmatch(name) or not entry.exists():
            names = ", ".join(sorted(self.allow_list().allowed.values())) if self._clients.is_dir() else ""
            raise KeysError(f"no subscriber is called {name!r}; allowed: {names or 'none'}")
        _make_folder(self._revoked)
        target = self._revoked / entry.name
        number = 2
        while target.exists():
            target = self._revoked / f"{name}.{number}{_PUBLIC}"
            number += 1
        try:
            os.rename(entry, target)
        except OSError as error:
            raise KeysError(f"{entry} can't be moved to {target}: {error.strerror}") from None


def default_key_folder(environ: Mapping[str, str]) -> Path:
    """The default key folder, in the user's config folder."""
    base = environ.get("XDG_CONFIG_HOME") or ""
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "earwitness" / "keys"


def _new_pair() -> dict[str, str]:
    public, secret = zmq.curve_keypair()
    return {"public-key": public.decode(), "secret-key": secret.decode()}


def _pair(path: Path, values: Mapping[str, str]) -> ServerKey:
    public, secret = _key(path, values, "public-key"), _key(path, values, "secret-key")
    if zmq.curve_public(secret.encode()).decode() != public:
        raise KeysError(f"{path} is damaged: its public and secret key do not match; restore it from a backup")
    return ServerKey(public, secret)


def _key(path: Path, values: Mapping[str, str], name: str) -> str:
    if not _Z85.fullmatch(values.get(name, "")):
        found = "is missing" if name not in values else "is damaged"
        raise KeysError(f"{path} is not a key file: its {name} {found}; create one with `earwitness keys new NAME`")
    return values[name]


def _read(path: Path, *, secret: bool) -> dict[str, str]:
    """The values in a certificate, by name. Raises `KeysError`, also if it is `secret` and others can access it."""
    lines = [_LINE.fullmatch(line) for line in read_text(path, secret=secret).splitlines()]
    return {line[1]: line[2] for line in lines if line is not None}


def _make_folder(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise KeysError(f"{folder} can't be created: {error.strerror}") from None
    check_folder(folder)


def _write(path: Path, comment: str, name: str, keys: Mapping[str, str]) -> None:
    """Write a new file that only its owner can read, atomically and without overwriting another."""
    lines = [f"# Earwitness: {comment}.", "metadata", f'    name = "{name}"', "curve"]
    lines += [f'    {one} = "{value}"' for one, value in keys.items()]
    text = "".join(f"{line}\n" for line in lines).encode()
    try:
        descriptor, made = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(made, path)
            except PermissionError:  # a file system without hard links
                if path.exists():
                    raise FileExistsError(17, "File exists") from None
                os.rename(made, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(made)
    except OSError as error:
        raise KeysError(f"{path} can't be written: {error.strerror}") from None


def _public_keys(folder: Path, faults: list[str]) -> dict[str, str] | None:
    """Subscribers' names by public key, from a folder of `.public` files; None if it can't be read."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(_PUBLIC) and path.name[0] != ".")
    except OSError:
        return None
    found: dict[str, str] = {}
    for path in paths:
        try:
            key = _key(path, _read(path, secret=False), "public-key")
        except KeysError as error:
            faults.append(str(error))
            continue
        found.setdefault(key, path.name.removesuffix(_PUBLIC))
    return found


def _listing(folder: Path) -> object:
    try:
        entries = list(os.scandir(folder))
        return sorted((one.name, (status := one.stat()).st_mtime_ns, status.st_ino, status.st_size) for one in entries)
    except OSError:
        return None
