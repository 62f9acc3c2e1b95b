"""The last check on what is printed: removes known secrets, whoever wrote the text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from streamer.address import Address

_ASSIGNED = re.compile(r"(?:--[a-z-]+|[A-Za-z0-9_.-]{1,64})=(.+)", re.DOTALL)
_TO_LEARN = 4


class KnownSecrets:
    """Knows the addresses of the command line and the config, and removes their secrets from text.

    Our own lines contain only what an `Address` shows. Errors of argparse or a library, and tracebacks, may quote an
    argument or a part of it. This looks for the exact strings, not for what a secret might look like.
    """

    def __init__(self) -> None:
        self._addresses: list[Address] = []
        self._strings: list[str] = []

    def learn_arguments(self, arguments: Iterable[str]) -> None:
        """Treat every argument, or what follows its `=`, as an address: a URL may be in the wrong place."""
        for argument in arguments:
            assigned = _ASSIGNED.fullmatch(argument)
            self.learn(Address.parse(assigned[1] if assigned else argument))

    def learn(self, *addresses: Address, strings: Iterable[str] = ()) -> None:
        """Remember the secrets of `addresses`, and `strings` that may be secrets themselves.

        Strings of under 4 characters are skipped: an FFmpeg option's `1` would be hidden in every number of a log.
        """
        # Once each: a config that is read anew brings them again.
        self._addresses += [one for one in addresses if one not in self._addresses and one.secrets()]
        self._strings += [one for one in strings if one not in self._strings and len(one) >= _TO_LEARN]

    def hide(self, text: str) -> str:
        """`text` with `***` for every known secret."""
        for address in self._addresses:
            text = address.hide(text)
        for one in self._strings:
            text = text.replace(one, "***")
        return text

    def shown_argument(self, argument: str) -> str:
        """A command-line argument without its secrets."""
        assigned = _ASSIGNED.fullmatch(argument)
        if assigned is None:
            return Address.parse(argument).shown
        return argument[: assigned.start(1)] + Address.parse(assigned[1]).shown
