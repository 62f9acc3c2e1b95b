import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from streamer.address import Address
from streamer.config.loading import load_config, with_changes
from streamer.config.schema import DaemonConfig, StreamConfig
from streamer.config.sources import split_source, with_sources
from streamer.errors import ConfigError
from streamer.windows import PRESETS, StreamSettings

CONFIGS = Path(__file__).parents[2] / "configs" / "daemon"
ENVIRON = {"CAMERA_PASSWORD": "hunter2"}


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> DaemonConfig:
    path = tmp_path / "daemon.yaml"
    path.write_text(text)
    return load_config(path, environ or {})


def fault(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environ)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(tmp_path / "daemon.yaml"), "FILE")


def fields_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """The description of each field, by its dotted name."""
    fields = {}
    for name, field in model.model_fields.items():
        fields[prefix + name] = field.description or ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            fields |= fields_of(field.annotation, f"{prefix}{name}.")
    return fields


def comments_of(path: Path) -> dict[str, str]:
    """The comment of each field in a config file, beside or above it, by the field's dotted name."""
    comments: dict[str, str] = {}
    above: list[str] = []
    names: list[str] = []
    for line in path.read_text().splitlines():
        field = re.fullmatch(r"( *)(\w+):(?: [^#]*?)?(?: *# (.*))?", line)
        if field is not None:
            indent, name, beside = field.groups()
            names = [*names[: len(indent) // 2], name]
            comments[".".join(names)] = beside or " ".join(above)
        above = [*above, line.strip("# ")] if line.lstrip().startswith("#") else []
    return comments


def plain(text: str) -> str:
    """`text` without what differs between a comment and a description: quotes, a capital, the last full stop."""
    text = re.sub("[`'\"]", "", text)
    return text[:1].lower() + text[1:].removesuffix(".")


def test_the_example_shows_every_field_with_its_default() -> None:
    config = load_config(CONFIGS / "example.yaml", ENVIRON)
    shown = yaml.safe_load((CONFIGS / "example.yaml").read_text())
    stream = shown.pop("streams")["door"]
    assert set(stream) == set(fields_of(StreamConfig))
    names = set(shown) | {f"{name}.{sub}" for name, part in shown.items() if isinstance(part, dict) for sub in part}
    assert names == set(fields_of(DaemonConfig)) - {"streams"}
    assert config.streams["door"].source == Address.parse("rtsp://user:hunter2@camera.example/stream")
    defaults = DaemonConfig(streams={"door": StreamConfig(source=config.streams["door"].source)})
    assert config == defaults


def test_the_comments_of_the_example_are_the_descriptions() -> None:
    streams = fields_of(StreamConfig, "streams.door.")
    described = {name: plain(text) for name, text in {**fields_of(DaemonConfig), **streams}.items()}
    comments = {name: plain(text) for name, text in comments_of(CONFIGS / "example.yaml").items()}
    assert all(described.values())
    assert described == {name: text for name, text in comments.items() if name != "streams.door"}


def test_the_minimal_config_loads() -> None:
    assert list(load_config(CONFIGS / "minimal.yaml", ENVIRON).streams) == ["door"]


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == DaemonConfig()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metric: off\n", "config FILE:1: unknown field 'metric'; did you mean 'metrics'?"),
        (
            "streams:\n  door:\n    source: x\n    transprot: udp\n",
            "config FILE:4: unknown field 'streams.door.transprot'; did you mean 'transport'?",
        ),
        ("publish:\n  zqm: off\n", "config FILE:2: unknown field 'publish.zqm'; did you mean 'zmq'?"),
        ("log: {levle: info}\n", "config FILE:1: unknown field 'log.levle'; did you mean 'level'?"),
        (
            "publish: {xyzzy: 1}\n",
            "config FILE:1: unknown field 'publish.xyzzy'; fields here: zmq, catch_up, keys, jsonl, tags, scores, ",
        ),
        ("threshold: 0.5\n", "config FILE:1: unknown field 'threshold'"),
        ("streams:\n  door: {}\n", "config FILE:2: streams.door.source is missing"),
        ("streams:\n  a b: {source: x}\n", "config FILE:2: streams.a b: names are 1 to 64 letters"),
        (f"streams:\n  {'a' * 65}: {{source: x}}\n", "names are 1 to 64 letters"),
        ("publisher: a/b\n", "config FILE:1: publisher: names are 1 to 64 letters"),
        ("streams: [door]\n", "config FILE:1: streams"),
        ("windows:\n  hop_cells: 0\n", "config FILE:2: windows.hop_cells: input should be greater than or equal to 1"),
        ("windows: {early_threshold: 1.5}\n", "windows.early_threshold: "),
        ("windows: 8\n", "config FILE:1: windows must contain fields"),
        ("- a\n- b\n", "config FILE: must be fields with values (`streams:` ...), not a list"),
        ("streams:\n  door: [\n", "config FILE:3: not valid YAML"),
        ("a: b: c\n", "config FILE:1: not valid YAML"),
        ("metrics: off\nmetrics: off\n", "config FILE:2: metrics is given twice, first in line 1"),
        ("\x00", "config FILE: not valid YAML"),
        ("load: {threads: many}\n", "config FILE:1: load.threads: input should be a valid integer"),
        ("load: {threads: many, picture_budget: 2}\n", "(and 1 more)"),
        ("windows: {max_event_s: .inf}\n", "config FILE:1: windows.max_event_s: input should be a finite number"),
        ("? [a, b]\n: c\n", "config FILE"),
        ("!!python/object:os.system {}\n", "config FILE:1: not valid YAML"),
    ],
)
def test_errors_are_one_line_with_the_place(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in fault(tmp_path, text)


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "gone.yaml", {})
    with pytest.raises(ConfigError, match="directory"):
        load_config(tmp_path, {})
    (tmp_path / "film.mp4").write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "film.mp4", {})


def test_variables(tmp_path: Path) -> None:
    text = "streams:\n  door:\n    source: rtsp://${USER_1}:${PW}@h/x?a=$b\n"
    config = load(tmp_path, text, {"USER_1": "u", "PW": "p:w"})
    assert config.streams["door"].source.reveal() == "rtsp://u:p%3Aw@h/x?a=$b"
    assert fault(tmp_path, text, {"PW": "x"}) == (
        "config FILE:3: streams.door.source: the environment variable USER_1 is not set, nor USER_1_FILE, which may "
        "name a file that holds it"
    )


def test_errors_hold_no_secret(tmp_path: Path) -> None:
    text = "streams:\n  door:\n    source: [rtsp://user:hunter2@h/x]\n    transport: 'rtsp://user:hunter2@h'\n"
    assert "hunter2" not in fault(tmp_path, text)


@pytest.mark.parametrize("off", ["off", "'off'", "null", "no"])
def test_off(tmp_path: Path, off: str) -> None:
    config = load(tmp_path, f"metrics: {off}\npublish: {{zmq: {off}, jsonl: {off}}}\n")
    assert (config.metrics, config.publish.zmq, config.publish.jsonl) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("door=rtsp://h/x?a=b", "door", "rtsp://h/x?a=b"),
        ("rtsp://h/x?a=b", None, "rtsp://h/x?a=b"),
        ("clip.mp4", None, "clip.mp4"),
        ("a=clip=1.mp4", "a", "clip=1.mp4"),
        ("/tmp/a=b.mp4", None, "/tmp/a=b.mp4"),
    ],
)
def test_sources(text: str, name: str | None, url: str) -> None:
    assert split_source(text) == (name, url)


def test_unnamed_sources_get_names() -> None:
    config = with_sources(
        DaemonConfig(),
        ["rtsp://u:p@cam-1.lan:554/x", "rtsp://cam-1.lan/y", "/data/My film (1).mp4", "file:///a/b.mkv", "hall=x.mp4"],
        {},
    )
    assert list(config.streams) == ["cam-1.lan", "cam-1.lan-2", "My-film-1", "b", "hall"]


def test_a_name_that_is_taken_or_empty_is_refused() -> None:
    with pytest.raises(ConfigError, match="two streams are named 'a'"):
        with_sources(DaemonConfig(), ["a=x.mp4", "a=y.mp4"], {})
    with pytest.raises(ConfigError, match="names no source"):
        with_sources(DaemonConfig(), ["a="], {})


def test_a_preset_sets_what_is_not_set(tmp_path: Path) -> None:
    def settings(**fields: Any) -> StreamSettings:
        return DaemonConfig.model_validate({"windows": fields}).windows.settings

    assert settings() == PRESETS["balanced"]
    assert settings(preset="fast") == PRESETS["fast"]
    assert settings(preset="fast", early_threshold=1.0) == replace(PRESETS["fast"], early_threshold=1.0)
    assert settings(preset="fast", hop_cells=2) == replace(PRESETS["fast"], hop_cells=2)


def test_changes_are_checked() -> None:
    assert with_changes(DaemonConfig(), {"publish.zmq": "off", "metrics": "h:1"}).publish.zmq is None
    changed = with_changes(DaemonConfig(), {"publish.zmq": "off", "publish.jsonl": "-", "publish.scores": True})
    assert (changed.publish.zmq, changed.publish.jsonl, changed.publish.scores) == (None, "-", True)
    with pytest.raises(ConfigError, match=r"command line: log\.level"):
        with_changes(DaemonConfig(), {"log.level": "loud"})
