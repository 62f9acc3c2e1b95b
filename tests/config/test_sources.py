"""Variables in sources: encoded where a URL needs it, hidden where they are shown."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.config.loading import load_config
from streamer.config.schema import DaemonConfig
from streamer.config.sources import read_source, with_sources
from streamer.errors import ConfigError

ENVIRON = {
    "PW": "12/34 se@cr:et%2F?#é",
    "LOGIN": "us er:p:w/x",
    "HOST": "[::1]:554",
    "CAMERA": "rtsp://user:secret@h/x",
    "FOLDER": "/data/a b",
    "TOKEN": "a/b?c&d",
    "EMPTY": "",
}


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        (
            "rtsp://user:${PW}@h/x",
            "rtsp://user:12%2F34%20se%40cr%3Aet%252F%3F%23%C3%A9@h/x",
            "rtsp://***@h/x",
        ),
        ("rtsp://${PW}:${PW}@h", "rtsp://{0}:{0}@h", "rtsp://***@h"),
        ("rtsp://${LOGIN}@h/x", "rtsp://us%20er:p%3Aw%2Fx@h/x", "rtsp://***@h/x"),
        ("rtsp://a${LOGIN}@h/x", "rtsp://aus%20er%3Ap%3Aw%2Fx@h/x", "rtsp://***@h/x"),
        ("rtsp://user:${PW}@${HOST}/x", "rtsp://user:{0}@[::1]:554/x", "rtsp://***@[::1]:554/x"),
        ("${CAMERA}", "rtsp://user:secret@h/x", "rtsp://***@h/x"),
        ("${CAMERA}/sub?t=${TOKEN}", "rtsp://user:secret@h/x/sub?t=a%2Fb%3Fc%26d", "rtsp://***@h/x/sub?***"),
        (
            "http://h/live/${TOKEN}/index.m3u8",
            "http://h/live/a/b%3Fc%26d/index.m3u8",
            "http://h/live/***/***/index.m3u8",
        ),
        ("http://h/x?channel=${EMPTY}1", "http://h/x?channel=1", "http://h/x?channel=1"),
        ("${FOLDER}/c.wav", "/data/a b/c.wav", "/data/a b/c.wav"),
        ("clips/${EMPTY}c.wav", "clips/c.wav", "clips/c.wav"),
        ("rtsp://h/$PW/${}", "rtsp://h/$PW/${}", "rtsp://h/***/***"),
    ],
)
def test_variables(text: str, url: str, shown: str) -> None:
    address = read_source(text, ENVIRON)
    assert address.reveal() == url.replace("{0}", "12%2F34%20se%40cr%3Aet%252F%3F%23%C3%A9")
    assert address.shown == shown


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_any_password_is_preserved(password: str) -> None:
    address = read_source("rtsp://user:${PW}@127.0.0.1:9/x", {"PW": password})
    assert unquote(urlsplit(address.reveal()).password or "") == password
    assert (address.fault, address.host, address.port) == ("", "127.0.0.1", 9)


def test_on_the_command_line_too() -> None:
    config = with_sources(DaemonConfig(), ["door=rtsp://user:${PW}@h/x", "${CAMERA}"], ENVIRON)
    assert config.streams["door"].source.shown == "rtsp://***@h/x"
    assert config.streams["h"].source.reveal() == "rtsp://user:secret@h/x"
    with pytest.raises(ConfigError, match="the environment variable GONE is not set"):
        with_sources(DaemonConfig(), ["door=rtsp://user:${GONE}@h/x"], ENVIRON)


def test_names_from_malformed_urls_contain_no_part_of_them() -> None:
    sources = ["rtsp://user:12/34secret@h/x", "rtsp://secret/a@h/x", "user:secret@h/x", "rtsp:/u:secret@h/secret"]
    assert "secret" not in str(list(with_sources(DaemonConfig(), sources, {}).streams))


def test_ffmpeg_options(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text('streams: {a: {source: x, ffmpeg: {headers: "Authorization: Bearer ${TOKEN}"}}}')
    config = load_config(path, ENVIRON)
    assert config.streams["a"].ffmpeg["headers"].get_secret_value() == "Authorization: Bearer a/b?c&d"
    assert "a/b" not in f"{config}{config!r}{config.model_dump()}{config.model_dump_json()}"
    with pytest.raises(ConfigError, match=r"c.yaml:1: streams.a.ffmpeg: the environment variable TOKEN is not set"):
        load_config(path, {})


def test_variables_from_files(tmp_path: Path) -> None:
    """Docker and Kubernetes provide secrets as files; editors add a line break at their end."""
    secret = tmp_path / "door_password"
    secret.write_text(" p@ss/word\n")
    address = read_source("rtsp://user:${PW}@h/x", {"PW_FILE": str(secret)})
    assert address.reveal() == "rtsp://user:%20p%40ss%2Fword@h/x"
    assert read_source("rtsp://user:${PW}@h/x", {"PW": "a", "PW_FILE": str(secret)}).reveal() == "rtsp://user:a@h/x"
    for content, fault in ((None, "gone: No such file or directory"), (b"\xff\xfe", "gone: is not UTF-8 text")):
        if content is not None:
            (tmp_path / "gone").write_bytes(content)
        with pytest.raises(ConfigError, match=f"PW_FILE: .*{fault}"):
            read_source("rtsp://user:${PW}@h/x", {"PW_FILE": str(tmp_path / "gone")})
