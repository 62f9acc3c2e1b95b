r"""Names and lines fit to print: whatever bytes a file's name is made of, what is written of it is printable text.

A name that a file system gives may hold line breaks, tabs, bytes that are not UTF-8 (Python has them as
lone surrogates) and characters that turn the direction of text. One rule writes all of them:

```
\\          a backslash                  \t \n \r    tab, line feed, carriage return
\xNN        a byte that is not UTF-8     \uNNNN       any other that can't be printed, above U+FFFF two, as in JSON
```

A space or double quote at a name's beginning and a space at its end are `\x20` and `\x22`: readers of
tab-separated text strip the one and take the other for quoting.
"""

from __future__ import annotations

import codecs
import re
from typing import Final, TextIO

_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LONG = {written: character for character, written in _SHORT.items()}
_ESCAPE = re.compile(r"\\(?:\\|t|n|r|x[0-9a-f]{2}|ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|u[0-9a-f]{4})")
_RAW_BYTES = range(0xDC80, 0xDD00)
"""Where `surrogateescape` puts the bytes that are not UTF-8."""
_HANDLER: Final = "earwitness.escape"


def escaped(name: str) -> str:
    """`name` in printable characters; `unescaped` gives it back."""
    text = "".join(_SHORT.get(one) or _written(one) for one in name)
    if text[:1] in (" ", '"'):
        text = f"\\x{ord(text[0]):02x}{text[1:]}"
    return f"{text[:-1]}\\x20" if text.endswith(" ") else text


def unescaped(text: str) -> str:
    r"""The name that was written as `text`. What is no escape (`a\b` is none) stays as it is."""
    return _ESCAPE.sub(lambda match: _read(match[0]), text)


def printable(line: str) -> str:
    """`line` as one line of printable characters. Its backslashes stay, since names in it may be escaped already."""
    return "".join(one if one == "\\" else _SHORT.get(one) or _written(one) for one in line)


def escape_what_can_not_be_encoded(*streams: TextIO) -> None:
    """From here on `streams` write a character that their encoding lacks by the rule above, and never raise for it."""
    codecs.register_error(_HANDLER, _handled)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)  # a stream that a test or a program has put there has none
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


def _written(character: str) -> str:
    code = ord(character)
    if character.isprintable():
        return character
    return f"\\x{code - 0xDC00:02x}" if code in _RAW_BYTES else _by_number(character)


def _by_number(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _read(escape: str) -> str:
    if escape in _LONG:
        return _LONG[escape]
    if escape[1] == "x":
        code = int(escape[2:], 16)
        return chr(code) if code < 0x80 else chr(0xDC00 + code)
    units = bytes.fromhex(escape.replace("\\u", ""))
    return units.decode("utf-16-be", "surrogatepass")


def _handled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    refused = error.object[error.start : error.end]
    return "".join(_by_number(one) if one.isprintable() else _written(one) for one in refused), error.end
