"""The one error tree. A message is one line: what is wrong, where, and what to do. It never holds a
secret: of a source it holds what its `Address` shows.
"""

from __future__ import annotations

from streamer.escapes import printable


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

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, str]]:
        """So that it comes out of a worker process as it is."""
        return type(self), (self.reason, self.args[0])


class SinkError(EarwitnessError):
    """A place that messages go to can't be used."""


class SinkGoneError(SinkError):
    """A place that messages went to is gone for good."""


class WireError(EarwitnessError):
    """A message can't be read, or can't be sent as it is."""


class HeartbeatLostError(EarwitnessError):
    """A publisher that a subscriber listens to has fallen silent; `publisher` is None if none was ever heard."""

    def __init__(self, publisher: str | None, message: str) -> None:
        super().__init__(message)
        self.publisher = publisher

    def __reduce__(self) -> tuple[type[HeartbeatLostError], tuple[str | None, str]]:
        """So that it comes out of a worker process as it is."""
        return type(self), (self.publisher, self.args[0])


class TruthError(EarwitnessError):
    """An annotation file can't be read or does not fit the clips."""
