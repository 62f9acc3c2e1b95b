"""The error tree. A message is one line: what is wrong, where, and what to do. It never contains a
secret: a source appears as its `Address` shows it.
"""

from __future__ import annotations

from streamer.escapes import printable


class EarwitnessError(Exception):
    """A problem that the user can fix. Its `str()` is one printable line."""

    exit_code = 1

    def __str__(self) -> str:
        """One line of printable characters, whatever file names it contains."""
        return printable(super().__str__())


class UsageError(EarwitnessError):
    """A command or config that can't be carried out as written."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file or an argument in it is wrong."""


class BundleError(EarwitnessError):
    """A model bundle is missing, damaged or invalid."""


class WeightsError(EarwitnessError):
    """Weights of a pretrained network are missing or not the expected ones."""


class SourceError(EarwitnessError):
    """A source can't be opened or has failed. `reason` is one of a fixed set of codes for metrics and status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, str]]:
        """Pickle the error with all arguments, so that it can leave a worker process."""
        return type(self), (self.reason, self.args[0])


class SinkError(EarwitnessError):
    """A sink can't be used."""


class SinkGoneError(SinkError):
    """A sink is permanently gone."""


class KeysError(EarwitnessError):
    """A key file is missing, damaged, or not safe from other users."""


class RefusedError(EarwitnessError):
    """A daemon refused this subscriber."""


class StoreError(EarwitnessError):
    """The event store can't be used. `reason` is one of a fixed set of codes for metrics."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[StoreError], tuple[str, str]]:
        """Pickle the error with all arguments, so that it can leave a worker process."""
        return type(self), (self.reason, self.args[0])


class WireError(EarwitnessError):
    """A message can't be decoded, or is not valid to send."""


class HeartbeatLostError(EarwitnessError):
    """A subscriber's publisher has fallen silent; `publisher` is None if none was ever heard."""

    def __init__(self, publisher: str | None, message: str) -> None:
        super().__init__(message)
        self.publisher = publisher

    def __reduce__(self) -> tuple[type[HeartbeatLostError], tuple[str | None, str]]:
        """Pickle the error with all arguments, so that it can leave a worker process."""
        return type(self), (self.publisher, self.args[0])


class GapError(EarwitnessError):
    """Stored messages of `publisher` are unavailable to a subscriber, or `publisher` has begun a new store."""

    def __init__(self, publisher: str, message: str) -> None:
        super().__init__(message)
        self.publisher = publisher

    def __reduce__(self) -> tuple[type[GapError], tuple[str, str]]:
        """Pickle the error with all arguments, so that it can leave a worker process."""
        return type(self), (self.publisher, self.args[0])


class TruthError(EarwitnessError):
    """An annotation file can't be read or does not match the clips."""
