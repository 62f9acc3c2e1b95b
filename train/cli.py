"""The `earwitness-train` command. It imports as little as possible, for the reason given in `streamer.cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from streamer.starting import EndsAtOnce, not_loaded


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 on success."""
    try:
        with EndsAtOnce("earwitness-train"):
            from train.commands import dispatch
    except ImportError as error:
        return not_loaded("earwitness-train", error)
    return dispatch.main(argv)


if __name__ == "__main__":
    sys.exit(main())
