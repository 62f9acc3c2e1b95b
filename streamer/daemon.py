"""Assembles a daemon from a config: the model, the sinks and the supervisor's plan."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import metadata

from pydantic import BaseModel

from streamer.bundle import Bundle
from streamer.config.schema import DaemonConfig, StreamConfig
from streamer.errors import ConfigError, SinkError
from streamer.features.base import ExtractorFactory
from streamer.media.liveness import descriptor_of
from streamer.media.source import MediaOptions
from streamer.models import bundle_path
from streamer.networks.weights import WeightsStore, default_weights_folder
from streamer.runtime.backoff import BackoffLimits
from streamer.runtime.crowd import HttpGuard
from streamer.runtime.model import Model
from streamer.runtime.plan import Plan, StreamPlan
from streamer.runtime.reader import Source
from streamer.sinks.access import Access
from streamer.sinks.base import Sink
from streamer.sinks.catch_up import CatchUp
from streamer.sinks.jsonl import JsonLinesSink
from streamer.sinks.keys import KeyFolder
from streamer.sinks.store.opening import default_store_path
from streamer.sinks.store.recorder import StorePlan
from streamer.sinks.store.retention import Limits
from streamer.sinks.zmq import ZmqSink

log = logging.getLogger(__name__)


def load_model(config: DaemonConfig, environ: Mapping[str, str]) -> tuple[Bundle, dict[str, ExtractorFactory]]:
    """The config's bundle, and the factories of the bundle's feature extractors.

    Raises:
        BundleError: the bundle can't be used.
        WeightsError: pretrained weights that it needs are missing or wrong.

    """
    bundle = Bundle.load(bundle_path(config.model))
    weights = WeightsStore(config.weights or default_weights_folder(environ), {})
    return bundle, bundle.factories(weights)


_FREE = (
    *("model", "weights", "streams", "windows", "reconnect", "load", "log"),
    *("publish.tags", "publish.scores", "store.keep_days", "store.keep_mb"),
)
"""What may change while the daemon runs; any other change needs a restart."""


def changed_fields(config: DaemonConfig, running: DaemonConfig) -> list[str]:
    """The fields in which `config` differs from the `running` one, by name: `model`, `store.keep_days`.

    Raises:
        ConfigError: one of them can't change while the daemon runs, or no source is left.

    """
    if not config.streams:
        raise ConfigError("streams: no source is left; to end the daemon, stop it")
    names: list[str] = []
    for name in DaemonConfig.model_fields:
        new, old = getattr(config, name), getattr(running, name)
        if isinstance(new, BaseModel) and name not in _FREE:
            names += [f"{name}.{one}" for one in type(new).model_fields if getattr(new, one) != getattr(old, one)]
        elif new != old:
            names.append(name)
    fixed = [name for name in names if name not in _FREE]
    if fixed:
        raise ConfigError(f"{', '.join(fixed)} can't change while the daemon runs: restart it, or undo the change")
    return names


def reloaded_model(config: DaemonConfig, running: Model, environ: Mapping[str, str], *, weights_too: bool) -> Model:
    """The config's model: `running` itself if the bundle is unchanged. `weights_too`: check the weights even then.

    Raises:
        BundleError: see `load_model`.
        WeightsError: likewise.

    """
    bundle = Bundle.load(bundle_path(config.model))
    same = (bundle.name, bundle.fingerprint()) == (running.bundle.name, running.bundle.fingerprint())
    if same and not weights_too:
        return running
    bundle, factories = load_model(config, environ)
    return running if same else Model.of(bundle, factories)


def check_window(config: DaemonConfig, bundle: Bundle) -> None:
    """Raises `ConfigError` if hop and lookahead do not fit the bundle's window, or it needs more lookahead."""
    if wrong := bundle.misfit(config.windows.settings):
        raise ConfigError(f"windows: {wrong}")


def http_guard(config: DaemonConfig) -> HttpGuard:
    """Which requests the HTTP port accepts. Raises `KeysError` if one of its files can't be used."""
    return HttpGuard.load(config.http.token, config.http.cert, config.http.key)


def access_of(config: DaemonConfig) -> Access:
    """Access control of the config's sockets. Raises `KeysError` if its keys can't be used."""
    keys = config.publish.keys
    return Access(KeyFolder(keys.expanduser()) if keys is not None else None)


def open_sinks(config: DaemonConfig, access: Access) -> list[Sink]:
    """The config's sinks. Raises `SinkError` if one can't be opened."""
    sinks: list[Sink] = []
    if config.publish.zmq is not None:
        sinks.append(ZmqSink(config.publish.zmq, config.publish.queue_messages, access))
    if config.publish.jsonl is not None:
        try:
            sinks.append(JsonLinesSink(config.publish.jsonl))
        except BaseException:
            for sink in sinks:
                sink.close()
            raise
    return sinks


def open_catch_up(
    config: DaemonConfig, environ: Mapping[str, str], access: Access, sinks: Sequence[Sink]
) -> CatchUp | None:
    """The catch-up server; None if it is off. Raises `SinkError` if its endpoint can't be opened."""
    plan = store_plan(config, environ)
    live = next((sink for sink in sinks if isinstance(sink, ZmqSink)), None)
    if plan is None or live is None or config.publish.zmq is None or config.publish.catch_up is None:
        return None
    if config.publish.catch_up != "auto":
        return CatchUp(config.publish.catch_up, plan.path, config.publisher, access)
    if live.endpoint.startswith("ipc://"):
        return CatchUp(f"{live.endpoint}.catch-up", plan.path, config.publisher, access)
    place, port = config.publish.zmq.rpartition(":")[0], int(live.endpoint.rpartition(":")[2]) + 1
    try:
        return CatchUp(f"{place}:{port}", plan.path, config.publisher, access)
    except SinkError as error:
        other = CatchUp(f"{place}:0", plan.path, config.publisher, access)
        log.warning("%s; using %s for catch-up instead (set publish.catch_up to choose)", error, other.endpoint)
        return other


def store_plan(config: DaemonConfig, environ: Mapping[str, str]) -> StorePlan | None:
    """The config's event store; None if it is off."""
    store = config.store
    if store.path == "off":
        return None
    return StorePlan(
        path=store.path or default_store_path(config.publisher, environ),
        limits=Limits(keep_days=store.keep_days, keep_bytes=store.keep_mb * 1_000_000),
        longest_event_s=config.windows.max_event_s,
        max_waiting=config.publish.queue_messages,
    )


def plan_of(config: DaemonConfig, run: str, environ: Mapping[str, str], *, stay: bool, reconnect: bool) -> Plan:
    """The config as a plan for the supervisor. Raises `ConfigError`."""
    _check_pipes(config)
    return Plan(
        publisher=config.publisher,
        run=run,
        version=version(),
        streams=[_stream_plan(name, stream, reconnect) for name, stream in config.streams.items()],
        settings=config.windows.settings,
        backoff=BackoffLimits(**dict(config.reconnect)),
        threads=config.load.threads,
        picture_budget=config.load.picture_budget,
        publish_tags=config.publish.tags,
        publish_scores=config.publish.scores,
        queue_messages=config.publish.queue_messages,
        metrics_address=config.metrics,
        http_guard=http_guard(config),
        store=store_plan(config, environ),
        stay=stay,
    )


def _check_pipes(config: DaemonConfig) -> None:
    """Raises `ConfigError` if two streams read the same pipe: each would get only part of the media."""
    readers: dict[int, str] = {}
    for name, stream in config.streams.items():
        descriptor = descriptor_of(stream.source)
        if descriptor is not None and readers.setdefault(descriptor, name) != name:
            raise ConfigError(
                f"streams {readers[descriptor]} and {name} both read {stream.source}: only one of them can"
            )


def media_options(stream: StreamConfig) -> MediaOptions:
    """The options for opening a stream's source."""
    return MediaOptions(
        transport=stream.transport,
        open_timeout_s=stream.open_timeout_s,
        read_timeout_s=stream.read_timeout_s,
        hole_limit_s=stream.hole_limit_s,
        format=stream.format,
        audio_track=stream.audio_track,
        channel=stream.channel,
        verify=stream.verify,
        ca_file=stream.ca_file,
        ffmpeg={name: value.get_secret_value() for name, value in stream.ffmpeg.items()},
    )


def version() -> str:
    """This program's version."""
    try:
        return metadata.version("earwitness")
    except metadata.PackageNotFoundError:  # a checkout that was not installed
        return "0+source"


def _stream_plan(name: str, stream: StreamConfig, reconnect: bool) -> StreamPlan:
    source = Source(
        name=name,
        address=stream.source,
        options=media_options(stream),
        loop=stream.loop,
        realtime=stream.realtime,
        reconnect=stream.reconnect and reconnect,
    )
    return StreamPlan(source, stall_s=stream.stall_s, watchdog_s=stream.watchdog_s, queue_s=stream.queue_s)
