"""`earwitness bench` measures bundles of both forms side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from streamer.cli import main
from streamer.networks.stream_crnn import StreamForm
from tests.models import seeded_bundle


@pytest.fixture
def bundles(tmp_path: Path) -> list[str]:
    replace(seeded_bundle(window_cells=20), name="whole").save(tmp_path / "whole")
    replace(seeded_bundle(stream=StreamForm(3)), name="carried").save(tmp_path / "carried")
    return [str(tmp_path / "whole"), str(tmp_path / "carried")]


def test_models_are_compared_in_one_table(bundles: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *bundles, "--hop", "8", "--lookahead", "4", "--streams", "2", "--seconds", "1"]) == 0
    head, whole, carried, foot = capsys.readouterr().out.splitlines()
    assert "ms per second of a stream" in head
    assert whole.split()[:2] == ["whole", "window"]
    assert whole.split()[4] == "100.0%"
    assert carried.split()[:2] == ["carried", "stream"]
    assert float(carried.split()[3]) > 0
    assert "in 1 thread;" in foot


def test_settings_that_do_not_fit_are_one_line(bundles: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", bundles[0], "--hop", "8", "--lookahead", "15"]) == 2
    assert "a hop of 8 and a lookahead of 15 cells exceed the 20 cells of a window of whole" in capsys.readouterr().err
    assert main(["bench", bundles[1], "--lookahead", "2"]) == 2
    assert "a lookahead of 2 cells is less than the 3 that carried needs" in capsys.readouterr().err
