"""The figures in the docs are those of the code: each is computed here and compared with the text.

A regular expression with a group per figure finds the text. It must match, and every match must have the computed
figures.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from streamer.bundle import Bundle
from streamer.config.schema import DaemonConfig, StreamConfig
from streamer.features.spectral import Spectral
from streamer.models import bundle_path, shipped
from streamer.runtime import publisher, shedding, turns
from streamer.timeline import seconds
from streamer.types import CELL, SAMPLE_RATE_HZ
from streamer.windows import PRESETS, Preset, StreamSettings
from train.card import CARD, card

ROOT = Path(__file__).parents[1]
CONFIG = DaemonConfig()
WINDOWS = CONFIG.windows.settings
STREAM = StreamConfig(source="x")
BUNDLE = Bundle.load(bundle_path(None))
CELL_S = seconds(CELL)
HOP_S = WINDOWS.hop_cells * CELL_S
LOOKAHEAD_S = WINDOWS.lookahead_cells * CELL_S
WINDOW_S = BUNDLE.window_cells * CELL_S
PUBLISHED_S = f"{math.ceil(LOOKAHEAD_S + HOP_S):.0f}"
"""An onset is certain once its lookahead is known; it is published with the next window."""

README, MESSAGES, ARCHITECTURE, DECISIONS = "README.md", "docs/messages.md", "ARCHITECTURE.md", "docs/decisions.md"
EXAMPLE = "configs/daemon/example.yaml"


FIGURES: list[tuple[str, str, tuple[str, ...]]] = [
    # The grid
    (README, r"│ ([\d.]+)ms │ of all streams", (f"{1000 * CELL_S:.2f}",)),
    (README, r"([\d.]+) kHz, 16 kHz", (f"{SAMPLE_RATE_HZ / 1000}",)),
    (MESSAGES, r"consecutive cells \(([\d.]+) ms each\)", (f"{1000 * CELL_S:.2f}",)),
    (MESSAGES, r'"step_s":([\d.]+)', (f"{CELL_S:.6f}",)),
    (EXAMPLE, r"in cells of ([\d.]+) ms", (f"{1000 * CELL_S:.2f}",)),
    (ARCHITECTURE, r"counts samples at ([\d ]+) Hz", (f"{SAMPLE_RATE_HZ:,}".replace(",", " "),)),
    (ARCHITECTURE, r"(\d+) samples \(([\d.]+) ms\), the model's output step", (f"{CELL}", f"{1000 * CELL_S:.2f}")),
    (ARCHITECTURE, r"hop (\d+), centred frames", (f"{CELL // Spectral().shape[0]}",)),
    (EXAMPLE, r"about (\d+) rows per second", (f"{1 / CELL_S:.0f}",)),
    # Windows
    (README, r"every ([\d.]+) s  ", (f"{HOP_S:.2f}",)),
    (README, r"(\d+) s of lookahead", (f"{LOOKAHEAD_S:.0f}",)),
    (README, r"needs (\d+) s of sound after", (f"{LOOKAHEAD_S:.0f}",)),
    (README, r"An onset is published about 1 s after it happened, some after (\d+) s", (PUBLISHED_S,)),
    (MESSAGES, r"one per window \(every ([\d.]+) s by default\)", (f"{HOP_S:.2f}",)),
    (MESSAGES, r"if the model is sure at once, else up to (\d+) s after it", (PUBLISHED_S,)),
    (MESSAGES, r"A cell's score is final once (\d+) s more was heard", (f"{LOOKAHEAD_S:.0f}",)),
    (MESSAGES, r"have scores of ([\d.]+) or more before that", (f"{WINDOWS.early_threshold}",)),
    (MESSAGES, r"latest window \(the last (\d+) s", (f"{WINDOW_S:.0f}",)),
    (
        MESSAGES,
        r"([\d.]+) to ([\d.]+) s after it was heard",
        (f"{LOOKAHEAD_S:.1f}", f"{LOOKAHEAD_S + HOP_S:.1f}"),
    ),
    (EXAMPLE, r"one window to the next, (\d+) are ([\d.]+) s", (f"{WINDOWS.hop_cells}", f"{HOP_S:.2f}")),
    (EXAMPLE, r"its score is final, (\d+) are (\d+) s", (f"{WINDOWS.lookahead_cells}", f"{LOOKAHEAD_S:.0f}")),
    (ARCHITECTURE, r"the new cells, every (\d+) → Window", (f"{WINDOWS.hop_cells}",)),
    (ARCHITECTURE, r"the others after (\d+) cells:\*\*", (f"{WINDOWS.lookahead_cells}",)),
    (ARCHITECTURE, r"so five of them in a row at ([\d.]+) raise", (f"{WINDOWS.early_threshold}",)),
    (DECISIONS, r"before (\d+) s of context behind it", (f"{LOOKAHEAD_S:.0f}",)),
    (DECISIONS, r"masked after `skew_cells`\*\* \((\d+);", (f"{CONFIG.windows.skew_cells}",)),
    # Time limits and addresses
    (ARCHITECTURE, r"a hole over (\d+) s ends the epoch", (f"{STREAM.hole_limit_s:.0f}",)),
    (MESSAGES, r"Sent when the state, the epoch.* and every (\d+) s", (f"{publisher._STATUS_EVERY_S:.0f}",)),
    (MESSAGES, r"The daemon is running; sent every (\d+) s", (f"{publisher._HEARTBEAT_EVERY_S:.0f}",)),
    (MESSAGES, r'"interval_s":([\d.]+)', (f"{publisher._HEARTBEAT_EVERY_S:.1f}",)),
    (MESSAGES, r"by default at `([^`]+)`", (f"{CONFIG.publish.zmq}",)),
    (README, r"# events on (\S+), metrics", (f"{CONFIG.publish.zmq}",)),
    (README, r"metrics on (\S+)", (f"http://{CONFIG.metrics}/metrics",)),
    (ARCHITECTURE, r"begins with one picture in (\d+) cells", (f"{shedding.PictureStride(0.5).stride}",)),
    (DECISIONS, r"on time\*\* \(less than ([\d.]+) s late\)", (f"{turns._CALM_S}",)),
    # Scores
    (
        README,
        r"none of the ten sounds, it raised (\d+) false alarms",
        (f"{BUNDLE.scores['backgrounds']['streaming']['false_alarms_per_hour']['value']:.0f}",),
    ),
    (README, r"On (\d+) clips of (\d+) s", (f"{BUNDLE.scores['test_clip']['clips']}", "10")),
]


@pytest.mark.parametrize(
    ("file", "pattern", "expected"), FIGURES, ids=[f"{file}: {pattern}" for file, pattern, _ in FIGURES]
)
def test_a_figure_stands_in_the_docs_as_the_code_has_it(file: str, pattern: str, expected: tuple[str, ...]) -> None:
    text = (ROOT / file).read_text()
    found = [match.groups() for match in re.finditer(pattern, text)]
    assert found, f"{file} has nothing like {pattern}"
    assert set(found) == {expected}


def test_defaults_of_the_core_are_those_of_the_config() -> None:
    assert WINDOWS == StreamSettings() == PRESETS["balanced"]


def test_scores_in_the_readme_are_the_bundles() -> None:
    text = (ROOT / README).read_text()
    for mode in ("clip", "stream"):
        measured = BUNDLE.scores[f"test_{mode}"]
        names = [f"{of}_f1_{mean}" for of in ("clip", "segment", "event") for mean in ("micro", "macro")]
        row = re.search(rf"\(`--mode {mode}`\)" + 3 * r" \| ([\d.]+) / ([\d.]+)" + r" \|", text)
        assert row is not None
        assert list(row.groups()) == [f"{100 * measured[name]:.1f}" for name in names]


def test_scores_of_the_other_models_in_the_readme_are_their_bundles() -> None:
    text = (ROOT / README).read_text()
    for model in shipped()[1:]:
        measured = Bundle.load(bundle_path(model)).scores["test_stream"]
        names = [f"{of}_f1_{mean}" for of in ("clip", "segment", "event") for mean in ("micro", "macro")]
        row = re.search(rf"with `--model {model}`" + 3 * r" \| ([\d.]+) / ([\d.]+)" + r" \|", text)
        assert row is not None
        assert list(row.groups()) == [f"{100 * measured[name]:.1f}" for name in names]


def at_preset(bundle: Bundle, name: Preset) -> dict[str, Any]:
    """What was measured with a preset."""
    fields = ("hop_cells", "lookahead_cells", "early_threshold")
    wanted = {field: getattr(PRESETS[name], field) for field in fields}
    (found,) = (one for one in bundle.scores["evaluation"]["curve"] if {key: one[key] for key in fields} == wanted)
    return dict(found)


@pytest.mark.parametrize("model", shipped())
def test_presets_in_the_readme_are_as_measured(model: str) -> None:
    text = (ROOT / README).read_text()
    for name in PRESETS:
        found = at_preset(Bundle.load(bundle_path(model)), name)
        row = re.search(rf"\| `{name}`[^|]*\| `{model}` \| ([\d.]+) s, ([\d.]+) s \| ([\d.]+) \|", text)
        assert row is not None
        late = found["onset_latency_s"]
        assert row.groups() == (
            f"{late['p50']['value']:.2f}",
            f"{late['p95']['value']:.2f}",
            f"{100 * found['event_f1_macro']['value']:.1f}",
        )


def test_scores_in_the_architecture_are_the_bundles() -> None:
    text = " ".join((ROOT / ARCHITECTURE).read_text().split())
    offline = f"offline {100 * BUNDLE.scores['test_clip']['event_f1_macro']:.1f} %"
    assert offline in text
    cells, scores = re.search(
        r"With ([\d, and]+) cells, the presets, event F1 on the 600 test clips was ([\d., and]+) %", text
    ).groups()  # type: ignore[union-attr]
    at = dict(zip(re.findall(r"\d+", cells), re.findall(r"[\d.]*\d", scores), strict=True))
    measured = {name: at_preset(BUNDLE, name)["event_f1_macro"]["value"] for name in PRESETS}
    assert at == {str(PRESETS[name].lookahead_cells): f"{100 * value:.1f}" for name, value in measured.items()}


@pytest.mark.parametrize("model", shipped())
def test_the_model_card_is_the_bundles(model: str) -> None:
    assert (bundle_path(model) / CARD).read_text() == card(Bundle.load(bundle_path(model)))
