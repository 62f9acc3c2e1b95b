"""What replay measured goes into the bundle that it measured, and into no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.models import bundle_path
from streamer.networks.published import KNOWN
from tests.models import seeded_bundle
from train import cli
from train.card import card, measured, with_scores

COUNTS = {"clip": (4, 3, 2), "segment": (10, 8, 6), "event": (5, 4, 1)}


def report_of(folder: Path, about: Bundle, changes: dict[str, object] | None = None) -> Path:
    """A report's `scores.json` about a bundle, but for `changes`."""
    row = {kind: dict(zip(("true", "found", "right"), counts, strict=True)) for kind, counts in COUNTS.items()}
    scores = {"clips": 4, "classes": {"Dog": row, "Cat": row}}
    figures = {
        "command": "earwitness replay clips",
        "bundle": about.name,
        "bundle_sha256": about.fingerprint(),
        "mode": "stream",
        "truth": "truth.tsv",
        "clips": 4,
        "seconds": 40.0,
        "events": 8,
        "coverage": 1.0,
        "broken": [],
        "scores": scores,
        "tags": {},
    }
    folder.mkdir(exist_ok=True)
    (folder / "scores.json").write_text(json.dumps({**figures, **(changes or {})}))
    return folder


def test_figures_go_into_the_bundle_by_name(tmp_path: Path) -> None:
    bundle = seeded_bundle()
    name, figures = measured(report_of(tmp_path, bundle), bundle)
    made = with_scores(bundle, {name: figures})
    assert name == "test_stream"
    assert made.scores[name]["clip_f1_micro"] == pytest.approx(4 / 7)
    assert made.scores[name]["event_f1_macro"] == made.scores[name]["event_f1"] == pytest.approx(2 / 9)
    text = card(made)
    assert "| **micro** | 10 | 57.1 | 66.7 | 22.2 |" in text
    assert "clip micro 57.14, segment micro 66.67, event macro 22.22" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": "seeded-2"}, "is a report about seeded-2, not seeded"),
        ({"bundle": "not-seeded"}, "is a report about not-seeded, not seeded"),
        ({"bundle_sha256": "0" * 64}, "its weights or thresholds have changed since"),
        ({"complete": False}, "was interrupted"),
        ({"broken": ["x.wav: not an audio or video file"]}, "1 clips could not be replayed"),
        ({"scores": None}, "was replayed without --truth"),
        ({"clips": "four"}, "does not contain a report"),
    ],
)
def test_a_report_of_something_else_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    bundle = replace(seeded_bundle(), name="seeded")
    with pytest.raises(EarwitnessError, match=message):
        measured(report_of(tmp_path, bundle, changes), bundle)


def test_a_merged_models_card_names_its_members() -> None:
    bundle = seeded_bundle()
    parts = [
        {"name": "ears", "share": 0.7, "sha256": "a" * 64},
        {"name": "mn04-alone", "share": 0.3, "sha256": "b" * 64},
    ]
    made = msgspec.structs.replace(bundle.provenance, more={**bundle.provenance.more, "merged": parts})
    text = card(replace(bundle, provenance=made))
    assert "the weighted mean of the logits of 2 networks that were trained apart: ears (0.7), mn04-alone (0.3)" in text
    assert "trained apart" not in card(bundle)


def test_the_card_says_how_to_get_the_pretrained_weights() -> None:
    bundle = seeded_bundle()
    sha256 = KNOWN["mn04"].sha256
    specs = {**bundle.feature_specs, "mn04": {"weights_sha256": sha256}, "mn04_scores": {"weights_sha256": sha256}}
    text = card(replace(bundle, feature_specs=specs))
    assert "It needs pretrained weights, which are fetched once: `earwitness weights fetch mn04`." in text
    assert "fetched once" not in card(bundle)


def test_a_report_of_version_0_1_has_no_fingerprint(tmp_path: Path) -> None:
    bundle = seeded_bundle()
    report_of(tmp_path, bundle)
    figures = json.loads((tmp_path / "scores.json").read_text())
    del figures["bundle_sha256"]
    (tmp_path / "scores.json").write_text(json.dumps(figures))
    assert measured(tmp_path, bundle)[0] == "test_stream"


def test_a_bundle_measured_before_micro_had_a_name_gets_it_from_its_counts() -> None:
    bundle = Bundle.load(bundle_path(None))
    before = bundle.scores["test_clip"]
    after = with_scores(bundle, {}).scores["test_clip"]
    assert {name: after[name] for name in ("clips", "clip_f1", "segment_f1", "event_f1", "command")} == {
        name: pytest.approx(before[name]) if name.endswith("f1") else before[name]
        for name in ("clips", "clip_f1", "segment_f1", "event_f1", "command")
    }
    assert after["event_f1_macro"] == pytest.approx(before["event_f1"])
    assert (bundle_path(None) / "MODEL_CARD.md").read_text() == card(bundle)


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def evaluation_of(folder: Path, about: Bundle, changes: dict[str, object] | None = None) -> Path:
    """The file of figures of `earwitness-train evaluate --report`, with three points of the curve."""
    f1 = {f"{kind}_f1_{mean}": interval(0.5) for kind in ("clip", "segment", "event") for mean in ("micro", "macro")}
    alarms = {"false_alarms_per_hour": {"value": 7.0, "low": 2.5, "high": 12.0}}
    way = {**f1, **alarms, "classes": {label: {**alarms, "event": {"true": 2}} for label in about.classes}}
    late = {"n": 5, "p50": interval(1.25), "p95": interval(1.5)}
    points = [
        {
            "hop_cells": hop,
            "lookahead_cells": cells,
            "early_threshold": early,
            "event_f1_macro": interval(0.4 + cells / 1000 - (early == 1) / 10),
            "onset_latency_s": late,
        }
        for hop, cells, early in ((4, 8, 1), (4, 8, 0.75), (8, 15, 0.75))
    ]
    report = {
        "model": about.name,
        "model_sha256": about.fingerprint(),
        "clips": 4,
        "seconds": 40.0,
        "resampled": {"what": "groups of recordings", "count": 3, "draws": 2000},
        "offline": way,
        "streaming": {**way, "hop_cells": 8, "lookahead_cells": 30, "onset_latency_s": late},
        "curve": points,
    }
    folder.mkdir(exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps({**report, **(changes or {})}))
    return folder


def test_an_evaluation_gives_the_card_intervals_presets_and_false_alarms(tmp_path: Path) -> None:
    bundle = seeded_bundle()
    bundle.save(tmp_path / "model")
    report = str(evaluation_of(tmp_path / "report", bundle))
    assert cli.main(["card", str(tmp_path / "model"), report]) == 0
    made = Bundle.load(tmp_path / "model")
    text = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert text == card(made)
    assert "| event F1, macro | 50.0 [45.0, 55.0] | 50.0 [45.0, 55.0] |" in text
    assert "| fast | 4, 8 | 40.8 [35.8, 45.8] | 1.25 s, 1.50 s |" in text
    assert "| accurate | 8, 30 | not measured | |" in text
    assert f"| {bundle.classes[0]} | 7.0 [2.5, 12.0] |" in text
    assert "over 3 groups of recordings" in text


def test_what_never_happened_has_no_interval_in_the_card(tmp_path: Path) -> None:
    """As where a class raised no false alarm, or was never found: all that is resampled is 0."""
    bundle = seeded_bundle()
    bundle.save(tmp_path / "model")
    report = evaluation_of(tmp_path / "report", bundle)
    figures = json.loads((report / "evaluation.json").read_text())
    none = {"value": 0.0, "low": None, "high": None}
    figures["streaming"]["classes"][bundle.classes[0]]["false_alarms_per_hour"] = none
    figures["streaming"]["event_f1_macro"] = none
    late = {"n": 0, "p50": {"value": None, "low": None, "high": None}, "p95": none | {"value": None}}
    figures["curve"][1] |= {"event_f1_macro": none, "onset_latency_s": late}
    (report / "evaluation.json").write_text(json.dumps(figures))
    assert cli.main(["card", str(tmp_path / "model"), str(report)]) == 0
    text = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert f"| {bundle.classes[0]} | 0.0 |" in text
    assert "| event F1, macro | 50.0 [45.0, 55.0] | 0.0 |" in text
    assert "| fast | 4, 8 | 0.0 | no onset was found |" in text


def test_an_evaluation_of_backgrounds_gives_the_card_false_alarms_alone(tmp_path: Path) -> None:
    bundle = seeded_bundle()
    bundle.save(tmp_path / "model")
    alarms = {"false_alarms_per_hour": {"value": 9.0, "low": 3.5, "high": 16.0}, "event": {"true": 0}}
    f1 = {f"{kind}_f1_{mean}": None for kind in ("clip", "segment", "event") for mean in ("micro", "macro")}
    way: dict[str, object] = {**f1, **alarms, "classes": dict.fromkeys(bundle.classes, alarms)}
    late = {"n": 0, "p50": None, "p95": None}
    changes: dict[str, object] = {"offline": way, "seconds": 3600.0, "curve": []}
    changes["streaming"] = {**way, "hop_cells": 8, "lookahead_cells": 30, "onset_latency_s": late}
    reports = [evaluation_of(tmp_path / "report", bundle), evaluation_of(tmp_path / "quiet", bundle, changes)]
    assert cli.main(["card", str(tmp_path / "model"), *map(str, reports)]) == 0
    made = Bundle.load(tmp_path / "model")
    text = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert text == card(made)
    assert set(made.scores) >= {"evaluation", "backgrounds"}
    assert "60 minutes in which none of the classes sounds" in text
    assert f"| {bundle.classes[0]} | 9.0 [3.5, 16.0] |" in text
    assert "| event F1, macro | 50.0 [45.0, 55.0] | 50.0 [45.0, 55.0] |" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "seeded-2", "model_sha256": "0"}, "is a report about seeded-2, not seeded"),
        ({"model_sha256": "0" * 64}, "its weights or thresholds have changed since"),
        ({"streaming": {}}, "does not contain a report of `earwitness-train evaluate --report`: 'clip_f1_micro'"),
        ({"offline": 3}, "does not contain a report"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    bundle = replace(seeded_bundle(), name="seeded")
    with pytest.raises(EarwitnessError, match=message):
        measured(evaluation_of(tmp_path, bundle, changes), bundle)


def test_a_command_that_names_every_clip_is_cut_in_the_middle(tmp_path: Path) -> None:
    bundle = seeded_bundle(["spectral"])
    clips = " ".join(f"corpus/test_{number:05}.flac" for number in range(600))
    report = report_of(tmp_path, bundle, {"command": f"earwitness replay {clips} --mode clip --report results"})
    text = card(with_scores(bundle, dict([measured(report, bundle)])))
    line = next(line for line in text.splitlines() if "earwitness replay" in line)
    assert line.startswith("    earwitness replay corpus/test_00000.flac ")
    assert line.endswith(" --mode clip --report results")
    assert len(line) < 300
