"""What the daemon is to do, in the runtime's terms, and how two such plans differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from streamer.runtime.backoff import BackoffLimits
from streamer.runtime.crowd import HttpGuard
from streamer.runtime.reader import Source
from streamer.sinks.store.recorder import StorePlan
from streamer.sinks.store.retention import Limits
from streamer.windows import StreamSettings


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """A source and its limits, in seconds."""

    source: Source
    stall_s: float
    watchdog_s: float
    queue_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What the daemon is to do."""

    publisher: str
    run: str  # unique to this start
    version: str
    streams: Sequence[StreamPlan]
    settings: StreamSettings
    backoff: BackoffLimits
    threads: int  # of the networks
    picture_budget: float
    publish_tags: bool
    publish_scores: bool
    queue_messages: int
    metrics_address: str | None
    http_guard: HttpGuard
    store: StorePlan | None
    stay: bool  # keep running when every source has ended


@dataclass(frozen=True, slots=True)
class Changes:
    """How a new plan differs from the old one. Each changed stream is in exactly one of the first four."""

    added: tuple[StreamPlan, ...]
    removed: tuple[str, ...]
    reconnected: tuple[StreamPlan, ...]  # another source, or other options for opening or reading it
    limited: tuple[StreamPlan, ...]  # other limits only; the connection is kept
    others: tuple[str, ...]  # the other changed fields of `Plan`

    @classmethod
    def between(cls, old: Plan, new: Plan) -> Changes:
        """The changes that turn `old` into `new`."""
        before = {one.source.name: one for one in old.streams}
        after = {one.source.name: one for one in new.streams}
        stay = [(before[name], one) for name, one in after.items() if name in before and before[name] != one]
        return cls(
            added=tuple(one for name, one in after.items() if name not in before),
            removed=tuple(name for name in before if name not in after),
            reconnected=tuple(one for was, one in stay if was.source != one.source),
            limited=tuple(one for was, one in stay if was.source == one.source),
            others=tuple(
                field.name
                for field in fields(Plan)
                if field.name != "streams"
                and getattr(old, field.name) != getattr(new, field.name)
                # The rest of the store's plan follows from other fields.
                and (field.name != "store" or _limits(old) != _limits(new))
            ),
        )

    def summary(self, model: str | None, other_fields: Sequence[str] = ()) -> str:
        """The changes in one line. `model`: a new model's name; `other_fields`: changed fields that no plan holds."""
        named = {
            "added": [one.source.name for one in self.added],
            "removed": self.removed,
            "reconnected": [one.source.name for one in self.reconnected],
            "new limits": [one.source.name for one in self.limited],
            "model": [model] if model else [],
            "changed": [*(_WORDS[name] for name in self.others), *other_fields],
        }
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names) or "nothing changed"


def _limits(plan: Plan) -> Limits | None:
    return plan.store.limits if plan.store else None


_WORDS = {
    "settings": "windows",
    "backoff": "reconnect",
    "threads": "load.threads",
    "picture_budget": "load.picture_budget",
    "publish_tags": "publish.tags",
    "publish_scores": "publish.scores",
    "store": "store",
    "http_guard": "the files of http",
}
"""The config's names for the plan's fields that may change while the daemon runs."""
