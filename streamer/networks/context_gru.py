"""Two bidirectional GRU layers over a stream: they carry their state forwards, and backwards hear what is known.

They have the weights of the window form's two layers, and compute the same if all cells are known. In a stream, a cell
is decided when `Context` says so. The backward passes then run from the newest cell back to the first undecided one.
What the second layer carries forwards comes from cells as they were decided, so that it never has to be computed again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

LAYERS = 2


class Context(NamedTuple):
    """When cells are decided: by the first multiple of `hop_cells` that is `lookahead_cells` or more after a cell."""

    lookahead_cells: int
    hop_cells: int = 1


class Span(NamedTuple):
    """Cells from `start` to before `stop` that are decided together, when the cells before `edge` are known."""

    start: int
    stop: int
    edge: int


def spans(cells: int, context: Context | None, ahead_cells: int) -> list[Span]:
    """How `cells` cells are decided, as `streamer.windows` does it; all by the last cell if there is no `context`."""
    decided, found = 0, []
    if context is not None:
        for stop in range(context.hop_cells, cells, context.hop_cells):
            if stop - context.lookahead_cells > decided:
                found.append(Span(decided, stop - context.lookahead_cells, stop - ahead_cells))
                decided = stop - context.lookahead_cells
    return [*found, Span(decided, cells, cells)]


class ContextGru(nn.Module):
    """The two layers; `inputs` values a cell, `size` in each direction."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = inputs, size
        self.forwards = nn.ModuleList(nn.GRU(count, size, batch_first=True) for count in (inputs, 2 * size))
        self.backwards = nn.ModuleList(nn.GRU(count, size, batch_first=True) for count in (inputs, 2 * size))

    def forward(self, inputs: Tensor, hidden: Tensor, decided: Sequence[Span], tails: Tensor) -> Tensor:
        """The outputs of whole clips, (B, T, 2 size), whose cells are `decided` so.

        Args:
            inputs: (B, T, inputs).
            hidden: the forward states before the first cell, (B, layers, size).
            decided: all T cells, in order.
            tails: what is heard of the cells behind the edge of each span but the last, (B, spans - 1, p, inputs).

        """
        ahead = self.onward(0, inputs, hidden)
        first: dict[int, Tensor] = {}  # by a span's first cell
        second: dict[int, Tensor] = {}
        together: defaultdict[tuple[int, int, bool], list[int]] = defaultdict(list)
        for index, span in enumerate(decided):
            together[span.stop - span.start, span.edge - span.start, index < len(decided) - 1].append(index)
        for (count, _, with_tail), indices in together.items():  # spans of the same length make one batch
            group = [decided[index] for index in indices]
            heard = torch.stack([inputs[:, span.start : span.edge] for span in group], dim=1).flatten(0, 1)
            passed = torch.stack([ahead[:, span.start : span.edge] for span in group], dim=1).flatten(0, 1)
            if with_tail and tails.shape[2]:
                tail = tails[:, indices].flatten(0, 1)
                beyond = self.onward(0, tail, passed[:, -1:])
                heard, passed = torch.cat([heard, tail], dim=1), torch.cat([passed, beyond], dim=1)
            back, further = self.backward_passes(heard, passed)
            for found, outputs in ((first, back), (second, further)):
                parts = outputs[:, :count].reshape(len(inputs), len(group), count, -1)
                found.update({span.start: parts[:, index] for index, span in enumerate(group)})
        back, further = (torch.cat([found[span.start] for span in decided], dim=1) for found in (first, second))
        onward = self.onward(1, torch.cat([ahead, back], dim=2), hidden)
        return torch.cat([onward, further], dim=2)

    def onward(self, layer: int, inputs: Tensor, hidden: Tensor) -> Tensor:
        """A layer's forward outputs (B, T, size), each of which is also its state after the cell."""
        outputs: Tensor = self.forwards[layer](inputs, hidden[:, layer][None].contiguous())[0]
        return outputs

    def backward_passes(self, inputs: Tensor, ahead: Tensor, behind: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both layers' outputs from the last of n cells back to the first, (B, n, size) each.

        They are also the states at each cell.

        Args:
            inputs: (B, n, inputs).
            ahead: the first layer's forward outputs of the same cells, (B, n, size).
            behind: the backward states at the cell after the last one, (B, layers, size); None if it is not known.

        """
        first = self._back(0, inputs, behind)
        return first, self._back(1, torch.cat([ahead, first], dim=2), behind)

    def last_states(self, inputs: Tensor) -> Tensor:
        """The forward states after whole clips, (B, layers, size), whose cells all hear the whole clip."""
        none = inputs.new_zeros((len(inputs), LAYERS, self.hidden_size))
        ahead = self.onward(0, inputs, none)
        onward = self.onward(1, torch.cat([ahead, self._back(0, inputs)], dim=2), none)
        return torch.cat([ahead[:, -1:], onward[:, -1:]], dim=1)

    def _back(self, layer: int, inputs: Tensor, behind: Tensor | None = None) -> Tensor:
        hidden = None if behind is None else behind[:, layer][None].contiguous()
        outputs: Tensor = self.backwards[layer](inputs.flip(1), hidden)[0]
        return outputs.flip(1)
