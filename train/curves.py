"""`curves.png`: a run's learning curves as a picture, drawn anew from `log.jsonl` at each validation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from train.checkpoint import LOG

FILE = "curves.png"
_SCORES = {"clip": "#0072b2", "segment": "#d55e00", "event": "#009e73"}
"""What F1 is of, and its colour (Okabe and Ito: distinct to colour-blind readers too)."""
_COSTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#8c510a")
_LABEL_PT = 9


def draw(folder: Path) -> None:
    """Draw `folder/curves.png` from its `log.jsonl`, atomically; nothing if that has no rows yet."""
    path = folder / LOG
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not rows:
        return
    figure = Figure(figsize=(12, 9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic([["macro", "micro"], ["cost", "cost"], ["rate", "rate"]], height_ratios=[3, 2.4, 1])
    for average in ("macro", "micro"):
        _scores(axes[average], rows, average)
    _costs(axes["cost"], rows)
    _rate(axes["rate"], rows)
    best = max(rows, key=lambda row: sum(row.get(f"{kind}_f1_macro", 0.0) for kind in _SCORES))
    figure.suptitle(f"{folder.name}: {rows[-1]['step']} steps; best untuned validation at step {best['step']}")
    part = folder / (FILE + ".part")
    figure.savefig(part, format="png")
    part.replace(folder / FILE)


def _scores(axes: Axes, rows: Sequence[Mapping[str, Any]], average: str) -> None:
    """Validation F1 by step: lines as the paper scores, markers as the product does."""
    labels = []
    for kind, colour in _SCORES.items():
        name = f"{kind}_f1_{average}"
        steps, values = _points(rows, lambda row, name=name: row.get(name))
        axes.plot(steps, [100 * one for one in values], _style(steps), color=colour, linewidth=1.6)
        labels.append((100 * values[-1], kind, colour))
        steps, values = _points(rows, lambda row, name=name: row.get("product", {}).get(name))
        axes.plot(steps, [100 * one for one in values], color=colour, linestyle=":", marker="o", markersize=5)
    axes.set_ylim(0, 100)
    axes.set_ylabel(f"F1, {average} [%]")
    axes.set_xlabel("step")
    streamed = any("product" in row for row in rows)
    axes.set_title(
        "validation: whole clips, untuned" + (" (lines); streamed, tuned (circles)" if streamed else ""), fontsize=10
    )
    _name_lines(axes, labels)


def _costs(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The mean of each term since the previous validation, as it is weighted in the cost; logarithmic."""
    labels = []
    names = list(dict.fromkeys(name for row in rows for name in row.get("mean_costs", {})))
    parts = [name for name in names if name != "total"]
    for name, colour in [*zip(parts, _COSTS, strict=False), ("total", "#000000")]:
        steps, values = _points(rows, lambda row, name=name: row.get("mean_costs", {}).get(name) or None)
        if values:
            axes.plot(steps, values, _style(steps), color=colour, linewidth=2.2 if name == "total" else 1.3)
            labels.append((values[-1], name.replace("_", " "), colour))
    if labels:
        axes.set_yscale("log")
    axes.set_ylabel("cost")
    axes.set_xlabel("step")
    axes.set_title("training cost: means since the previous validation, weighted as in the total", fontsize=10)
    _name_lines(axes, labels)


def _rate(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    steps, values = _points(rows, lambda row: row["learning_rate"])
    axes.plot(steps, values, _style(steps), color="#000000", linewidth=1.3)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.margins(x=0.01)


def _style(steps: Sequence[int]) -> str:
    """A line, and dots where there are too few points for one."""
    return ".-" if len(steps) < 5 else "-"


def _points(rows: Sequence[Mapping[str, Any]], of: Any) -> tuple[list[int], list[float]]:
    found = [(row["step"], of(row)) for row in rows]
    return [step for step, value in found if value is not None], [value for _, value in found if value is not None]


def _name_lines(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Name each line at its right end, from bottom to top and never closer than text is high."""
    axes.grid(alpha=0.3)
    axes.margins(x=0.01)
    axes.autoscale_view()
    figure = axes.get_figure(root=True)
    assert figure is not None
    text = 1.25 * _LABEL_PT / 72 / (axes.get_position().height * figure.get_figheight())  # as a share of the axis
    height = -1.0
    for value, name, colour in sorted(labels):
        _, at = axes.transAxes.inverted().transform(axes.transData.transform((0, value)))
        height = max(float(at), height + text)
        shown = f"{value:.3g}" if axes.get_yscale() == "log" else f"{value:.1f}"
        axes.annotate(
            f"{name} {shown}", (1, height), xytext=(5, 0), xycoords="axes fraction", textcoords="offset points",
            color=colour, fontsize=_LABEL_PT, va="center",
        )  # fmt: skip
