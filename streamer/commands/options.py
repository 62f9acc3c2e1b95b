"""Options that several commands share, and the config that results from them and a file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from streamer.address import Address
from streamer.arguments import number_from_1
from streamer.commands.known import KnownSecrets
from streamer.config.loading import load_config, with_changes
from streamer.config.schema import DaemonConfig
from streamer.config.sources import with_sources
from streamer.errors import UsageError
from streamer.media.tracks import Channel
from streamer.models import model_help
from streamer.sinks.store.opening import default_store_path
from streamer.windows import DEFAULT_PRESET, PRESETS

PRESET_HELP = f"how soon events are published (default: {DEFAULT_PRESET})"
SOURCE_HELP = (
    "NAME=SOURCE or SOURCE: an RTSP(S), RTMP, HTTP(S), HLS or UDP URL, a file, a pipe (-: standard input), or a "
    "device; '${VARIABLE}' (in single quotes) is replaced from the environment, so that `ps` shows no password"
)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that change the daemon's config."""
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help=SOURCE_HELP)
    add_config_file(parser)
    parser.add_argument("--model", metavar="NAME|BUNDLE", help=model_help())
    parser.add_argument("--weights", metavar="FOLDER", help="folder of pretrained weights (default: the user's cache)")
    parser.add_argument("--preset", choices=tuple(PRESETS), help=PRESET_HELP)
    add_sound_options(parser, "for the command line's sources: ")
    parser.add_argument("--ca-file", metavar="FILE", help="trusted CA certificates (PEM) for these sources")
    parser.add_argument("--no-verify", action="store_true", help="accept any TLS certificate of these sources")
    parser.add_argument("--publish", metavar="ENDPOINT|off", help="ZeroMQ endpoint (default: tcp://127.0.0.1:5557)")
    parser.add_argument("--keys", metavar="FOLDER", help="key folder (`earwitness keys`); required beyond this machine")
    parser.add_argument("--jsonl", metavar="FILE|-|off", help="also write each message as a line of JSON")
    parser.add_argument("--store", metavar="FILE|off", help="event store (default: in the user's state folder)")
    parser.add_argument("--metrics", metavar="HOST:PORT|off", help="metrics and health (default: 127.0.0.1:9464)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="default: info")
    parser.add_argument("--log-format", choices=("text", "json"), help="default: text")


def add_config_file(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=os.environ.get("EARWITNESS_CONFIG") or None,
        help="YAML config; see configs/daemon/example.yaml (default: what the variable EARWITNESS_CONFIG names)",
    )


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the event store to read; see `store_path`."""
    publisher = DaemonConfig().publisher
    parser.add_argument(
        "--store", type=Path, metavar="FILE", help="event store (default: --publisher's in the state folder)"
    )
    parser.add_argument(
        "--publisher", default=publisher, metavar="NAME", help=f"the daemon's `publisher` (default: {publisher})"
    )


def store_path(args: argparse.Namespace) -> Path:
    """The path of the event store to read, from the arguments of `add_store_options`."""
    path: Path = args.store or default_store_path(args.publisher, os.environ)
    return path


def add_sound_options(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Add the options that choose what is listened to."""
    parser.add_argument(
        "--audio-track",
        type=_track,
        metavar="N|LANGUAGE",
        help=f"{of}the audio track to listen to: its number, from 1, or its language (default: the best one)",
    )
    parser.add_argument(
        "--channel",
        type=_channel,
        metavar="mix|left|right|N",
        help=f"{of}the channel to listen to: mix (the mean of all), left, right, or a number from 1 (default: mix)",
    )


def _track(text: str) -> int | str:
    if not text.isdecimal():
        return text
    return number_from_1(text)


def _channel(text: str) -> Channel:
    if text in ("mix", "left", "right"):
        return text  # type: ignore[return-value]
    return number_from_1(text)


def config_of(args: argparse.Namespace) -> DaemonConfig:
    """The config file's values, overridden by options, plus the command line's sources.

    Raises:
        ConfigError: the file, an option or a source is wrong.
        UsageError: an option for sources, but no source.

    """
    config = DaemonConfig() if args.config is None else load_config(args.config, os.environ)
    fields = {
        "model": args.model,
        "weights": args.weights,
        "windows.preset": args.preset,
        "publish.zmq": args.publish,
        "publish.keys": args.keys,
        "publish.jsonl": args.jsonl,
        "store.path": args.store,
        "metrics": args.metrics,
        "log.level": args.log_level,
        "log.format": args.log_format,
    }
    changes: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    sound = {"audio_track": args.audio_track, "channel": args.channel, "ca_file": args.ca_file}
    sound["verify"] = False if args.no_verify else None
    sound = {name: value for name, value in sound.items() if value is not None}
    if sound and not args.sources:
        raise UsageError(
            "--audio-track and --channel apply to sources on the command line; in a config they are fields of a stream"
        )
    config = with_sources(with_changes(config, changes), args.sources, os.environ, sound)
    known: KnownSecrets = args.known
    places = (
        config.model,
        config.weights,
        config.publish.zmq,
        config.publish.jsonl,
        config.store.path,
        config.metrics,
    )
    known.learn(*(Address.parse(str(place)) for place in places))
    for stream in config.streams.values():
        known.learn(stream.source, strings=[value.get_secret_value() for value in stream.ffmpeg.values()])
    return config
