"""The last check on what is printed."""

from __future__ import annotations

from streamer.commands.known import KnownSecrets


def test_an_options_value_is_hidden_unless_it_is_in_every_line() -> None:
    known = KnownSecrets()
    known.learn(strings=["1", "tcp", "", "Bearer f00ba4"])
    assert known.hide("http://127.0.0.1:8911/x tcp 1.5 s") == "http://127.0.0.1:8911/x tcp 1.5 s"
    assert known.hide("headers: Bearer f00ba4") == "headers: ***"
