"""What was counted is counted once, is sed_eval's count, and is there again after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.decoding import ClassDecoding, Decoding
from streamer.errors import EarwitnessError
from streamer.replay.scoring import KINDS, Kind, count
from tests.train.tuning.test_search import CLASSES, clips
from train.evaluation.stored import predict
from train.tuning.ledger import TAGS, TIMES, Counter, Counts, Ledger, Material

DECODINGS = [ClassDecoding(0.2, 0.2, 1), ClassDecoding(0.5, 0.3, 7), ClassDecoding(0.25, 0.2, 3, 0.4)]


def material() -> Material:
    made, truth = clips({"Cat": 0.9, "Dog": 0.3}, noise=0.8)
    quieter = tuple(replace(one, cells=0.9 * one.cells, clip=0.9 * one.clip) for one in made)
    return Material((tuple(made), quieter), truth, CLASSES)


def joint(of: Material, one: ClassDecoding) -> NDArray[np.int64]:
    """The counts of all classes and kinds at once: (ways, clips, classes, kinds, 3)."""
    decoding = Decoding(CLASSES, (one,) * len(CLASSES))
    durations_s = {clip.name: clip.duration_s for clip in of.ways[0]}
    return np.stack([count(of.truth, predict(way, decoding), CLASSES, durations_s).counts for way in of.ways])


@pytest.mark.parametrize("workers", [1, 2])
def test_counts_of_single_classes_are_those_of_all_together(workers: int) -> None:
    of = material()
    with Ledger(of, workers) as known:
        for kinds in (TIMES, TAGS):
            columns = [KINDS.index(kind) for kind in kinds]
            for one, found in zip(DECODINGS, known.counts(DECODINGS, kinds), strict=True):
                assert np.array_equal(found, joint(of, one)[:, :, :, columns])


def test_nothing_is_counted_twice_not_even_by_the_next_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[ClassDecoding] = []
    real = Counter.count

    def counting(self: Counter, one: ClassDecoding, kinds: tuple[Kind, ...]) -> Counts:
        counted.append(one)
        return real(self, one, kinds)

    monkeypatch.setattr(Counter, "count", counting)
    path = tmp_path / "counts.sqlite"
    with Ledger(material(), 1, path) as known:
        first = known.counts(DECODINGS[:2], TIMES)
        known.counts(DECODINGS[:2], TIMES)
    assert counted == DECODINGS[:2]
    with Ledger(material(), 1, path) as known:
        again = known.counts(DECODINGS, TIMES)
    assert counted == DECODINGS
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=False))


def test_counts_of_other_clips_or_of_a_damaged_file_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "counts.sqlite"
    of = material()
    with Ledger(of, 1, path) as known:
        known.counts(DECODINGS[:1], TIMES)
    other = Material((of.ways[1], of.ways[0]), of.truth, of.classes)
    with pytest.raises(EarwitnessError, match="belongs to another model or to other clips: delete it"):
        Ledger(other, 1, path)
    path.write_bytes(b"not a database, but long enough to be looked at")
    with pytest.raises(EarwitnessError, match=r"can't be used .*: delete it"):
        Ledger(of, 1, path)
