"""`corpus.json`: how a corpus was made and split. It is written last, so a corpus that has it is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from streamer.errors import EarwitnessError

FILE = "corpus.json"


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """The contents of `corpus.json`."""

    config: dict[str, Any]  # of `CorpusConfig`
    groups: dict[str, dict[str, list[str]]]  # train, validation, test -> label -> groups of recordings in it
    recordings: dict[str, dict[str, int]]  # train, validation, test -> label -> recordings
    split: dict[str, list[str]] | None = None  # train, validation, test -> groups, including those of `split_from`
    split_from: str | None = None  # the corpus or model whose split was kept
    pictures: dict[str, dict[str, list[str]]] | None = None  # part -> label -> groups; None: no video
    without_pictures: dict[str, list[str]] | None = None  # part -> classes that are never seen in it

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of a model's outputs."""
        return tuple(self.config["classes"])

    @property
    def trains_on_validation(self) -> bool:
        """Whether its validation recordings are also trained on."""
        return bool(self.config.get("train_on_validation", False))


def read_summary(folder: Path) -> Summary:
    """Read the `corpus.json` of a corpus.

    Raises:
        EarwitnessError: it is missing or damaged.

    """
    try:
        summary = msgspec.json.decode((folder / FILE).read_bytes(), type=Summary)
        if not summary.config.get("classes"):
            raise ValueError("config names no classes")
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        reason = f"{FILE}: {error.strerror}" if isinstance(error, OSError) else error
        raise EarwitnessError(f"{folder}: is not a complete corpus of `earwitness-train corpus`: {reason}") from None
    return summary


def write_summary(folder: Path, summary: Summary) -> None:
    """Write `corpus.json` atomically."""
    part = folder / (FILE + ".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n")
    part.replace(folder / FILE)
