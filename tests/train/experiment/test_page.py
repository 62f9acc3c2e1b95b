"""Tables get into the documentation by a command alone, and what was not run says so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import EarwitnessError
from streamer.features.vggish import HOP, RATE_HZ, WINDOW
from streamer.networks.vggish import FRAMES
from streamer.replay.scoring import ONSET_COLLAR_S
from streamer.types import CELL, FRAMES_PER_CELL, SAMPLE_RATE_HZ, WINDOW_CELLS
from tests.train.experiment.made import CONFIGS
from train.experiment import paper, plan
from train.experiment.page import markers, update

PAGE = Path(__file__).parents[3] / "docs" / "open-questions.md"


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    one, other = markers("one"), markers("other")
    page.write_text(f"a\n{one[0]}\nold\n{one[1]}\nb\n{other[0]}\nkept\n{other[1]}\n")
    update(page, "one", "\n| new |\n")
    update(page, "one", "\n| new |\n")
    assert page.read_text() == f"a\n{one[0]}\n| new |\n{one[1]}\nb\n{other[0]}\nkept\n{other[1]}\n"


@pytest.mark.parametrize("text", ["nothing", "<!-- end of experiment one --> <!-- experiment one -->"])
def test_a_page_without_a_place_for_the_table_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(EarwitnessError, match="has no place for this table: add the lines '<!-- experiment one -->'"):
        update(page, "one", "table")
    assert page.read_text() == text
    with pytest.raises(EarwitnessError, match="can't be read: No such file"):
        update(tmp_path / "nowhere.md", "one", "table")


def test_every_experiment_has_its_place_and_its_command_on_the_page() -> None:
    text = PAGE.read_text()
    names = re.findall(r"<!-- experiment ([\w-]+) -->", text)
    assert sorted(names) == sorted(path.stem for path in CONFIGS.glob("*.yaml") if "\nrows:" in path.read_text())
    for name in names:
        begin, end = markers(name)
        assert f"experiment configs/train/{name}.yaml" in text.partition(begin)[0]
        table = text.partition(begin)[2].partition(end)[0].strip()
        title = plan.read(CONFIGS / f"{name}.yaml").config.title
        assert table.startswith(("*Not run.*", f"**{title}**"))


def test_the_papers_figures_on_the_page_are_those_of_its_table() -> None:
    text = " ".join(PAGE.read_text().split())
    gain = {
        row: [one - base for one, base in zip(paper.TABLE_3[row], paper.TABLE_3["S"], strict=True)]
        for row in ("S+A", "S+A+V")
    }
    clip, segment, event = zip(gain["S+A"], gain["S+A+V"], strict=True)
    assert f"help tagging (+{clip[0]:.1f} points with VGGish, +{clip[1]:.1f} with VGG16 too)" in text
    assert f"in segments of 1 s (+{segment[0]:.2f}, +{segment[1]:.2f})" in text
    assert f"events with their onsets ({event[0]:+.1f}, {event[1]:+.1f})" in text


def test_the_distances_of_the_papers_chunks_on_the_page_are_those_of_its_hops() -> None:
    text = " ".join(PAGE.read_text().split())
    chunk_hop_s = HOP * 6 / RATE_HZ  # 900 ms of 960 overlap
    first_s = (FRAMES * HOP + WINDOW - HOP) / 2 / RATE_HZ
    cells = np.arange(WINDOW_CELLS)
    centre_s = (cells * CELL + 1.5 * CELL / FRAMES_PER_CELL) / SAMPLE_RATE_HZ  # of its four frames, which are centred
    apart_s = cells * chunk_hop_s + first_s - centre_s
    assert f"is then {1000 * apart_s[0]:.0f} ms after its cell at the beginning" in text
    assert f"{-1000 * apart_s[-1]:.0f} ms before it at the end" in text
    assert f"on {100 * np.mean(np.abs(apart_s) > ONSET_COLLAR_S):.0f} % of the cells" in text
