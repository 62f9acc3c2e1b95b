"""What computing features will take, in time and on the disk, from a few of the clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import EarwitnessError
from train.data.computing import READING, Computed, Job

_EACH = 3
"""Clips that each worker measures, if there are as many."""


@dataclass(frozen=True, slots=True)
class Line:
    """One modality, or reading the clips."""

    name: str
    clips: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the jobs of a command will take."""

    lines: tuple[Line, ...]
    measured: int  # clips that it is estimated from

    @property
    def bytes(self) -> int:
        """Size of all new features."""
        return sum(line.bytes for line in self.lines)

    @property
    def seconds(self) -> float:
        """Time of all jobs."""
        return sum(line.seconds for line in self.lines)

    def text(self, workers: int, free_bytes: int) -> str:
        """A table of one line per modality, and a sum."""
        rows = [("", "clips", "size", "time")]
        for line in self.lines:
            what = size(line.bytes) if line.name != READING else ""
            rows.append((line.name or "reading", str(line.clips), what, duration(line.seconds)))
        rows.append(("in all", "", size(self.bytes), duration(self.seconds)))
        width = max(len(row[0]) for row in rows)
        table = "\n".join(f"  {name:<{width}} {clips:>7} {what:>9} {time:>12}" for name, clips, what, time in rows)
        return (
            f"{table}\n  with {workers} worker{'s' * (workers > 1)}, measured on {self.measured} of the clips; "
            f"{size(free_bytes)} are free"
        )

    def check_room(self, folder: Path, free_bytes: int) -> None:
        """Check that the disk can hold the new features.

        Raises:
            EarwitnessError: it can't.

        """
        if self.bytes >= free_bytes:
            most = max(self.lines, key=lambda line: line.bytes)
            raise EarwitnessError(
                f"{folder}: the features need {size(self.bytes)} ({most.name} alone {size(most.bytes)}), and only "
                f"{size(free_bytes)} are free: free some, name a folder on another disk, or leave out modalities"
            )


def picked(jobs: Sequence[Job], workers: int) -> list[Job]:
    """Some jobs to measure, of all sizes of files. The first one of each worker takes longer, and will not count."""
    ordered = sorted(jobs, key=lambda job: (job.path.stat().st_size, job.path))
    count = min(len(ordered), _EACH * workers)
    return [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]


def estimated(
    jobs: Sequence[Job], measured: Sequence[Computed | str], cell_bytes: Mapping[str, int], workers: int
) -> Estimate:
    """What `jobs` will take.

    Args:
        jobs: all of them.
        measured: results of some of them; those that failed do not count.
        cell_bytes: modality -> size of a cell on the disk.
        workers: number of processes.

    """
    made = [one for one in measured if isinstance(one, Computed)]
    timed = [one for one in made if one.warm] or made
    cells = sum(one.cells for one in made) / max(1, len(made))
    lines = []
    for name in (READING, *cell_bytes):
        clips = sum(name in job.modalities or name == READING for job in jobs)
        took = [one.seconds[name] for one in timed if name in one.seconds]
        seconds = clips * sum(took) / max(1, len(took)) / workers
        lines.append(Line(name, clips, round(clips * cells * cell_bytes.get(name, 0)), seconds))
    return Estimate(tuple(line for line in lines if line.clips), len(timed))


def size(count: float) -> str:
    """Bytes in decimal units, as disks are sold: 19.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds in two units: 3 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
