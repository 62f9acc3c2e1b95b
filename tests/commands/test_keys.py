"""`earwitness keys`: what it prints, and that it prints no secret."""

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
    said = capsys.readouterr().out
    assert f"--keys {folder}" in said
    assert "earwitness listen --key kitchen.key tcp://HOST:5557" in said
    key = ClientKey.load("kitchen.key")
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert f"{key.server_public}  the daemon, at {folder}" in listed
    assert f"{key.public}  kitchen: may subscribe" in listed
    assert main(["keys", "revoke", "kitchen"]) == 0
    assert main(["keys", "list"]) == 0
    listed += capsys.readouterr().out
    assert f"{key.public}  kitchen: revoked" in listed
    for secret in (key.secret, KeyFolder(folder).server().secret):
        assert secret not in said + listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list"], "holds no keys: make them with `earwitness keys new NAME --keys"),
        (["new", "../x"], "names are 1 to 64 letters"),
        (["revoke", "nobody"], "nobody is called 'nobody'"),
        (["new", "a", "--public", "short"], "40 characters"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keys", *words, "--keys", str(tmp_path / "keys")]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert not list(tmp_path.glob("*.key"))
