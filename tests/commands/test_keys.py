"""`earwitness keys`: its output, which never contains a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.cli import main
from streamer.sinks.keys import ClientKey, KeyFolder


def test_new_list_revoke(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "config/earwitness/keys"
    assert main(["keys", "new", "kitchen"]) == 0
    printed = capsys.readouterr().out
    assert f"--keys {folder}" in printed
    assert "earwitness listen --key kitchen.key tcp://HOST:5557" in printed
    key = ClientKey.load("kitchen.key")
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert f"{key.server_public}  the daemon ({folder})" in listed
    assert f"{key.public}  kitchen: allowed" in listed
    assert main(["keys", "revoke", "kitchen"]) == 0
    assert main(["keys", "list"]) == 0
    listed += capsys.readouterr().out
    assert f"{key.public}  kitchen: revoked" in listed
    for secret in (key.secret, KeyFolder(folder).server().secret):
        assert secret not in printed + listed


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["list"], "contains no keys: create them with `earwitness keys new NAME --keys"),
        (["new", "../x"], "names are 1 to 64 letters"),
        (["revoke", "nobody"], "no subscriber is called 'nobody'"),
        (["new", "a", "--public", "short"], "40 characters"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keys", *arguments, "--keys", str(tmp_path / "keys")]) == 1
    captured = capsys.readouterr()
    assert error in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert not list(tmp_path.glob("*.key"))
