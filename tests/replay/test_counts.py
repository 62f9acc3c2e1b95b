"""`counts.tsv` holds what intervals need, for any file name, and says which line of it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamer.errors import TruthError
from streamer.replay.counts import counts_tsv, read_counts
from streamer.replay.scoring import ClipCounts, ClipPrediction, count
from streamer.replay.truth import LabelledEvent, Truth

CLASSES = ("Cat", "Dog", "Speech")


def made(*, strong: bool = True) -> ClipCounts:
    rows = {
        "a.wav": (LabelledEvent(1.0, 2.0, "Cat"), LabelledEvent(3.0, 4.5, "Dog")),
        "folder/b\tc\nd.wav": (),
        os_name: (LabelledEvent(0.0, 9.0, "Speech"),),
    }
    truth = Truth(
        "truth",
        rows if strong else {},
        {name: frozenset(one.label for one in row) for name, row in rows.items()},
        strong,
    )
    found = {
        "a.wav": ClipPrediction((LabelledEvent(1.1, 2.0, "Cat"),), frozenset({"Cat"})),
        "folder/b\tc\nd.wav": ClipPrediction((LabelledEvent(1.0, 2.0, "Dog"),), frozenset({"Dog"})),
        os_name: ClipPrediction((), frozenset()),
    }
    return count(truth, found, CLASSES, dict.fromkeys(found, 10.0))


os_name = b"\xff not utf-8.wav".decode(errors="surrogateescape")


@pytest.mark.parametrize("strong", [True, False])
def test_counts_are_read_as_they_were_written(tmp_path: Path, strong: bool) -> None:
    counts = made(strong=strong)
    path = tmp_path / "counts.tsv"
    path.write_text(counts_tsv(counts), encoding="utf-8")
    again = read_counts(path)
    assert (again.names, again.classes, again.seconds, again.strong) == (
        counts.names, counts.classes, counts.seconds, strong,
    )  # fmt: skip
    assert np.array_equal(again.counts, counts.counts)
    assert again.report().json()["classes"] == counts.report().json()["classes"]


def test_the_report_is_the_sum_of_the_clips() -> None:
    counts = made()
    assert counts.of("event").tolist()[0] == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert counts.of("segment").tolist()[1] == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    report = counts.report()
    assert report.clips == report.annotated == 3
    assert report.total("event").true == 3
    assert report.subset_sha256 == counts.subset_sha256 != ""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "can't read the counts: No such file"),
        ("a\tb\n", "is not a table of counts"),
        ("filename\tseconds\tclass\tclip_true\tclip_found\tclip_right\na\t10.0\tCat\t1\t1\n", "line 2: is not a row"),
        ("filename\tseconds\tclass\tclip_true\tclip_found\tclip_right\na\tx\tCat\t1\t1\t1\n", "line 2: is not a row"),
        (
            "filename\tseconds\tclass\tclip_true\tclip_found\tclip_right\na\t1.0\tCat\t1\t1\t1\nb\t1.0\tDog\t1\t1\t1\n",
            "b does not have the same classes",
        ),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, text: str | None, what: str) -> None:
    if text is not None:
        (tmp_path / "counts.tsv").write_text(text)
    with pytest.raises(TruthError, match=what) as caught:
        read_counts(tmp_path / "counts.tsv")
    assert "\n" not in str(caught.value)
