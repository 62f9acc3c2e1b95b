"""The last check on what is printed: no known secret is in it, whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from streamer.address import Address

_ASSIGNED = re.compile(r"(?:--[a-z-]+|[A-Za-z0-9_.-]{1,64})=(.+)", re.DOTALL)
_TO_LEARN = 4


class KnownSecrets:
    """The addresses of a command line and its config, whose secrets are taken out of other people's text.

    Our own lines are made from what an `Address` shows. What argparse, a library's exception or a traceback say is not:
    they may quote an argument, or what became of it. This looks for the very strings, not for what secrets look like.
    """

    def __init__(self) -> None:
        self._addresses: list[Address] = []
        self._strings: list[str] = []

    def learn_arguments(self, arguments: Iterable[str]) -> None:
        """Take every argument, and what follows an `=`, for an address: a URL may stand where none belongs."""
        for argument in arguments:
            assigned = _ASSIGNED.fullmatch(argument)
            self.learn(Address.parse(assigned[1] if assigned else argument))

    def learn(self, *addresses: Address, strings: Iterable[str] = ()) -> None:
        """Remember the secrets of `addresses`, and `strings` that may be secrets themselves.

        Strings under 4 characters are left out: an FFmpeg option's `1` would be hidden in every number of a log.
        """
        self._addresses += [address for address in addresses if address.secrets()]
        self._strings += [one for one in strings if len(one) >= _TO_LEARN]

    def hide(self, text: str) -> str:
        """`text` without what is known."""
        for address in self._addresses:
            text = address.hide(text)
        for one in self._strings:
            text = text.replace(one, "***")
        return text

    def shown_argument(self, argument: str) -> str:
        """A word of a command line as it may be shown."""
        assigned = _ASSIGNED.fullmatch(argument)
        if assigned is None:
            return Address.parse(argument).shown
        return argument[: assigned.start(1)] + Address.parse(assigned[1]).shown
