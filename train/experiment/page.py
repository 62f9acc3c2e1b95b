"""Puts the table of an experiment into a page of documentation, between two markers that name it.

<!-- experiment table3 -->
The table is written here by: earwitness-train experiment configs/train/table3.yaml --table --markdown PAGE
<!-- end of experiment table3 -->
"""

from __future__ import annotations

from pathlib import Path

from streamer.errors import EarwitnessError
from train.files import replace


def markers(name: str) -> tuple[str, str]:
    """The lines before and after the table of the experiment `name`."""
    return f"<!-- experiment {name} -->", f"<!-- end of experiment {name} -->"


def update(path: Path, name: str, table: str) -> None:
    """Replace what is between the markers of the experiment `name` by `table`; the rest of the page stays.

    Raises:
        EarwitnessError: the page can't be read, or does not have both markers once.

    """
    try:
        text = path.read_text()
    except OSError as error:
        raise EarwitnessError(f"{path}: can't be read: {error.strerror}") from None
    begin, end = markers(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise EarwitnessError(f"{path}: has no place for this table: add the lines {begin!r} and {end!r}")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    replace(path, f"{before}{begin}\n{table.strip()}\n{end}{after}")
