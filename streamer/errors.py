"""The one error tree. A message is one line: what is wrong, where, and what to do. It never holds a
secret: whoever builds one from a URL passes it through `redacted`.
"""

from __future__ import annotations

import re

from streamer.escapes import printable

_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@]*(?:@[^/\s@]*)*@")
_SECRET_QUERY = re.compile(r"(?i)([?&;](?:pass(?:word)?|pwd|token|key|secret|auth|sig(?:nature)?)=)[^&\s;]*")


def redacted(text: str) -> str:
    """`text` with the user, the password and secret query fields of every URL in it replaced by `***`."""
    return _SECRET_QUERY.sub(r"\1***", _USERINFO.sub(r"\g<scheme>***@", text))


class EarwitnessError(Exception):
    """Something the user can mend. `str()` of it is one line, fit to print."""

    exit_code = 1

    def __str__(self) -> str:
        """One line of printable characters, whatever names of files are in it."""
        return printable(super().__str__())


class UsageError(EarwitnessError):
    """A command or config that can't be carried out as written."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file or an argument in it is wrong."""


class BundleError(EarwitnessError):
    """A model bundle is missing, damaged, or not one."""


class WeightsError(EarwitnessError):
    """Weights of a pretrained network are missing, or are not what was expected."""


class SourceError(EarwitnessError):
    """A source can't be opened or has broken. `reason` is a bounded word for metrics and status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SinkError(EarwitnessError):
    """A place that messages go to can't be used."""


class WireError(EarwitnessError):
    """A message can't be read, or can't be sent as it is."""


class HeartbeatLostError(EarwitnessError):
    """A publisher that a subscriber listens to has fallen silent; `publisher` is None if none was ever heard."""

    def __init__(self, publisher: str | None, message: str) -> None:
        super().__init__(message)
        self.publisher = publisher


class TruthError(EarwitnessError):
    """An annotation file can't be read or does not fit the clips."""
