"""Files are replaced at once, so that a killed command leaves the old one or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, data: str | bytes) -> None:
    """Write a file atomically."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(part, path)
