"""`earwitness run`: the daemon."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Mapping
from importlib import metadata
from types import FrameType
from typing import TYPE_CHECKING

import torch

from streamer.commands import logs
from streamer.commands.options import add_config_options, config_of
from streamer.config import DaemonConfig, StreamConfig, default_weights_folder
from streamer.errors import ConfigError
from streamer.features.base import ExtractorFactory
from streamer.features.weights import WeightsStore
from streamer.media import MediaOptions
from streamer.model import Bundle, default_bundle_path
from streamer.pipeline import StreamSettings
from streamer.runtime.reader import Source
from streamer.runtime.supervisor import Plan, StreamPlan, Supervisor
from streamer.runtime.systemd import Notifier
from streamer.sinks.base import Sink
from streamer.sinks.jsonl import JsonLinesSink
from streamer.sinks.zmq import ZmqSink

if TYPE_CHECKING:
    from argparse import _SubParsersAction

log = logging.getLogger(__name__)


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `run`."""
    parser = subparsers.add_parser(
        "run",
        help="the daemon: listens to sources and publishes what it hears",
        description="Listens to all sources until it is told to stop (SIGTERM, Ctrl-C), or until all have ended where "
        "all of them are files.",
        epilog="example: earwitness run door=rtsp://user:pass@camera/stream --jsonl -",
    )
    add_config_options(parser)
    parser.add_argument("--no-reconnect", action="store_true", help="give a live source up when it is lost")
    parser.add_argument("--stay", action="store_true", help="go on when all sources have ended")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the daemon; 0 if it was told to stop or everything ended well, 1 if a source was given up."""
    config = config_of(args)
    if not config.streams:
        raise ConfigError("no source to listen to; name one: earwitness run NAME=URL, or `streams:` in --config FILE")
    logs.set_up(config.log.level, config.log.format)
    torch.set_num_threads(config.load.threads)
    bundle, factories = load_model(config, os.environ)
    check_window(config, bundle)
    run = uuid.uuid4().hex[:12]
    sinks = open_sinks(config)
    try:
        supervisor = Supervisor(
            plan_of(config, run, stay=args.stay, reconnect=not args.no_reconnect),
            bundle,
            factories,
            sinks,
            Notifier(os.environ, os.getpid()),
            lambda: uuid.uuid4().hex,
        )
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.is_set():  # asked twice: at once
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
    log.info("%s, model %s, %d streams", where(config), bundle.name, len(config.streams))
    code = supervisor.run(stop)
    if supervisor.left_behind:
        # A thread hangs in a library, and Python would wait for it, or crash, while it takes itself down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def where(config: DaemonConfig) -> str:
    """Where to find what the daemon says, for its first log line."""
    places = [f"publishing at {config.publish.zmq}"] if config.publish.zmq else []
    if config.publish.jsonl:
        places.append(
            "writing to standard output" if config.publish.jsonl == "-" else f"writing {config.publish.jsonl}"
        )
    if config.metrics:
        places.append(f"metrics at http://{config.metrics}/metrics")
    return ", ".join(places) or "publishing nowhere"


def load_model(config: DaemonConfig, environ: Mapping[str, str]) -> tuple[Bundle, dict[str, ExtractorFactory]]:
    """The config's bundle and what makes its features.

    Raises:
        BundleError: the bundle can't be used.
        WeightsError: pretrained weights that it needs can't be.

    """
    bundle = Bundle.load(config.model or default_bundle_path())
    weights = WeightsStore(config.weights or default_weights_folder(environ), {})
    return bundle, bundle.factories(weights)


def check_window(config: DaemonConfig, bundle: Bundle) -> None:
    """Raise `ConfigError` if the config's windows ask for more cells than the bundle's window has."""
    hop, lookahead = config.windows.hop_cells, config.windows.lookahead_cells
    if hop + lookahead > bundle.window_cells:
        raise ConfigError(
            f"windows: hop_cells ({hop}) and lookahead_cells ({lookahead}) are more than the "
            f"{bundle.window_cells} cells of a window of {bundle.name}: make one of them smaller"
        )


def open_sinks(config: DaemonConfig) -> list[Sink]:
    """The config's sinks. Raises `SinkError` if one can't be opened."""
    sinks: list[Sink] = []
    if config.publish.zmq is not None:
        sinks.append(ZmqSink(config.publish.zmq, config.publish.queue_messages))
    if config.publish.jsonl is not None:
        try:
            sinks.append(JsonLinesSink(config.publish.jsonl))
        except BaseException:
            for sink in sinks:
                sink.close()
            raise
    return sinks


def plan_of(config: DaemonConfig, run: str, *, stay: bool, reconnect: bool) -> Plan:
    """What the config asks for, in the runtime's terms."""
    windows = config.windows
    return Plan(
        publisher=config.publisher,
        run=run,
        version=version(),
        streams=[_stream_plan(name, stream, reconnect) for name, stream in config.streams.items()],
        settings=StreamSettings(
            windows.hop_cells, windows.lookahead_cells, windows.skew_cells, max_event_s=windows.max_event_s
        ),
        backoff_s=(config.reconnect.first_s, config.reconnect.last_s, config.reconnect.reset_s),
        picture_budget=config.load.picture_budget,
        publish_tags=config.publish.tags,
        publish_scores=config.publish.scores,
        queue_messages=config.publish.queue_messages,
        metrics_address=config.metrics,
        stay=stay,
    )


def media_options(stream: StreamConfig) -> MediaOptions:
    """How a stream's source is opened."""
    return MediaOptions(
        transport=stream.transport,
        open_timeout_s=stream.open_timeout_s,
        read_timeout_s=stream.read_timeout_s,
        hole_limit_s=stream.hole_limit_s,
        format=stream.format,
        ffmpeg=stream.ffmpeg,
    )


def version() -> str:
    """This program's version."""
    try:
        return metadata.version("earwitness")
    except metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return "0+source"


def _stream_plan(name: str, stream: StreamConfig, reconnect: bool) -> StreamPlan:
    source = Source(
        name=name,
        url=stream.source,
        options=media_options(stream),
        loop=stream.loop,
        realtime=stream.realtime,
        reconnect=stream.reconnect and reconnect,
    )
    return StreamPlan(source, stall_s=stream.stall_s, watchdog_s=stream.watchdog_s, queue_s=stream.queue_s)
