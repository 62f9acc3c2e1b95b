"""The report: one page that holds everything, makes no request, and shows any name as text."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from streamer.networks.stream_crnn import StreamForm
from streamer.replay.counts import read_counts
from streamer.replay.truth import read_truth
from streamer.windows import PRESETS, StreamSettings
from tests.models import seeded_bundle
from tests.train.reports import IMAGE, SCRIPT, Prepared, evaluated, prepare
from train import cli
from train.data.dataset import Corpus
from train.evaluation.measuring import LOOKAHEADS, Plan, lookaheads_of
from train.report.svg import Drawing, Scale, ticks

CURVE = ("--hops", "8", "16", "--lookaheads", "0", "15")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated(tmp_path_factory.mktemp("report"), *CURVE, harmful=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("prepared"), clips=3)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and all its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_every_element_is_closed_and_none_can_run_or_load_anything(report: Path) -> None:
    page = Elements((report / "report.html").read_text())
    assert page.open == []
    tags = {tag for tag, _ in page.found}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "base", "image", "use", "foreignObject"}
    for tag, attributes in page.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
        assert attributes.get("href", "data:,") == "data:,", tag
    policies = [of["content"] for _, of in page.found if of.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'")
    assert "url(" not in "".join(page.text)


def test_harmful_names_are_shown_as_they_are(report: Path) -> None:
    text = " ".join(Elements((report / "report.html").read_text()).text)
    assert SCRIPT in text
    assert f"Best: {IMAGE}" in re.sub(r"\s+", " ", text) or f"Worst: {IMAGE}" in re.sub(r"\s+", " ", text)


def test_the_page_says_what_was_measured_and_explains_each_figure(report: Path) -> None:
    page = (report / "report.html").read_text()
    figures = json.loads((report / "evaluation.json").read_text())
    assert figures["subset_sha256"] in page
    assert figures["model_sha256"] in page
    for words in (
        "Clip F1", "Segment F1", "Event F1", "PSDS 1", "PSDS 2", "Onset latency", "False alarms", "Coverage: 100.0 %",
        "Latency against accuracy", "What false alarms really were", "5 of 5 annotated clips", "resampled",
        "groups of recordings", "earwitness-train evaluate", "Detects 2 kinds of sound",
    ):  # fmt: skip
        assert words.lower() in page.lower(), words
    assert page.count("<svg") >= 5
    assert "nan" not in re.sub(r"<style>.*</style>", "", page, flags=re.DOTALL).lower().replace("finance", "")


def test_figures_are_those_of_the_counts_and_of_evaluate(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = report.parent
    figures = json.loads((report / "evaluation.json").read_text())
    for way, mode in (("offline", "clip"), ("streaming", "stream")):
        counts = read_counts(report / f"counts-{mode}.tsv")
        scored = counts.report()
        for kind in scored.kinds:
            assert figures[way][f"{kind}_f1_micro"]["value"] == pytest.approx(scored.micro_f1(kind))
            assert figures[way][f"{kind}_f1_macro"]["value"] == pytest.approx(scored.macro_f1(kind))
            micro = figures[way][f"{kind}_f1_micro"]
            assert micro["low"] <= micro["value"] <= micro["high"]
        assert set(read_truth(report / f"events-{mode}.tsv").events) == set(counts.names)
        assert figures[way]["psds_1"]["value"] <= figures[way]["psds_2"]["value"] <= 1
    assert figures["resampled"]["what"] == "groups of recordings"
    corpus = next(path for path in folder.iterdir() if path.name.startswith("corpus"))
    capsys.readouterr()
    arguments = [str(corpus), str(folder / "features"), "--model", str(folder / "bundle")]
    assert cli.main(["evaluate", *arguments]) == 0
    assert read_counts(report / "counts-clip.tsv").report().table() in capsys.readouterr().out


def test_the_curve_has_every_pair_and_the_daemons_own_settings(report: Path) -> None:
    figures = json.loads((report / "evaluation.json").read_text())
    pairs = {(one["hop_cells"], one["lookahead_cells"]) for one in figures["curve"]}
    presets = {(one.hop_cells, one.lookahead_cells) for one in PRESETS.values()}
    assert pairs == {*presets, (8, 0), (8, 15), (16, 0), (16, 15)}
    (daemon,) = (one for one in figures["curve"] if (one["hop_cells"], one["lookahead_cells"]) == (8, 30))
    assert daemon["event_f1_macro"] == figures["streaming"]["event_f1_macro"]
    medians = {
        (one["hop_cells"], one["lookahead_cells"]): one["onset_latency_s"]["p50"]["value"] for one in figures["curve"]
    }
    assert medians[8, 0] is not None
    assert medians[8, 0] < medians[8, 15]


def test_without_a_curve_or_psds_there_is_none_and_an_older_report_is_replaced(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)  # as where it is not installed
    (tmp_path / "report").mkdir()
    for name in ("report.html", "groups.tsv"):
        (tmp_path / "report" / name).write_text("old")
    corpus = tmp_path / "corpus"
    shutil.copytree(prepared.corpus, corpus)
    (corpus / "metadata" / "sources.tsv").unlink()
    with caplog.at_level(logging.WARNING):
        assert cli.main(replace(prepared, corpus=corpus).command(tmp_path / "report", "--no-curve")) == 0
    assert "PSDS is left out: pip install 'earwitness[psds]'" in caplog.text
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Latency against accuracy" not in page
    assert "Not computed: sed_scores_eval is not installed" in page
    assert "3 clips" in page
    assert "Nothing is known of the recordings" in page
    assert not (tmp_path / "report" / "groups.tsv").exists()


@pytest.mark.parametrize(
    ("more", "code", "what"),
    [
        (["--lookaheads", "88"], 2, "a lookahead of 88 cells exceed the 90 cells of a window of seeded"),
        (["--hops", "0"], 2, "'0' is not a whole number from 1"),
        (["--lookaheads", "-1"], 2, "--lookaheads"),
        (["--lookaheads", "x"], 2, "'x' is not a whole number from 0"),
    ],
)
def test_a_wrong_setting_is_one_line(
    prepared: Prepared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    what: str,
) -> None:
    try:
        found = cli.main(prepared.command(tmp_path / "report", *more))
    except SystemExit as ended:  # argparse
        found = int(str(ended.code))
    assert found == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert what in last
    assert not (tmp_path / "report").exists()


def test_a_report_that_can_not_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["evaluate", "c", "f", "--model", "m", "--report", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"earwitness-train: error: --report {tmp_path / 'file'}: is not a folder\n"


def test_a_drawing_escapes_text_and_keeps_bars_inside() -> None:
    drawing = Drawing(100, 50, 'a "label" <b>')
    drawing.rect((1, 2), (-3, 4), "x", title="<i>&")
    drawing.text((0, 0), "<script>")
    text = drawing.svg()
    assert "<script>" not in text
    assert "<i>" not in text
    assert 'width="0.0"' in text
    assert Scale(0, 10, 100, 200).at(25) == 200
    assert Scale(5, 5, 100, 200).at(5) == 100


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 10.05), (33.2, 71.9), (0, 0.004), (-3, 3)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert all(low - 1e-9 <= one <= high + 1e-9 for one in found)
    assert ticks(1, 1) == [1]


def test_groups_are_those_of_the_corpus(report: Path) -> None:
    corpus = next(path for path in report.parent.iterdir() if path.name.startswith("corpus"))
    groups = {line.split("\t")[2] for line in (report / "groups.tsv").read_text().splitlines()[1:]}
    known = {name for of in Corpus.read(corpus).summary.groups["test"].values() for name in of}
    assert groups <= known


def test_a_preset_that_the_model_can_not_use_is_left_out_of_the_curve() -> None:
    small = seeded_bundle(window_cells=30)
    points = Plan(hops=(8,), lookaheads=(12,)).points(small)
    assert points == [PRESETS["balanced"], PRESETS["fast"], StreamSettings(8, 12)]
    assert PRESETS["accurate"] in Plan().points(seeded_bundle())


def test_a_curve_begins_with_the_shortest_lookahead_that_the_model_can_use() -> None:
    assert lookaheads_of(seeded_bundle()) == LOOKAHEADS
    assert lookaheads_of(seeded_bundle(stream=StreamForm(5))) == (5, *LOOKAHEADS[1:])
