"""Makes `docs/metrics.md` from the metrics themselves."""

from __future__ import annotations

import sys

from streamer.media.level import INPUT_STATES
from streamer.runtime.metrics import (
    DROP_REASONS,
    LOST_REASONS,
    MESSAGE_KINDS,
    REFUSED_REASONS,
    RELOAD_RESULTS,
    STATES,
    Metrics,
)
from streamer.sinks.catch_up import RESULTS
from streamer.sinks.store.opening import REASONS


def page() -> str:
    """The text of `docs/metrics.md`."""
    labels = {
        "stream": "the stream's name",
        "class": "a class of the model",
        "modality": "an input of the model, such as `spectral`",
        "state": ", ".join(f"`{one}`" for one in STATES),
        "input": ", ".join(f"`{one}`" for one in INPUT_STATES),
        "reason": "of lost connections: "
        + ", ".join(f"`{one}`" for one in sorted(LOST_REASONS))
        + "; of dropped media: "
        + ", ".join(f"`{one}`" for one in sorted(DROP_REASONS))
        + "; of refused connections: "
        + "; ".join(
            f"at `{socket}` " + ", ".join(f"`{one}` ({text})" for one, text in reasons.items())
            for socket, reasons in REFUSED_REASONS.items()
        ),
        "socket": "`zmq`: live messages and catching up; `http`: /metrics, /healthz and /readyz",
        "stage": "`decode`, a modality, `detect`, `publish`",
        "codec": "FFmpeg's name for it",
        "rate_hz": "sample rate of the source",
        "channels": "of the track",
        "channel": "the channel in use: `mix`, or a number from 1",
        "track": "number of the audio track, from 1",
        "tracks": "number of audio tracks",
        "language": "of the track; may be empty",
        "type": ", ".join(f"`{one}`" for one in MESSAGE_KINDS),
        "sink": "`zmq`, `jsonl`; `wire`: the message itself could not be encoded",
        "why": ", ".join(f"`{one}`" for one in sorted(REASONS)),
        "limit": "`age`, `size`",
        "result": "of requests: "
        + ", ".join(f"`{one}`" for one in RESULTS)
        + "; of reloads: "
        + ", ".join(f"`{one}`" for one in RELOAD_RESULTS),
        "version": "this program's version",
        "bundle": "the model's name",
        "python": "Python's version",
    }
    families = Metrics("", "", [], []).families
    used = {label for family in families for label in family.labels}
    lines = [
        "# Metrics",
        "",
        "The daemon serves these to Prometheus at `http://HOST:PORT/metrics` (`metrics` in its config), with those of "
        "its process (`process_cpu_seconds_total`, `process_resident_memory_bytes`, ...). This page is generated: "
        "`make schema`.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
        *(
            f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.text} |"
            for one in families
        ),
        "",
        "| label | values |",
        "|---|---|",
        *(f"| `{label}` | {labels[label]} |" for label in labels if label in used),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
