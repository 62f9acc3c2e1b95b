"""What is listened to can be chosen on the command line and in a config, and every command says what was."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from streamer.commands import doctor, replay
from streamer.commands.known import KnownSecrets
from streamer.commands.options import add_config_options, config_of
from streamer.config.loading import load_config
from streamer.daemon import media_options
from streamer.errors import ConfigError, UsageError
from tests.make_media import make_clip, tone
from tests.media.test_tracks import RATE, sine, write


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silent track, one that can be heard, and one whose channels cancel each other."""
    tracks = [("", 0 * sine(1)[None]), ("deu", sine(0.25)[None]), ("eng", np.stack([sine(0.5), -sine(0.5)]))]
    return write(tmp_path_factory.mktemp("film") / "film.mkv", tracks)


def parsed(argv: Sequence[str | Path]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    replay.add_parser(commands)
    doctor.add_parser(commands)
    add_config_options(commands.add_parser("run"))
    words = list(map(str, argv))
    return parser.parse_args(words, argparse.Namespace(argv=words, known=KnownSecrets()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], ["film.mkv: listened to flac 16000 Hz, mono, track 1 of 3", "film.mkv: digital silence, "]),
        (["--audio-track", "2"], ["film.mkv: listened to flac 16000 Hz, mono, track 2 of 3, deu"]),
        (["--audio-track", "deu"], ["film.mkv: listened to flac 16000 Hz, mono, track 2 of 3, deu"]),
        (
            ["--audio-track", "eng"],
            [
                "film.mkv: listened to flac 16000 Hz, 2 channels, their mix, track 3 of 3, eng",
                "film.mkv: its 2 channels cancel each other: they have -9 dBFS, their mix has nothing; listen to one",
            ],
        ),
        (
            ["--audio-track", "3", "--channel", "right"],
            ["film.mkv: listened to flac 16000 Hz, 2 channels, number 2, track 3 of 3, eng"],
        ),
    ],
)
def test_replay_says_what_it_listened_to(
    film: Path, bundle: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: list[str]
) -> None:
    args = parsed(["replay", film, "--model", bundle, *options])
    assert args.main(args) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("earwitness: ")]
    assert len(lines) == len(said)
    for line, beginning in zip(lines, said, strict=True):
        assert line.removeprefix("earwitness: ").startswith(beginning)


def test_replay_refuses_a_track_that_is_not_there(film: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = parsed(["replay", film, "--model", bundle, "--audio-track", "4"])
    assert args.main(args) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no audio track number 4; it has 1 (flac" in line


@pytest.mark.parametrize("words", [["--channel", "0"], ["--channel", "middle"], ["--audio-track", "0"]])
def test_a_choice_that_makes_no_sense_is_refused(
    film: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(["replay", film, *words])
    assert "is not a whole number from 1" in capsys.readouterr().err


def verdicts(bundle: Path, arguments: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    args = parsed(["doctor", "--publish", "off", "--metrics", "off", "--model", bundle, *arguments])
    args.main(args)
    lines = [re.split(r" +", line, maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    return {what: f"{verdict} {found}" for verdict, what, found in lines}


def test_doctor_says_what_it_listened_to_and_whether_there_is_anything(
    film: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = make_clip(tmp_path / "good.wav", audio="pcm", rate_hz=RATE, samples=tone(3, RATE, level=0.5))
    found = verdicts(bundle, [f"good={good}", f"film={film}"], capsys)
    assert found["good"].startswith("ok ")
    assert "pcm_s16le 16000 Hz, mono, track 1 of 1; level -9 dBFS, peak -6 dBFS" in found["good"]
    assert found["film"].startswith("warn ")
    assert "track 1 of 3" in found["film"]
    assert "digital silence" in found["film"]
    found = verdicts(bundle, [f"film={film}", "--audio-track", "eng"], capsys)
    assert found["film"].startswith("fail ")
    assert "cancel each other" in found["film"]
    found = verdicts(bundle, [f"film={film}", "--audio-track", "eng", "--channel", "left"], capsys)
    assert found["film"].startswith("ok ")


def test_the_command_lines_sources_have_the_choice(film: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"streams: {{door: {{source: {film}}}}}")
    made = config_of(parsed(["run", f"cam={film}", "--config", config, "--audio-track", "deu", "--channel", "2"]))
    assert (made.streams["cam"].audio_track, made.streams["cam"].channel) == ("deu", 2)
    assert (made.streams["door"].audio_track, made.streams["door"].channel) == (None, "mix")
    with pytest.raises(UsageError, match="fields of a stream"):
        config_of(parsed(["run", "--config", config, "--channel", "left"]))


@pytest.mark.parametrize(
    ("fields", "track", "channel"),
    [("audio_track: 2", 2, "mix"), ("audio_track: deu, channel: right", "deu", "right"), ("channel: 3", None, 3)],
)
def test_a_config_has_the_choice(tmp_path: Path, fields: str, track: int | str | None, channel: int | str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"streams: {{door: {{source: a.wav, {fields}}}}}")
    options = media_options(load_config(path, {}).streams["door"])
    assert (options.audio_track, options.channel) == (track, channel)


@pytest.mark.parametrize("fields", ["audio_track: 0", "channel: 0", "channel: middle", "audio_track: x"])
def test_a_config_with_a_wrong_choice_is_refused(tmp_path: Path, fields: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"streams: {{door: {{source: a.wav, {fields}}}}}")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert fields.partition(":")[0] in str(caught.value)
    assert "\n" not in str(caught.value)
