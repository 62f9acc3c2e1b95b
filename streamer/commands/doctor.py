"""`earwitness doctor`: checks this machine, the model, the ports and each source, and says how to fix problems."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from streamer.bundle import Bundle
from streamer.commands.ending import EndsSoon
from streamer.commands.options import add_config_options, config_of
from streamer.config.schema import DaemonConfig, StreamConfig
from streamer.daemon import access_of, http_guard, load_model, media_options
from streamer.detect import Detector
from streamer.errors import EarwitnessError, SourceError
from streamer.escapes import printable
from streamer.features.base import ExtractorFactory, want_of
from streamer.media.level import Level, input_detail, input_state
from streamer.media.source import Media, open_media
from streamer.models import bundle_path
from streamer.networks.backends import use_threads
from streamer.runtime.health import check_address
from streamer.sinks.zmq import ZmqSink
from streamer.types import SAMPLE_RATE_HZ, Carried, Chunk, Memory, Picture, Want, Window

if TYPE_CHECKING:
    from argparse import _SubParsersAction

Verdict: TypeAlias = Literal["ok", "warn", "fail"]

_PACKAGES = ("torch", "torchaudio", "torchvision", "av", "numpy", "pyzmq")
_MEDIA_S = 10.0
"""Longest time spent on reading one source."""
_SLOW_START_S = 5.0
_SLOW_WINDOW_S = 0.25
"""A window is due every 0.53 s on each stream."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table."""

    verdict: Verdict
    what: str
    found: str  # and, unless the verdict is ok, what to do

    def __str__(self) -> str:
        return f"{self.verdict:<5} {self.what:<18} {' '.join(self.found.split())}"


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this machine, the model and each source",
        description="Checks everything that `earwitness run` needs with the same arguments. Prints a line per check; "
        "the exit code is 1 if one of them fails.",
        epilog="example: earwitness doctor door=rtsp://user:pass@camera/stream",
    )
    add_config_options(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print a line per check as soon as it is done; returns 1 if one failed."""
    config = config_of(args)
    failed = False
    for check in checks(config, os.environ):
        print(printable(args.known.hide(str(check))), flush=True)  # noqa: T201
        failed |= check.verdict == "fail"
    return 1 if failed else 0


def checks(config: DaemonConfig, environ: Mapping[str, str]) -> Iterator[Check]:
    """All checks, one after the other, cheap ones first."""
    yield _python()
    yield from _packages()
    yield _cores()
    use_threads(config.load.threads)
    factories: Mapping[str, ExtractorFactory] = {}
    try:
        bundle, factories = load_model(config, environ)
    except EarwitnessError as error:
        yield Check("fail", "model", str(error))
    else:
        yield Check("ok", "model", f"{bundle_path(config.model)}: {_described(bundle)}")
        yield _window_time(bundle, factories)
    yield from _ports(config)
    want = want_of(factories.values())
    if not factories:  # the model is broken, but the sources can still be checked
        want = Want(frozenset({SAMPLE_RATE_HZ}), pictures=True)
    for name, stream in config.streams.items():
        yield _source(name, stream, want)


def _python() -> Check:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Check("ok" if good else "warn", "python", platform.python_version() + ("" if good else "; use 3.11 to 3.13"))


def _packages() -> Iterator[Check]:
    for name in _PACKAGES:
        try:
            yield Check("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check("fail", name, f"is not installed; pip install {name}")


def _cores() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    if load > count:
        return Check("warn", "processor", f"{count} cores with a load of {load:.1f}; other programs keep them busy")
    return Check("ok", "processor", f"{count} cores, load {load:.1f}")


def _described(bundle: Bundle) -> str:
    return f"{bundle.name}, {len(bundle.classes)} classes, uses {', '.join(bundle.modalities)}"


def _window_time(bundle: Bundle, factories: Mapping[str, ExtractorFactory]) -> Check:
    cells = bundle.window_cells
    window = Window(
        stream="doctor",
        epoch=0,
        start=0,
        features={name: np.zeros((cells, *one.shape), np.float32) for name, one in factories.items()},
        valid={name: np.ones(cells, np.bool_) for name in factories},
        emit_start=0,
        emit_stop=cells - bundle.least_lookahead_cells,
    )
    try:
        detector = Detector(bundle)
    except EarwitnessError as error:
        return Check("fail", "window", str(error))

    def score() -> None:
        """As the first window of an epoch, if the network remembers."""
        detector.scores([replace(window, carried=Carried(Memory(), 0, last=False)) if bundle.carried else window])

    score()  # the first one warms up
    took = []
    for _ in range(5):
        began_s = time.perf_counter()
        score()
        took.append(time.perf_counter() - began_s)
    median_s = sorted(took)[2]
    text = f"{1000 * median_s:.0f} ms for {'the cells of one window' if bundle.carried else 'one window'}"
    if median_s > _SLOW_WINDOW_S:
        return Check("warn", "window", f"{text}; this machine is too slow for many streams: raise windows.hop_cells")
    return Check("ok", "window", text)


def _ports(config: DaemonConfig) -> Iterator[Check]:
    if config.publish.zmq is not None:
        try:
            ZmqSink(config.publish.zmq, access=access_of(config)).close()
            yield Check("ok", "publish", f"{config.publish.zmq} is free")
        except EarwitnessError as error:
            yield Check("fail", "publish", str(error))
    if config.metrics is not None:
        try:
            check_address(config.metrics, http_guard(config))
            yield Check("ok", "metrics", f"{config.metrics} is free")
        except EarwitnessError as error:
            yield Check("fail", "metrics", str(error))


def _source(name: str, stream: StreamConfig, want: Want) -> Check:
    began_s = time.monotonic()
    with EndsSoon() as ends:
        try:
            with open_media(stream.source, want, media_options(stream), interrupt=ends.interrupt()) as media:
                opened_s = time.monotonic() - began_s
                found = _listened(name, media, want, opened_s, began_s)
        except SourceError as error:
            found = Check("fail", name, str(error))
    ends.again()
    return found


def _listened(name: str, media: Media, want: Want, opened_s: float, began_s: float) -> Check:
    """Read an open source until each of its tracks has delivered. Raises `SourceError`."""
    first: dict[str, float] = {}
    levels: list[Level] = []
    until_s = time.monotonic() + _MEDIA_S
    for item in media:
        if isinstance(item, Chunk) and len(item.samples):
            first.setdefault("audio", time.monotonic() - began_s)
            levels += media.ear.take_levels()
        elif isinstance(item, Picture):
            first.setdefault("video", time.monotonic() - began_s)
        if (_tracks(media) <= set(first) and (levels or not media.has_audio)) or time.monotonic() > until_s:
            break
    found = f"{'live' if media.live else 'a recording'}, opened in {opened_s:.1f} s"
    found += "".join(f", first {kind} after {at:.1f} s" for kind, at in first.items())
    levels += media.ear.take_levels()
    if media.audio is not None:
        found += f"; {media.audio}"
    if levels:
        found += f"; level {levels[-1].rms_dbfs:.0f} dBFS, peak {levels[-1].peak_dbfs:.0f} dBFS"
    silent = _tracks(media) - set(first)
    lacks = [
        kind
        for kind, wants, has in (
            ("audio", bool(want.rates_hz), media.has_audio),
            ("video", want.pictures, media.has_video),
        )
        if wants and not has
    ]
    settings, slow = "the recording", "check the disk or the network that it is on"
    if media.live:
        settings = "the camera's settings"
        slow = "shorten the camera's key-frame interval or check the network"
    if silent:
        return Check("fail", name, f"{found}; but no {' and no '.join(sorted(silent))} arrived: check {settings}")
    state = input_state(levels)
    if state not in ("ok", "unknown"):
        return Check("fail" if state == "cancelling" else "warn", name, f"{found}; {input_detail(state, levels)}")
    if media.clock_fault:
        return Check("warn", name, f"{found}; {media.clock_fault}")
    if lacks:
        return Check("warn", name, f"{found}; it has no {' and no '.join(lacks)}, which the model could use")
    if max(first.values(), default=0.0) > _SLOW_START_S:
        return Check("warn", name, f"{found}; slow: {slow}")
    return Check("ok", name, found)


def _tracks(media: Media) -> set[str]:
    return {kind for kind, has in (("audio", media.has_audio), ("video", media.has_video)) if has}
