"""`earwitness run`: the daemon."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import uuid
from functools import partial
from typing import TYPE_CHECKING

from streamer.address import Address
from streamer.commands import logs
from streamer.commands.options import add_config_options, config_of
from streamer.commands.signals import Signals
from streamer.config.schema import DaemonConfig
from streamer.config.sources import split_source
from streamer.daemon import (
    access_of,
    changed_fields,
    check_window,
    load_model,
    open_catch_up,
    open_sinks,
    plan_of,
    reloaded_model,
)
from streamer.errors import ConfigError, UsageError
from streamer.runtime.control import Control, folders
from streamer.runtime.reload import Reloads, Setup
from streamer.runtime.supervisor import Supervisor
from streamer.runtime.systemd import Notifier
from streamer.starting import EndsAtOnce

if TYPE_CHECKING:
    from argparse import _SubParsersAction

log = logging.getLogger(__name__)

_MOST_FILES = 65_536


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `run`."""
    parser = subparsers.add_parser(
        "run",
        help="run the daemon: listen to sources and publish what is heard",
        description="Listens to all sources until it is stopped (SIGTERM, Ctrl-C) or, if all sources are files, until "
        "all have ended.",
        epilog="example: earwitness run door=rtsp://user:pass@camera/stream --jsonl -",
    )
    add_config_options(parser)
    parser.add_argument("--no-reconnect", action="store_true", help="do not reconnect to a live source when it is lost")
    parser.add_argument("--stay", action="store_true", help="keep running when all sources have ended")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the daemon; returns 0 if it was stopped or all sources ended, 1 if it gave up a source or its last sink."""
    signals = Signals()
    with EndsAtOnce("earwitness"):
        _allow_many_files()
        config = config_of(args)
        if not config.streams:
            raise ConfigError(
                "no source to listen to; name one: earwitness run NAME=URL, or `streams:` in --config FILE"
            )
        logs.set_up(config.log.level, config.log.format, args.known)
        bundle, factories = load_model(config, os.environ)
        check_window(config, bundle)
        run = uuid.uuid4().hex[:12]
        access = access_of(config)
        sinks = open_sinks(config, access)
        catch_up = None
        try:
            catch_up = open_catch_up(config, os.environ, access, sinks)
            supervisor = Supervisor(
                plan_of(config, run, os.environ, stay=args.stay, reconnect=not args.no_reconnect),
                bundle,
                factories,
                sinks,
                Notifier(os.environ, os.getpid()),
                lambda: uuid.uuid4().hex,
                catch_up,
            )
        except BaseException:
            if catch_up is not None:
                catch_up.close()
            for sink in sinks:
                sink.close()
            raise
    signals.take_over_ends()
    if any("${" not in text and Address.parse(split_source(text)[1]).has_login for text in args.sources):
        log.warning(
            "a user or password on the command line is shown by `ps` to every user of this machine: write it as "
            "'${NAME}' (in single quotes), or in a file for --config"
        )
    log.info("%s, model %s, %d streams", where(config), bundle.name, len(config.streams))
    reloads = Reloads(_Configs(args, config, supervisor).read, signals.reload)
    control = _control(config, reloads)
    try:
        code = supervisor.run(signals.stop, signals.reopen, reloads)
    finally:
        if control is not None:
            control.close()
    signals.done()
    if supervisor.left_behind:
        # A thread hangs in a library: a normal exit would wait for it, or crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class _Configs:
    """Reads the command line's config anew, and remembers which one holds."""

    def __init__(self, args: argparse.Namespace, config: DaemonConfig, supervisor: Supervisor) -> None:
        self._args = args
        self._config = config
        self._supervisor = supervisor

    def read(self) -> Setup:
        """See `Reloads`."""
        config = config_of(self._args)
        plan, model = self._supervisor.plan, self._supervisor.model
        new = changed_fields(config, self._config)
        model = reloaded_model(config, model, os.environ, weights_too="weights" in new)
        check_window(config, model.bundle)
        plan = plan_of(config, plan.run, os.environ, stay=plan.stay, reconnect=not self._args.no_reconnect)
        return Setup(
            plan, model, tuple(name for name in new if name in ("log", "weights")), partial(self._take, config)
        )

    def _take(self, config: DaemonConfig) -> None:
        if config.log != self._config.log:
            logs.set_up(config.log.level, config.log.format, self._args.known)
        self._config = config


def _control(config: DaemonConfig, reloads: Reloads) -> Control | None:
    try:
        return Control(folders(os.environ, os.geteuid()), config.publisher, os.getpid(), reloads.ask)
    except UsageError as error:
        log.warning("`earwitness reload` will not find this daemon (SIGHUP reloads it all the same): %s", error)
        return None


def _allow_many_files() -> None:
    """Take all file descriptors that the system allows: many open connections must not keep cameras out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def where(config: DaemonConfig) -> str:
    """Where the daemon's output goes, for its first log line."""
    places = [f"publishing at {config.publish.zmq}"] if config.publish.zmq else []
    if config.publish.jsonl:
        places.append(
            "writing to standard output" if config.publish.jsonl == "-" else f"writing {config.publish.jsonl}"
        )
    if config.metrics:
        places.append(f"metrics at http://{config.metrics}/metrics")
    return ", ".join(places) or "publishing nowhere"
