"""The `earwitness-train` command. Nearly nothing is imported here, for the reason that `streamer.cli` gives."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from streamer.starting import EndsAtOnce, not_loaded


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it succeeded."""
    try:
        with EndsAtOnce("earwitness-train"):
            from train import commands
    except ImportError as error:
        return not_loaded("earwitness-train", error)
    return commands.main(argv)


if __name__ == "__main__":
    sys.exit(main())
