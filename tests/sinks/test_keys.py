"""Key files: the allow-list, and files that must not be trusted."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zmq.auth

from streamer.errors import KeysError
from streamer.sinks.keys import ClientKey, KeyFolder, default_key_folder


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    keys = KeyFolder(tmp_path / "keys")
    keys.new("kitchen", tmp_path / "kitchen.key")
    return keys


def _client(folder: KeyFolder, name: str = "kitchen") -> Path:
    return folder.path.parent / f"{name}.key"


def test_a_new_key_is_allowed_and_names_the_daemon(folder: KeyFolder) -> None:
    key = ClientKey.load(_client(folder))
    assert key.name == "kitchen"
    assert dict(folder.allow_list().allowed) == {key.public: "kitchen"}
    assert key.server_public == folder.server().public
    assert key.secret not in repr(key)
    assert folder.server().secret not in repr(folder.server())


def test_other_programs_can_read_the_files(folder: KeyFolder) -> None:
    """They are certificates in the format of pyzmq and CZMQ."""
    key, server = ClientKey.load(_client(folder)), folder.server()
    assert zmq.auth.load_certificate(_client(folder)) == (key.public.encode(), key.secret.encode())
    assert zmq.auth.load_certificate(folder.path / "server.key") == (server.public.encode(), server.secret.encode())
    assert zmq.auth.load_certificate(folder.path / "clients/kitchen.public") == (key.public.encode(), None)


def test_certificates_of_other_programs_are_accepted(folder: KeyFolder, tmp_path: Path) -> None:
    public_file, _ = zmq.auth.create_certificates(tmp_path, "hall")
    os.rename(public_file, folder.path / "clients/hall.public")
    assert "hall" in folder.allow_list().allowed.values()


def test_only_the_owner_can_read_secrets_whatever_the_umask(tmp_path: Path) -> None:
    code = "import os, sys; os.umask(0); from streamer.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "keys", "new", "hall", "--keys", str(tmp_path / "a/keys")]
    subprocess.run([*command, "--to", str(tmp_path / "hall.key")], check=True, capture_output=True)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {modes[name] for name in ("server.key", "hall.key", "hall.public")} == {0o600}
    assert {modes[name] for name in ("keys", "clients", "revoked")} == {0o700}
    assert not any(name.startswith(".new") for name in modes)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_secret_that_other_users_can_access_is_refused(folder: KeyFolder, mode: int) -> None:
    for path, read in ((folder.path / "server.key", folder.server), (_client(folder), None)):
        path.chmod(mode)
        with pytest.raises(KeysError, match=f"chmod 600 {path}"):
            read() if read else ClientKey.load(path)
        path.chmod(0o600)


@pytest.mark.parametrize("place", ["", "clients"])
def test_a_folder_that_other_users_can_write_to_is_refused(folder: KeyFolder, place: str) -> None:
    (folder.path / place).chmod(0o777)
    with pytest.raises(KeysError, match=f"chmod 700 {folder.path / place}"):
        folder.server()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_refused(folder: KeyFolder) -> None:
    os.chown(_client(folder), 65534, 65534)
    with pytest.raises(KeysError, match=r"belongs to another user: `sudo chown \d+ "):
        ClientKey.load(_client(folder))
    os.chown(folder.path / "clients", 65534, 65534)
    with pytest.raises(KeysError, match="clients belongs to another user"):
        folder.server()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
def test_a_secret_mounted_by_root_may_be_readable_by_its_group(folder: KeyFolder, tmp_path: Path) -> None:
    """As Kubernetes mounts secrets for a pod that does not run as root."""
    public = Path("/tmp") / f"earwitness-{os.getpid()}.key"  # pytest's own folders are root's
    try:
        public.write_bytes(_client(folder).read_bytes())
        os.chown(public, 0, 65534)
        code = (
            "import os, sys; from streamer.sinks.keys import ClientKey;"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534); ClientKey.load(sys.argv[1])"
        )
        run = [sys.executable, "-c", code, str(public)]
        public.chmod(0o440)
        assert subprocess.run(run, capture_output=True, check=False, env=_importable()).returncode == 0
        public.chmod(0o444)
        assert b"chmod 600" in subprocess.run(run, capture_output=True, check=False, env=_importable()).stderr
    finally:
        public.unlink()


def _importable() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "-", "Ä", "a b", "x" * 65, ".hidden", "a\nb", "a\x00b", "*"]
)
def test_invalid_names(folder: KeyFolder, name: str) -> None:
    before = sorted(folder.path.rglob("*"))
    if name == "-":  # odd, but valid
        folder.new(name, _client(folder, "dash"))
        return
    with pytest.raises(KeysError, match="names are 1 to 64 letters"):
        folder.new(name, _client(folder, "invalid"))
    with pytest.raises(KeysError, match="no subscriber is called"):
        folder.revoke(name)
    assert sorted(folder.path.rglob("*")) == before
    assert not _client(folder, "invalid").exists()


def test_existing_names_and_files(folder: KeyFolder) -> None:
    with pytest.raises(KeysError, match=r"kitchen already has a key.*earwitness keys revoke kitchen"):
        folder.new("kitchen", _client(folder, "other"))
    assert not _client(folder, "other").exists()
    before = _client(folder).read_bytes()
    with pytest.raises(KeysError, match="already exists"):
        folder.new("hall", _client(folder))
    assert _client(folder).read_bytes() == before
    assert sorted(folder.allow_list().allowed.values()) == ["kitchen"]


def test_revoked_keys_stay_revoked(folder: KeyFolder) -> None:
    first = ClientKey.load(_client(folder)).public
    folder.revoke("kitchen")
    folder.new("kitchen", _client(folder, "second"))
    second = ClientKey.load(_client(folder, "second")).public
    folder.revoke("kitchen")
    found = folder.allow_list()
    assert not found.allowed
    assert set(found.revoked) == {first, second}
    with pytest.raises(KeysError, match="was revoked"):
        folder.new("again", _client(folder, "third"), first)
    (folder.path / "clients/copy.public").write_bytes((folder.path / "revoked/kitchen.public").read_bytes())
    assert not folder.allow_list().allowed


def test_a_key_pair_of_the_subscribers_own(folder: KeyFolder) -> None:
    public, _ = zmq.curve_keypair()
    folder.new("hall", _client(folder, "hall"), public.decode())
    assert folder.allow_list().allowed[public.decode()] == "hall"
    assert not _client(folder, "hall").exists()
    with pytest.raises(KeysError, match=r"is already allowed \(hall\)"):
        folder.new("hall2", _client(folder, "hall"), public.decode())
    with pytest.raises(KeysError, match="40 characters"):
        folder.new("hall3", _client(folder, "hall"), "x" * 39)


def test_concurrent_calls_agree_on_one_daemon_key(tmp_path: Path) -> None:
    errors: list[KeysError] = []

    def make(number: int) -> None:
        for _ in range(3):  # whoever loses the race for the daemon's key retries
            try:
                KeyFolder(tmp_path / "keys").new(f"n{number}", tmp_path / f"{number}.key")
                return
            except KeysError as error:
                errors.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server = KeyFolder(tmp_path / "keys").server().public
    assert {ClientKey.load(tmp_path / f"{number}.key").server_public for number in range(8)} == {server}, errors


@pytest.mark.parametrize("damage", [b"", b"garbage\xff\xfe" * 100, b'public-key = "short"\n', None])
def test_damaged_files(folder: KeyFolder, damage: bytes | None) -> None:
    client = _client(folder)
    other = KeyFolder(folder.path.parent / "other")
    other.new("kitchen", _client(folder, "foreign"))
    if damage is None:  # the secret key of one pair with the public key of another
        ours, theirs = ClientKey.load(client), ClientKey.load(_client(folder, "foreign"))
        damage = client.read_bytes().replace(ours.secret.encode(), theirs.secret.encode())
    client.write_bytes(damage)
    with pytest.raises(KeysError) as raised:
        ClientKey.load(client)
    assert str(client) in str(raised.value)
    (folder.path / "server.key").write_bytes(damage)
    with pytest.raises(KeysError, match=r"server\.key"):
        folder.server()


def test_a_damaged_entry_is_ignored_and_reported(folder: KeyFolder) -> None:
    (folder.path / "clients/broken.public").write_text("nothing")
    (folder.path / "clients/folder.public").mkdir()
    found = folder.allow_list()
    assert list(found.allowed.values()) == ["kitchen"]
    assert len(found.faults) == 2
    assert "broken.public" in found.faults[0]


def test_wrong_files(folder: KeyFolder, tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="No such file"):
        ClientKey.load(tmp_path / "none.key")
    with pytest.raises(KeysError, match="is not a subscriber's key"):
        ClientKey.load(folder.path / "server.key")
    with pytest.raises(KeysError, match=r"secret-key is missing"):
        ClientKey.load(folder.path / "clients/kitchen.public")
    with pytest.raises(KeysError, match="contains no keys: create them with `earwitness keys new NAME --keys"):
        KeyFolder(tmp_path / "none").server()


def test_the_default_folder() -> None:
    assert default_key_folder({"XDG_CONFIG_HOME": "/x"}) == Path("/x/earwitness/keys")
    assert default_key_folder({"XDG_CONFIG_HOME": "x"}) == Path.home() / ".config/earwitness/keys"
