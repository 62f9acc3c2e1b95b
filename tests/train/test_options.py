"""Commands of training take a shipped model by its name too, and check what their options change in the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from train import cli


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "nowhere", "features", "--model", "audio"],
        ["tune", "nowhere", "features", "--model", "audio", "--out", "out"],
        ["fit", "nowhere", "features", "out", "--from", "audio"],
        ["export", "nowhere", "features", "run", "out", "--decoding", "audio"],
        ["card", "audio", "nowhere"],
        ["merge", "out", "audio", "nowhere"],
        ["guide", "nowhere", "features", "run", "--beside", "audio"],
    ],
    ids=lambda command: command[0],
)
def test_a_shipped_model_can_be_named(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(command) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "nowhere" in said, "what is missing, not the model"
    assert list(tmp_path.iterdir()) == []


def test_options_are_checked_with_the_file_that_they_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fit.yaml"
    path.write_text("modalities: [spectral, vggish]\nwidths: {vggish: 8}\n")
    command = ["fit", "nowhere", "features", str(tmp_path / "out"), "--config", str(path), "--modalities", "spectral"]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert f"{path}: widths: vggish is not among the modalities, spectral" in said
