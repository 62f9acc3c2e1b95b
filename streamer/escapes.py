r"""Makes names and lines printable, whatever bytes a file's name contains.

A file name may contain line breaks, tabs, bytes that are not UTF-8 (lone surrogates in Python) and characters that
change the direction of text. All of them are escaped by one rule:

```
\\          a backslash                  \t \n \r    tab, line feed, carriage return
\xNN        a byte that is not UTF-8     \uNNNN       any other unprintable one; above U+FFFF two, as in JSON
```

A space or double quote at the start of a name, and a space at its end, become `\x20` and `\x22`: readers of
tab-separated text would strip the space and treat the quote as quoting.
"""

from __future__ import annotations

import codecs
import re
from typing import Final, TextIO

_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LONG = {written: character for character, written in _SHORT.items()}
_ESCAPE = re.compile(r"\\(?:\\|t|n|r|x[0-9a-f]{2}|ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|u[0-9a-f]{4})")
_RAW_BYTES = range(0xDC80, 0xDD00)
"""The surrogates by which `surrogateescape` represents bytes that are not UTF-8."""
_HANDLER: Final = "earwitness.escape"


def escaped(name: str) -> str:
    """`name` in printable characters; `unescaped` reverses it."""
    text = "".join(_SHORT.get(one) or _written(one) for one in name)
    if text[:1] in (" ", '"'):
        text = f"\\x{ord(text[0]):02x}{text[1:]}"
    return f"{text[:-1]}\\x20" if text.endswith(" ") else text


def unescaped(text: str) -> str:
    r"""The name that was escaped as `text`. Anything that is not an escape, as in `a\b`, is kept."""
    return _ESCAPE.sub(lambda match: _read(match[0]), text)


def printable(line: str) -> str:
    """`line` as one line of printable characters. Backslashes are kept, as names in it may already be escaped."""
    return "".join(one if one == "\\" else _SHORT.get(one) or _written(one) for one in line)


def escape_what_can_not_be_encoded(*streams: TextIO) -> None:
    """Make `streams` escape characters that their encoding lacks, by the rule above, instead of raising."""
    codecs.register_error(_HANDLER, _handled)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)  # a replaced stream, as in tests, may have none
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
