"""Things that users get wrong: each gets one line that says what and what to do, and an exit code that is not 0."""

from __future__ import annotations

import json
import re
import shutil
import socket
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from streamer import cli
from streamer.models import bundle_path
from tests.make_media import make_clip
from tests.rtsp import free_port

Case = tuple[list[str], str]  # the command, and words of ours (not the argument itself) that its one line must have


FETCH = ["weights", "fetch", "vggish", "--weights"]


def _file(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def _clip(folder: Path) -> str:
    path = folder / "clip.mp4"
    make_clip(path, seconds=3, audio="aac", video="h264")
    return str(path)


def _bundle(folder: Path, **fields: object) -> str:
    copy = folder / "bundle"
    shutil.copytree(bundle_path(None), copy)
    document = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**document, **fields}))
    return str(copy)


def empty_file(folder: Path) -> Case:
    return ["replay", _file(folder, "empty.mp4", b"")], "the file is empty: copy or record it again"


def text_file(folder: Path) -> Case:
    return ["replay", _file(folder, "notes.mp4", b"this is not a video\n" * 50)], "(a text file): name a recording"


def truncated_mp4(folder: Path) -> Case:
    data = Path(_clip(folder)).read_bytes()
    return [
        "replay",
        _file(folder, "cut.mp4", data[: len(data) // 2]),
    ], "cut short (an MP4 whose index is missing): copy or record"


def missing_file(folder: Path) -> Case:
    return ["replay", str(folder / "nowhere.wav")], "no such file: check the path"


def empty_folder(folder: Path) -> Case:
    (folder / "clips").mkdir()
    return ["replay", str(folder / "clips")], "no clips in this folder"


def no_audio(folder: Path) -> Case:
    path = folder / "silent.mp4"
    make_clip(path, seconds=2, audio=None, video="h264")
    return ["replay", str(path)], "it has only video): use a source with audio"


def zero_length_audio(folder: Path) -> Case:
    path = folder / "zero.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(22_050)
    return ["replay", str(path)], "contains no audio and no video"


def folder_as_source(folder: Path) -> Case:
    return ["run", str(folder), "--metrics", "off", "--publish", "off"], "a folder, not a media file: name a file in it"


def closed_port(folder: Path) -> Case:
    return [
        "doctor",
        f"rtsp://user:secret@127.0.0.1:{free_port()}/cam",
    ], "nothing is listening there: check host and port"


def unknown_host(folder: Path) -> Case:
    return ["doctor", "rtsp://user:secret@no-such-host.invalid/cam"], "can't be resolved: check it"


def missing_bundle(folder: Path) -> Case:
    return ["replay", _clip(folder), "--model", str(folder / "gone")], "no such folder; check the path"


def newer_bundle(folder: Path) -> Case:
    return ["replay", _clip(folder), "--model", _bundle(folder, schema=99)], "update earwitness"


def damaged_bundle(folder: Path) -> Case:
    bundle = _bundle(folder)
    (Path(bundle) / "model.safetensors").write_bytes(b"short")
    said = "is not the file that bundle.json was written with; copy both again"
    return ["replay", _clip(folder), "--model", bundle], said


def foreign_checkpoint(folder: Path) -> Case:
    path = folder / "foreign.pth"
    torch.save({"layer.weight": torch.zeros(3, 3)}, path)
    return [*FETCH, str(folder / "store"), "--file", str(path)], "are not those of VGGish"


def vggish_with_128_bins(folder: Path) -> Case:
    path = folder / "vggish128.pth"
    shapes = {"embeddings.0.weight": (4096, 24576), "embeddings.0.bias": (4096,)}
    torch.save({name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}, path)
    return [*FETCH, str(folder / "store"), "--file", str(path)], "VGGish with 128 mel bins"


def weights_that_are_not_there(folder: Path) -> Case:
    bundle = _bundle(folder, features={"vggish": {}})
    command = ["replay", _clip(folder), "--model", bundle, "--weights", str(folder / "none")]
    return command, "get them with: earwitness weights fetch vggish"


def bad_yaml(folder: Path) -> Case:
    return ["run", "--config", _file(folder, "bad.yaml", b"streams: [\n  a: {")], "bad.yaml:2: not valid YAML"


def unknown_field(folder: Path) -> Case:
    config = _file(folder, "c.yaml", b"streams: {a: {sorce: x.mp4}}")
    return ["run", "--config", config], "unknown field 'streams.a.sorce'; did you mean 'source'?"


def contradicting_the_bundle(folder: Path) -> Case:
    return ["run", "--config", _file(folder, "c.yaml", b"thresholds: {Dog: 0.2}")], "unknown field 'thresholds'"


def too_short_a_window(folder: Path) -> Case:
    config = _file(
        folder, "c.yaml", b"windows: {hop_cells: 128, lookahead_cells: 30}\nmetrics: off\npublish: {zmq: off}"
    )
    return ["run", _clip(folder), "--config", config], "reduce one of them"


def no_source(folder: Path) -> Case:
    return ["run"], "no source to listen to; name one"


def bad_stream_name(folder: Path) -> Case:
    return ["run", "front door=rtsp://127.0.0.1/x"], "'front door' can't be a stream's name"


def unknown_class_in_truth(folder: Path) -> Case:
    clip = _clip(folder)
    truth = _file(folder, "truth.tsv", b"filename\tonset\toffset\tevent_label\nclip.mp4\t0\t1\tDogg\n")
    return ["replay", clip, "--truth", truth], "did you mean Dog?"


def truth_of_other_clips(folder: Path) -> Case:
    clip = _clip(folder)
    truth = _file(folder, "truth.tsv", b"filename\tonset\toffset\tevent_label\nother.mp4\t0\t1\tDog\n")
    return ["replay", clip, "--truth", truth], "none of the clips"


def public_address(folder: Path) -> Case:
    return [
        "run",
        _clip(folder),
        "--publish",
        "tcp://0.0.0.0:5999",
        "--metrics",
        "off",
    ], "need keys: `earwitness keys new NAME`"


def bad_endpoint(folder: Path) -> Case:
    return ["listen", "tcp://localhost"], "use tcp://HOST:PORT"


def unknown_weights(folder: Path) -> Case:
    return ["weights", "fetch", "resnet"], "known: vggish, vgg16"


CASES: list[Callable[[Path], Case]] = [
    empty_file,
    text_file,
    truncated_mp4,
    missing_file,
    empty_folder,
    no_audio,
    zero_length_audio,
    folder_as_source,
    closed_port,
    unknown_host,
    missing_bundle,
    newer_bundle,
    damaged_bundle,
    foreign_checkpoint,
    vggish_with_128_bins,
    weights_that_are_not_there,
    bad_yaml,
    unknown_field,
    contradicting_the_bundle,
    too_short_a_window,
    no_source,
    bad_stream_name,
    unknown_class_in_truth,
    truth_of_other_clips,
    public_address,
    bad_endpoint,
    unknown_weights,
]


def _run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        code = cli.main(argv)
    except SystemExit as stop:  # argparse's own
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, said.err + said.out


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_is_broken_is_said(
    case: Callable[[Path], Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, word = case(tmp_path)
    code, said = _run(argv, capsys)
    assert code != 0, said
    assert "Traceback" not in said
    assert "secret" not in said
    errors = [line for line in said.splitlines() if re.search(r"error:| ERROR |^fail ", line, re.IGNORECASE)]
    assert len(errors) == 1, said
    assert word in errors[0]


def test_a_busy_port_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = _clip(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for argv in (
            ["run", clip, "--publish", f"tcp://127.0.0.1:{port}", "--metrics", "off"],
            ["run", clip, "--publish", "off", "--metrics", f"127.0.0.1:{port}"],
        ):
            code, said = _run(argv, capsys)
            assert code != 0
            assert str(port) in said
            assert "Traceback" not in said
