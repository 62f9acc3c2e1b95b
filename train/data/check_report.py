"""What `earwitness-train data check` shows: a table of the parts, and the findings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from streamer.escapes import printable
from train.data.check import HARMLESS, Check

_SHOWN = 5
"""Findings of each kind that are shown; a report has all of them."""


def text(root: Path, found: Check, report: Path | None) -> str:
    """The result for a terminal."""
    lines = [
        "part          rows  clips published no event usable pictures  subset sha256",
    ]
    for one in found.tables:
        if not one.file:
            stems = " or ".join(f"metadata/{stem}.tsv" for stem in one.table.stems)
            lines.append(f"{one.table.name:<11} not there: {stems}")
            continue
        lines.append(
            f"{one.table.name:<11} {one.rows:>6} {one.clips:>6} {one.table.clips:>9} {one.without_events:>8} "
            f"{one.usable:>6} {one.pictures:>8}  {one.subset_sha256[:16] or '-'}"
        )
    lines.append(f"{found.media} media files, of which {found.unmatched} belong to no row")
    shown: Counter[str] = Counter()
    for finding in found.findings:
        shown[finding.kind] += 1
        if shown[finding.kind] <= _SHOWN:
            lines.append(printable(str(finding)))
    for kind, count in found.counts().items():
        more = f", {_SHOWN} of them shown above" if count > _SHOWN else ""
        lines.append(f"{kind}: {count}{more}{' (harmless)' if kind in HARMLESS else ''}")
    if any(count > _SHOWN for count in shown.values()) and report is None:
        lines.append("--report FILE writes all of them")
    if not any(one.usable for one in found.tables):
        lines.append(f"{printable(str(root))}: there is no usable clip: put the media into a folder there")
    elif found.well:
        lines.append("everything runs on the usable clips")
    return "\n".join(lines)


def write(path: Path, found: Check) -> None:
    """Write all findings as a tab-separated file."""
    rows = [("kind", "file", "line", "what")]
    rows += [(one.kind, one.file, str(one.line or ""), str(one)) for one in found.findings]
    path.write_text("".join("\t".join(printable(field) for field in row) + "\n" for row in rows))
