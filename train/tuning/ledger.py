"""What every tried decoding counts in every clip: computed once, in parallel, and kept on disk if wanted.

Counts add up over clips. Tuning on any part of the clips therefore needs no decoding of its own, and a killed search
that is run again finds everything that it had tried.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from streamer.decoding import ClassDecoding, Decoding
from streamer.errors import EarwitnessError
from streamer.replay.scoring import KINDS, ClipPrediction, Kind, count_clip
from streamer.replay.truth import LabelledEvent, Truth
from train.evaluation.stored import ClipPosteriors, predict
from train.workers import pool

TIMES: tuple[Kind, ...] = ("segment", "event")
"""What onsets and offsets decide."""
TAGS: tuple[Kind, ...] = ("clip",)
"""What tag thresholds decide."""
_FEW = 8
"""So few decodings are not worth processes."""

Counts: TypeAlias = NDArray[np.int16]
"""(ways, clips, classes, kinds, 3): true, found, right."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is tuned on: clips whose posteriors were computed in one or several ways (whole clips, streams)."""

    ways: tuple[tuple[ClipPosteriors, ...], ...]  # the same clips in the same order
    truth: Truth
    classes: tuple[str, ...]

    def fingerprint(self) -> str:
        """SHA-256 of posteriors and annotations."""
        digest = sha256(msgspec.json.encode([self.classes, self.truth.subset_sha256(one.name for one in self.ways[0])]))
        for clips in self.ways:
            for clip in clips:
                digest.update(msgspec.json.encode([clip.name.encode(errors="surrogateescape"), clip.early_threshold]))
                digest.update(np.ascontiguousarray(clip.cells).tobytes())
                digest.update(np.ascontiguousarray(clip.clip).tobytes())
                for run in clip.runs:
                    digest.update(b"" if run.newest is None else np.ascontiguousarray(run.newest.scores).tobytes())
        return digest.hexdigest()


class Counter:
    """Counts material, decoded in one way after another.

    Many decodings find the same events of a class in a clip, most often none; these are compared with the truth once.
    """

    def __init__(self, material: Material) -> None:
        self._material = material
        self._known: dict[tuple[int, str, tuple[LabelledEvent, ...], bool, tuple[Kind, ...]], NDArray[np.int64]] = {}

    def count(self, one: ClassDecoding, kinds: tuple[Kind, ...]) -> Counts:
        """The counts of all clips if all classes are decoded alike."""
        classes = self._material.classes
        decoding = Decoding(classes, tuple(one for _ in classes))
        counts = np.zeros(
            (len(self._material.ways), len(self._material.ways[0]), len(classes), len(kinds), 3), np.int16
        )
        for way, clips in enumerate(self._material.ways):
            for row, (clip, found) in enumerate(zip(clips, predict(clips, decoding).values(), strict=True)):
                for column, label in enumerate(classes):
                    counts[way, row, column] = self._class(row, clip, found, label, kinds)
        return counts

    def _class(
        self, row: int, clip: ClipPosteriors, found: ClipPrediction, label: str, kinds: tuple[Kind, ...]
    ) -> NDArray[np.int64] | int:
        """(kinds, 3) of one class in one clip; 0 if it is neither there nor found."""
        truth = self._material.truth
        events = tuple(event for event in found.events if event.label == label) if kinds == TIMES else ()
        tagged = label in found.tags and kinds == TAGS
        if not events and not tagged and label not in truth.tags[clip.name]:
            return 0
        key = row, label, events, tagged, kinds
        if key not in self._known:
            true = tuple(event for event in truth.events[clip.name] if event.label == label)
            one, other = (
                ClipPrediction(of, frozenset((label,)) if has else frozenset())
                for of, has in ((true, label in truth.tags[clip.name]), (events, tagged))
            )
            counted = count_clip(one, other, (label,), clip.duration_s, kinds)[0]
            self._known[key] = counted[[KINDS.index(kind) for kind in kinds]]
        return self._known[key]


class Ledger:
    """The counts of all decodings tried so far; a context manager."""

    def __init__(self, material: Material, workers: int, path: Path | None = None) -> None:
        """`workers` processes count; `path` is the file that keeps the counts, created if it is not there.

        Raises:
            EarwitnessError: the file is damaged, or belongs to other posteriors or annotations.

        """
        self.material = material
        self._workers = workers
        self._counter = Counter(material)
        self._known: dict[tuple[ClassDecoding, tuple[Kind, ...]], Counts] = {}
        self._stack = ExitStack()
        self._processes: ProcessPoolExecutor | None = None
        self._file = None if path is None else self._open(path)
        self._shape = (len(material.ways), len(material.ways[0]), len(material.classes))

    def _open(self, path: Path) -> sqlite3.Connection:
        fingerprint = self.material.fingerprint()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = sqlite3.connect(path)
            self._stack.callback(file.close)
            file.execute("CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, counts BLOB) WITHOUT ROWID")
            file.execute("INSERT OR IGNORE INTO counts VALUES ('of', ?)", (fingerprint,))
            file.commit()
            ((of,),) = file.execute("SELECT counts FROM counts WHERE key = 'of'").fetchall()
        except (sqlite3.Error, OSError) as error:
            self._stack.close()
            raise EarwitnessError(
                f"{path}: can't be used ({error}): delete it to start over, or name another"
            ) from None
        if of != fingerprint:
            self._stack.close()
            raise EarwitnessError(
                f"{path}: belongs to another model or to other clips: delete it, or name another file"
            )
        return file

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def counts(self, decodings: Sequence[ClassDecoding], kinds: tuple[Kind, ...]) -> list[Counts]:
        """The counts of all clips with each decoding; those that are not known are computed."""
        missing = [one for one in dict.fromkeys(decodings) if not self._recall(one, kinds)]
        for one, found in zip(missing, self._compute(missing, kinds), strict=True):
            self._keep(one, kinds, found)
        return [self._known[one, kinds] for one in decodings]

    def _compute(self, missing: Sequence[ClassDecoding], kinds: tuple[Kind, ...]) -> Iterator[Counts]:
        bar = tqdm(total=len(missing), desc="tuning", unit="setting", disable=len(missing) < _FEW)
        if self._workers == 1 or len(missing) < 2:
            for one in missing:
                yield self._counter.count(one, kinds)
                bar.update()
        else:
            if self._processes is None:
                begin = (self.material,)
                self._processes = self._stack.enter_context(pool(self._workers, _begin, begin))
            for found in self._processes.map(_job, missing, [kinds] * len(missing)):
                yield found
                bar.update()
        bar.close()

    def _recall(self, one: ClassDecoding, kinds: tuple[Kind, ...]) -> bool:
        """Whether these counts are known, after a look into the file."""
        if (one, kinds) not in self._known and self._file is not None:
            rows = self._file.execute("SELECT counts FROM counts WHERE key = ?", (_key(one, kinds),)).fetchall()
            if rows:
                flat = np.frombuffer(zlib.decompress(rows[0][0]), np.int16)
                self._known[one, kinds] = flat.reshape(*self._shape, len(kinds), 3)
        return (one, kinds) in self._known

    def _keep(self, one: ClassDecoding, kinds: tuple[Kind, ...], found: Counts) -> None:
        self._known[one, kinds] = found
        if self._file is not None:
            with self._file:
                data = zlib.compress(np.ascontiguousarray(found).tobytes())
                self._file.execute("INSERT OR REPLACE INTO counts VALUES (?, ?)", (_key(one, kinds), data))


def _key(one: ClassDecoding, kinds: tuple[Kind, ...]) -> str:
    """The decoding in text, without what does not affect these kinds."""
    fields = asdict(one)
    relevant = {name: value for name, value in fields.items() if (name == "tag_threshold") == (kinds == TAGS)}
    return f"{' '.join(kinds)} {msgspec.json.encode(relevant, order='sorted').decode()}"


_counter: list[Counter] = []
"""State of a worker process: the posteriors are sent once, not with every job."""


def _begin(material: Material) -> None:
    _counter.append(Counter(material))


def _job(one: ClassDecoding, kinds: tuple[Kind, ...]) -> Counts:
    return _counter[0].count(one, kinds)
