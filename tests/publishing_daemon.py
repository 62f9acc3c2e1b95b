"""A daemon without sources and model, in its own process: it publishes the events that standard input requests.

Store, ROUTER, live socket and publishing thread are the real ones, so killing it is like killing a daemon.

    python -m tests.publishing_daemon STORE LIVE_ENDPOINT CATCH_UP_ENDPOINT RUN

Each line of input is a number N: N events (an onset, then its offset) are published. `open`: an onset alone. `flood`:
events without end. After each line of input, `published` and the line are printed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from streamer.runtime.board import Board, StreamView
from streamer.runtime.metrics import Metrics
from streamer.runtime.outbox import Outbox
from streamer.runtime.publisher import Publisher
from streamer.runtime.reporter import Reporter
from streamer.sinks.base import Numberer
from streamer.sinks.catch_up import CatchUp
from streamer.sinks.store.recorder import StorePlan
from streamer.sinks.store.retention import Limits
from streamer.sinks.wire import kind
from streamer.sinks.zmq import ZmqSink
from tests import messages as make


def main(store: str, live: str, catch_up: str, run: str) -> None:
    metrics = Metrics("0", "seeded", ["cam"], ["Dog"])
    board = Board([StreamView("cam", "a.wav", live=True)], metrics, time.monotonic)
    outbox = Outbox(100_000, lambda message: metrics.message_dropped(kind(message)))
    crashes: list[BaseException] = []
    publisher = Publisher(
        outbox,
        Numberer("earwitness", run, time.time),
        [ZmqSink(live)],
        board,
        Reporter("seeded", {}, "0"),
        metrics,
        crashes.append,
        StorePlan(Path(store), Limits(10_000, 10**9), 600.0),
        CatchUp(catch_up, Path(store), "earwitness"),
    )
    publisher.start()
    print("ready", flush=True)
    number = 0
    for line in sys.stdin:
        word = line.strip()
        count = 10**9 if word == "flood" else 1 if word == "open" else int(word)
        for _ in range(count):
            number += 1
            event_id = f"{run}-{number}"
            outbox.put(make.onset(event_id=event_id))
            if word != "open":
                outbox.put(make.offset(event_id=event_id))
            if word == "flood":
                time.sleep(0.0005)
        print(f"published {word}", flush=True)
    outbox.close()
    publisher.join()
    assert not crashes, crashes


if __name__ == "__main__":
    main(*sys.argv[1:])
