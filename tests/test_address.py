"""A source's address shows nothing that can be a secret."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from streamer.address import Address
from tests.canary import CANARY, MALFORMED, WELL_FORMED


def canaries() -> list[str]:
    """Plain, with characters that should be encoded, and encoded."""
    nasty = CANARY + " %&+" + CANARY
    return [text.format(word) for text in WELL_FORMED + MALFORMED for word in (CANARY, quote(nasty, safe=""), CANARY)]


@pytest.mark.parametrize("text", canaries())
def test_no_text_form_of_an_address_contains_its_secret(text: str, caplog: pytest.LogCaptureFixture) -> None:
    address = Address.parse(text)

    class Section(BaseModel, arbitrary_types_allowed=True):
        source: Address
        number: int = 0

    try:
        raise ValueError(address)
    except ValueError as error:
        said = traceback.format_exc() + str(error) + repr(error)
    with pytest.raises(ValueError, match="number") as wrong:
        Section(source=address, number="many")
    section = Section(source=address)
    logging.getLogger("streamer").warning("%s %r", address, address)
    outputs = [str(address), repr(address), f"{address}", address.shown, address.host, address.fault, address.doubt]
    outputs += [said, str(wrong.value), repr(section), str(section.model_dump()), str(section.model_dump_json())]
    outputs += [str(dataclasses.asdict(address)), repr([address]), caplog.text]
    for output in outputs:
        assert CANARY not in output
    assert address.reveal() == text
    assert copy.deepcopy(address) == pickle.loads(pickle.dumps(address)) == address
    assert hash(address) == hash(Address.parse(text))
    # Text that others wrote about it can be cleaned: the canary is one of the pieces, or part of one.
    assert any(CANARY in piece for piece in address.secrets())


@pytest.mark.parametrize("text", [text.format(CANARY) for text in MALFORMED[:13]])
def test_the_fault_of_a_malformed_url_says_how_to_write_it(text: str) -> None:
    address = Address.parse(text)
    assert "/ as %2F" in (address.fault or address.doubt)
    assert address.shown.startswith("rtsp://***")


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://127.0.0.1:8554/Streaming/Channels/101",
        "rtsp://camera.lan/cam/realmonitor?channel=1&subtype=0",
        "rtsp://[::1]:8554/h264Preview_01_main",
        "rtsp://camera/x",
        "rtmp://host/live",
        "http://host/live/index.m3u8",
        "http://127.0.0.1:8080/Garden%20party,%20June%202025.mp4",
        "file:///data/pass=word@home:1/clip.mp4",
        "/data/pass=word@home:1/clip.mp4",
        "clips/Garden party (1).mp4",
        "a:b.wav",
        "take=5.wav",
        "hw:1,0",
        "/dev/video0",
        "-",
        "pipe:0",
    ],
)
def test_harmless_parts_are_shown(text: str) -> None:
    address = Address.parse(text)
    assert address.shown == text
    assert (address.fault, address.doubt, address.secrets()) == ("", "", [])


def test_parts() -> None:
    address = Address.parse("RTSP://user:pass@Camera.lan:8554/x?channel=1&pwd=abcdef#f")
    assert address.shown == "rtsp://***@Camera.lan:8554/x?channel=1&***#***"
    assert (address.scheme, address.host, address.port, address.has_login) == ("rtsp", "Camera.lan", 8554, True)
    assert (address.path, address.is_local) == ("x", False)
    bare = Address.parse("http://[fe80::1]/a/b.mp4")
    assert (bare.host, bare.port, bare.has_login, bare.path) == ("fe80::1", None, False, "a/b.mp4")
    assert Address.parse("file:///a/b.mkv").path == "/a/b.mkv"
    assert Address.parse("a/b.mkv").is_local


def test_an_at_sign_in_a_path_after_a_certain_host_is_no_fault() -> None:
    for text in (
        "http://192.168.1.1:80/@door/index.m3u8",
        "http://nas.lan:80/x?mail=a@b",
        "rtsp://me:pw@nas.lan/x?u=a@b.org",
    ):
        address = Address.parse(text)
        assert address.fault == ""
        assert "%40" in address.doubt


def test_a_public_address_is_shown_completely() -> None:
    url = "https://github.com/someone/torchvggish/releases/download/v0.1/vggish-10086976.pth"
    assert Address.public(url).shown == url
    assert Address.public(url).reveal() == url


def test_given_pieces_are_hidden_wherever_they_occur() -> None:
    address = Address.parse("http://h/live/index.m3u8?channel=12", hide=("live", "12"))
    assert address.shown == "http://h/***/index.m3u8?***"


@given(st.text())
def test_any_text_is_an_address(text: str) -> None:
    assert Address.parse(text).reveal() == text
    assert Address.parse(f"rtsp://user:{text}@127.0.0.1/x").reveal().endswith("@127.0.0.1/x")


@given(st.text(st.characters(codec="utf-8"), min_size=4).filter(lambda text: text not in "rtsp://***@127.0.0.1:9/x"))
def test_no_password_is_shown(password: str) -> None:
    assert password not in Address.parse(f"rtsp://user:{password}@127.0.0.1:9/x").shown
    assert Address.parse(f"rtsp://user:{quote(password, safe='')}@127.0.0.1:9/x").host == "127.0.0.1"
