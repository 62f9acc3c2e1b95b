"""Names of any bytes become printable and can be read back."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import EarwitnessError, SourceError
from streamer.escapes import escape_what_can_not_be_encoded, escaped, printable, unescaped

names = st.binary(min_size=1).map(os.fsdecode) | st.text(min_size=1).filter(
    lambda text: not any(0xD800 <= ord(one) < 0xE000 for one in text)
)


@given(names)
def test_an_escaped_name_is_printable_and_reversible(name: str) -> None:
    written = escaped(name)
    assert written.isprintable()
    assert written == written.strip()
    assert written[0] != '"'
    assert unescaped(written) == name
    assert unescaped(_encoded(written, "ascii")) == name


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("café.wav", "café.wav"),
        (os.fsdecode(b"caf\xe9.wav"), r"caf\xe9.wav"),
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("back\\slash", r"back\\slash"),
        ("\x1b[31mred", r"\u001b[31mred"),
        ("evil\u202ev4a.wav", r"evil\u202ev4a.wav"),
        ('say "hi".wav', 'say "hi".wav'),
        ('"quoted".wav', r"\x22quoted\x22.wav".replace(r"\x22.wav", '".wav')),
        (" padded ", r"\x20padded\x20"),
        (" ", r"\x20"),
        ("a\u2028b\x85c", r"a\u2028b\u0085c"),
        ("tag\U000e0041", r"tag\udb40\udc41"),
    ],
)
def test_how_names_are_written(name: str, written: str) -> None:
    assert escaped(name) == written
    assert unescaped(written) == name


def test_text_that_is_no_escape_is_kept() -> None:
    assert unescaped(r"audio\eval\clip.wav \xZZ \u12") == r"audio\eval\clip.wav \xZZ \u12"


def test_making_a_printable_line_printable_changes_nothing() -> None:
    assert printable("a\nb " + escaped("c\nd\\e")) == r"a\nb c\nd\\e"


def test_an_error_is_one_printable_line_whatever_is_in_it() -> None:
    assert str(SourceError("other", f"{os.fsdecode(b'caf%c.wav' % 0xE9)}: bro\nken")) == r"caf\xe9.wav: bro\nken"
    assert str(EarwitnessError("plain – text")) == "plain – text"


def test_a_stream_escapes_characters_that_it_can_not_encode() -> None:
    assert _encoded("é – \U0001f600 " + os.fsdecode(b"\xe9"), "ascii") == r"\u00e9 \u2013 \ud83d\ude00 \xe9"
    assert _encoded("é –", "latin-1") == "é \\u2013"
    assert _encoded("é –" + os.fsdecode(b"\xe9"), "utf-8") == r"é –\xe9"


def _encoded(text: str, encoding: str) -> str:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding=encoding)
    escape_what_can_not_be_encoded(stream)
    stream.write(text)
    stream.flush()
    return data.getvalue().decode(encoding)
