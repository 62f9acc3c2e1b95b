"""The F1 scores that experiments compare."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

from streamer.replay.scoring import Kind

Metric: TypeAlias = Literal["clip_micro", "clip_macro", "segment_micro", "segment_macro", "event_micro", "event_macro"]


def kind_of(metric: Metric) -> Kind:
    """What is counted: clips, segments or events."""
    return cast(Kind, metric.partition("_")[0])


def is_macro(metric: Metric) -> bool:
    """Whether it is the mean over classes."""
    return metric.endswith("_macro")


def title_of(metric: Metric) -> str:
    """The metric in words."""
    return f"{metric.replace('_', ' ')} F1"
