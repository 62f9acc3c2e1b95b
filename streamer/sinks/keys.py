"""Key files: the daemon's own key, the allow-list of its subscribers, and what a subscriber takes with it.

    FOLDER/server.key               the daemon's key pair, secret
    FOLDER/clients/NAME.public      may come in, while the file is there
    FOLDER/revoked/NAME.public      may not any more; kept so that the log can say who still tries
    NAME.key                        goes to the subscriber: its key pair, and the daemon's public key

All are certificates in the format of CZMQ and `zmq.auth` (ZPL, ZeroMQ RFC 4), with keys in Z85 (RFC 32).
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
    """What a subscriber needs, in Z85: its own key pair, and the public key of the daemon that it wants to hear."""

    name: str
    public: str
    secret: str = field(repr=False)
    server_public: str

    @classmethod
    def load(cls, path: str | Path) -> ClientKey:
        """Read a file that `earwitness keys new` made. Raises `KeysError`."""
        path = Path(path)
        values = _read(path, secret=True)
        pair = _pair(path, values)
        if "server-key" not in values:
            raise KeysError(f"{path} is no subscriber's key: use the file that `earwitness keys new NAME` wrote")
        return cls(values.get("name", ""), pair.public, pair.secret, _key(path, values, "server-key"))


@dataclass(frozen=True, slots=True)
class AllowList:
    """The public keys of those who may come in, and of those who may not any more, with their names."""

    allowed: Mapping[str, str]
    revoked: Mapping[str, str]
    faults: tuple[str, ...] = ()
    """A line for each file that is no key; what is in it lets nobody in."""


class KeyFolder:
    """A daemon's folder of keys."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._server = self.path / "server.key"
        self._clients = self.path / "clients"
        self._revoked = self.path / "revoked"

    def server(self) -> ServerKey:
        """The daemon's key.

        Raises:
            KeysError: there is none, it is damaged, or others could read or change it.

        """
        if not self._server.exists():
            new = f"earwitness keys new NAME --keys {quote(str(self.path))}"
            raise KeysError(f"{self.path} holds no keys: make them with `{new}`")
        for folder in (self.path, self._clients):
            check_folder(folder)
        return _pair(self._server, _read(self._server, secret=True))

    def allow_list(self) -> AllowList:
        """Who may come in now. Raises `KeysError` if that can't be told."""
        faults: list[str] = []
        revoked = _public_keys(self._revoked, faults)
        allowed = _public_keys(self._clients, faults)
        if allowed is None:
            raise KeysError(f"{self._clients} can't be read: without it nobody can be let in")
        still = {key: name for key, name in allowed.items() if key not in (revoked or {})}
        return AllowList(still, revoked or {}, tuple(faults))

    def state(self) -> object:
        """Something that changes when the allow-list may have changed."""
        return tuple(_listing(folder) for folder in (self._clients, self._revoked))

    def new(self, name: str, to: Path, public: str | None = None) -> bool:
        """Let `name` in; its key goes to the file `to`, unless it has a pair of its own whose `public` key this is.

        Gives whether the daemon's key was made too.

        Raises:
            KeysError: the name is none, or taken; a file is there already, or can't be written.

        """
        if not NAME.fullmatch(name) or name.startswith("."):
            raise KeysError(f"{name!r}: names are 1 to 64 letters, digits, '_', '.' and '-', and don't begin with '.'")
        entry = self._clients / f"{name}{_PUBLIC}"
        taken = f"{name} has a key already: choose another name, or first `earwitness keys revoke {name}`"
        if os.path.lexists(entry):
            raise KeysError(taken)
        if public is None and os.path.lexists(to):
            raise KeysError(f"{to} is there already: move it away, or choose another file with --to")
        if public is not None and not _Z85.fullmatch(public):
            raise KeysError("--public takes a CURVE public key: 40 characters, in Z85")
        for folder in (self.path, self._clients, self._revoked):
            _make_folder(folder)
        known = self.allow_list()
        if public is not None and public in known.revoked:
            raise KeysError(f"this key was revoked, as {known.revoked[public]}: it needs a new one")
        if public is not None and public in known.allowed:
            raise KeysError(f"this key may come in already, as {known.allowed[public]}")
        made = not self._server.exists()
        if made:
            _write(self._server, "the key of this daemon: keep it secret", "server", _new_pair())
        server = self.server()
        pair = _new_pair() if public is None else {"public-key": public}
        try:
            if public is None:
                secret = f"the key of {name}: who has this file can read all messages"
                _write(to, secret, name, {**pair, "server-key": server.public})
            _write(entry, f"lets {name} in, while it is here", name, {"public-key": pair["public-key"]})
        except KeysError:
            if not os.path.lexists(entry):
                raise
            raise KeysError(taken) from None  # somebody else did it in the meantime
        return made

    def revoke(self, name: str) -> None:
        """Let `name` in no more. Raises `KeysError` if there is no such name, or it can't be done."""
        entry = self._clients / f"{name}{_PUBLIC}"
        if not NAME.fullmatch(name) or not entry.exists():
            names = ", ".join(sorted(self.allow_list().allowed.values())) if self._clients.is_dir() else ""
            raise KeysError(f"nobody is called {name!r}; those who have a key: {names or 'none'}")
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
    """Where `earwitness keys` keeps them: the user's folder of settings."""
    base = environ.get("XDG_CONFIG_HOME") or ""
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "earwitness" / "keys"


def _new_pair() -> dict[str, str]:
    public, secret = zmq.curve_keypair()
    return {"public-key": public.decode(), "secret-key": secret.decode()}


def _pair(path: Path, values: Mapping[str, str]) -> ServerKey:
    public, secret = _key(path, values, "public-key"), _key(path, values, "secret-key")
    if zmq.curve_public(secret.encode()).decode() != public:
        raise KeysError(f"{path} is damaged: its public key does not belong to its secret key; take it from a copy")
    return ServerKey(public, secret)


def _key(path: Path, values: Mapping[str, str], name: str) -> str:
    if not _Z85.fullmatch(values.get(name, "")):
        found = "holds none" if name not in values else "is damaged"
        raise KeysError(f"{path} is no key file: its {name} {found}; make one with `earwitness keys new NAME`")
    return values[name]


def _read(path: Path, *, secret: bool) -> dict[str, str]:
    """The names and values in a certificate. Raises `KeysError`; what is secret must be safe from others."""
    lines = [_LINE.fullmatch(line) for line in read_text(path, secret=secret).splitlines()]
    return {line[1]: line[2] for line in lines if line is not None}


def _make_folder(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise KeysError(f"{folder} can't be made: {error.strerror}") from None
    check_folder(folder)


def _write(path: Path, comment: str, name: str, keys: Mapping[str, str]) -> None:
    """Write a new file for its owner alone; it is there as a whole or not at all, and never takes another's place."""
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
    """The public keys in a folder, with the names of their files; None if it can't be read."""
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
