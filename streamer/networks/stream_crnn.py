"""The stream form of the fusion CRNN: every layer computes a cell once, and carries its state to the next cells.

It differs from the window form (`crnn.py`) in four places. The gain follows a running peak (`stream_inputs.py`). The
convolutions look `ahead_cells` ahead, not six cells (`stream_convolutions.py`). A forward GRU of two layers carries its
state for as long as the stream lasts. A backward GRU runs from the newest cell back to the cells that are decided, over
what the forward GRU made of them, so that a cell's right context is what was heard when it was decided (`Context`).

`StreamCrnn.forward` computes whole clips, and `StreamCrnn.step` the same values (to 1e-5) piece by piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from streamer.networks.crnn import MELS, Dropout, Posteriors, checked_shapes, default_widths, linear_pooling
from streamer.networks.dropout import Rows
from streamer.networks.inputs import EmbeddingInput
from streamer.networks.stream_convolutions import FILTERS, StreamConvolutions
from streamer.networks.stream_inputs import RELEASE_DB_S, RunningSpectralInput

GRU_SIZE = 128
_LAYERS = 2


@dataclass(frozen=True, slots=True)
class StreamForm:
    """What the tensors of a stream form do not tell."""

    ahead_cells: int = 2  # right context of the convolutions
    release_db_s: float = RELEASE_DB_S  # of the running peak


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


@dataclass(slots=True)
class StreamState:
    """What the network remembers of B streams. Of cells with unknown convolutions it has all other inputs."""

    peak: Tensor  # (B,) float64: the running peak's log
    past: list[Tensor]  # of each convolution: (B, 0 to 2, mels, channels)
    waiting: Tensor  # (B, p, sum of widths): embeddings of cells whose convolutions are not known yet
    waiting_valid: Tensor  # (B, p, modalities) bool
    hidden: Tensor  # (B, layers, GRU size): the forward GRU's
    context: Tensor  # (B, m, fused + GRU size): the backward GRU's inputs of the cells that are not decided
    covered: Tensor  # (B, m) bool: of the same cells

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order; the batch is the first dimension."""
        return [self.peak, *self.past, self.waiting, self.waiting_valid, self.hidden, self.context, self.covered]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> StreamState:
        """The inverse of `tensors`."""
        peak, *past, waiting, waiting_valid, hidden, context, covered = tensors
        return cls(peak, past, waiting, waiting_valid, hidden, context, covered)


class StreamCrnn(nn.Module):
    """The network for any non-empty set of modalities; see `Crnn` for what they may be.

    Raises:
        ValueError: no modality, cells of an unsupported shape, or convolutions that can't look so far ahead.

    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        classes: int,
        widths: Mapping[str, int] | None = None,
        dropout: Dropout | None = None,
        form: StreamForm | None = None,
        *,
        filters: Sequence[int] = FILTERS,
        gru_size: int = GRU_SIZE,
    ) -> None:
        """`shapes`: modality -> shape of a cell's values; `widths`: vector -> width of its projection."""
        super().__init__()
        dropout, self.form = dropout or Dropout(0.0, 0.0, 0.0), form or StreamForm()
        self.spectral, vectors = checked_shapes(shapes)
        widths = widths or default_widths(shapes)
        self.modalities = (*([self.spectral] if self.spectral else []), *vectors)
        self.spectral_input = RunningSpectralInput(MELS, self.form.release_db_s) if self.spectral else None
        self.convolutions = (
            StreamConvolutions(filters, self.form.ahead_cells, dropout.convolutions) if self.spectral else None
        )
        self.embeddings = nn.ModuleDict(
            {name: EmbeddingInput(shapes[name][0], widths[name], dropout.embeddings) for name in vectors}
        )
        fused = (filters[-1] if self.spectral else 0) + sum(widths[name] for name in vectors)
        self.gru = nn.GRU(fused, gru_size, num_layers=_LAYERS, batch_first=True)
        self.backward_gru = nn.GRU(fused + gru_size, gru_size, batch_first=True)
        self.dropout = nn.Dropout(dropout.classifier)
        self.classify = nn.Linear(2 * gru_size, classes)

    context: Context | None = None
    """In which context `forward` decides cells; None: each hears the whole clip."""
    reduced_precision = False
    """Run the convolutions in bfloat16, only in training."""
    channels_last = True
    """The memory layout of the convolutions, which changes posteriors only by rounding."""
    rows: Rows | None = None
    """Of a batch that is distributed: the draws are those of a process that has all of it."""
    carried = 0.5
    """In training, the share of clips that begin with what the network remembers of another clip, not with nothing."""

    @property
    def ahead_cells(self) -> int:
        """How many cells the convolutions look ahead: no lookahead can be shorter."""
        return 0 if self.convolutions is None else self.convolutions.ahead_cells

    def forward(self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Posteriors:
        """Posteriors of a batch of whole clips of T >= 1 cells, decided as `context` says.

        Args:
            features: modality -> raw cells (B, T, ...): spectral magnitudes (4, 128), or a vector.
            valid: modality -> (B, T) bool, False where a cell could not be computed.

        Raises:
            ValueError: the context's lookahead is shorter than that of the convolutions.

        """
        if self.context is not None and self.context.lookahead_cells < self.ahead_cells:
            raise ValueError(f"a lookahead of {self.context.lookahead_cells} cells is less than {self.ahead_cells}")
        state = self.begin(features)
        before = self._others(features, valid) if self.training and self.carried else None
        if before is not None:
            state.peak = before.peak
        fused, covered = self._encode(features, valid, state, last=True)
        if before is not None:
            state.hidden = self._other_hidden(fused, before)
        forward, _ = self.gru(fused, state.hidden.transpose(0, 1).contiguous())
        backward = self._backward(torch.cat([fused, forward], dim=2))
        logits = self._classified(forward, backward)
        posteriors = torch.sigmoid(logits) * covered[:, :, None]
        return Posteriors(logits, posteriors, linear_pooling(posteriors))

    def begin(self, features: Mapping[str, Tensor]) -> StreamState:
        """The state before the first cell of as many streams as `features` has."""
        like = features[self.modalities[0]]
        clips = len(like)
        widths = sum(module.project.out_features for module in self.embeddings.values())  # type: ignore[union-attr, misc]
        size = self.gru.hidden_size
        return StreamState(
            peak=self._first_peak(clips).to(like.device),
            past=[] if self.convolutions is None else self.convolutions.begin(clips, MELS, like),
            waiting=like.new_zeros((clips, 0, widths)),
            waiting_valid=like.new_zeros((clips, 0, len(self.modalities)), dtype=torch.bool),
            hidden=like.new_zeros((clips, _LAYERS, size)),
            context=like.new_zeros((clips, 0, self.backward_gru.input_size)),
            covered=like.new_zeros((clips, 0), dtype=torch.bool),
        )

    def step(
        self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor], state: StreamState, *, last: bool
    ) -> tuple[Tensor, Tensor, StreamState]:
        """Take the next T >= 0 cells of B streams; `last`: none will follow.

        Returns:
            The posteriors of the m cells in the new state's `context`, (B, m, classes): of new cells, those whose
            convolutions are known, and of earlier ones again, with all that is known now as right context. The owner of
            the state removes from `context` and `covered` the cells that it decides. Then the backward GRU's state at
            the first of these cells, (B, 1, GRU size), with which `again` goes on; and the new state.

        """
        new = StreamState.of(state.tensors())
        fused, covered = self._encode(features, valid, new, last=last)
        if fused.shape[1]:
            forward, hidden = self.gru(fused, state.hidden.transpose(0, 1).contiguous())
            new.hidden = hidden.transpose(0, 1)
            new.context = torch.cat([state.context, torch.cat([fused, forward], dim=2)], dim=1)
            new.covered = torch.cat([state.covered, covered], dim=1)
        behind = new.context.new_zeros((len(new.context), 1, self.backward_gru.hidden_size))
        posteriors, behind = self.again(new.context, new.covered, behind)
        return posteriors, behind, new

    def again(self, context: Tensor, covered: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
        """The posteriors of consecutive cells, and the backward GRU's state at the first one.

        Args:
            context: the backward GRU's inputs of the cells, (B, m, fused + GRU size), m >= 0.
            covered: whether any modality has them, (B, m).
            behind: the backward GRU's state at the cell after the last one, (B, 1, GRU size).

        """
        if not context.shape[1]:
            return context[:, :, : self.classify.out_features], behind
        backward, behind = self.backward_gru(context.flip(1), behind.transpose(0, 1).contiguous())
        logits = self._classified(context[:, :, -self.gru.hidden_size :], backward.flip(1))
        return torch.sigmoid(logits) * covered[:, :, None], behind.transpose(0, 1)

    def _encode(
        self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor], state: StreamState, *, last: bool
    ) -> tuple[Tensor, Tensor]:
        """What the GRU gets of the cells that are now known, (B, n, fused), and whether any modality has them (B, n).

        Updates `state`'s parts before the GRU.
        """
        flags = torch.stack([valid[name] for name in self.modalities], dim=2)
        flags = torch.cat([state.waiting_valid, flags], dim=1)
        vectors = state.waiting
        if self.embeddings:
            new = [module(features[name], valid[name]) for name, module in self.embeddings.items()]
            vectors = torch.cat([vectors, torch.cat(new, dim=2)], dim=1)
        else:
            vectors = vectors.new_zeros((*flags.shape[:2], 0))
        known, parts = flags.shape[1], [vectors]
        if self.convolutions is not None:
            assert self.spectral is not None
            assert self.spectral_input is not None
            magnitudes, there = features[self.spectral], valid[self.spectral]
            peaks = self.spectral_input.peaks(magnitudes, there, state.peak)
            if peaks.shape[1]:
                state.peak = peaks[:, -1]
            frames = self.spectral_input.standard(magnitudes, there, peaks)[:, None]  # (B, 1, 4 T, 128)
            if self.channels_last:
                frames = frames.contiguous(memory_format=torch.channels_last)
            with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.reduced_precision):
                sound, state.past = self.convolutions(frames, state.past, last=last)
            known = sound.shape[2]
            parts = [sound.float().transpose(1, 2) * flags[:, :known, :1], vectors[:, :known]]
        state.waiting, state.waiting_valid = vectors[:, known:], flags[:, known:]
        return torch.cat(parts, dim=2)[:, :known], flags[:, :known].any(dim=2)

    def _first_peak(self, clips: int) -> Tensor:
        if self.spectral_input is None:
            return torch.zeros(clips, dtype=torch.float64)
        return self.spectral_input.first(clips)

    def _backward(self, inputs: Tensor) -> Tensor:
        """The backward GRU's outputs of whole clips, (B, T, size), decided as `context` says."""
        found: dict[int, Tensor] = {}
        together: dict[tuple[int, int], list[Span]] = {}
        for span in spans(inputs.shape[1], self.context, self.ahead_cells):
            together.setdefault((span.stop - span.start, span.edge - span.start), []).append(span)
        for (count, _), group in together.items():  # spans of the same length make one batch
            pieces = torch.stack([inputs[:, span.start : span.edge] for span in group], dim=1)
            outputs = self._from(pieces.flatten(0, 1))[:, :count].reshape(*pieces.shape[:2], count, -1)
            found.update({span.start: outputs[:, index] for index, span in enumerate(group)})
        return torch.cat([found[start] for start in sorted(found)], dim=1)

    def _from(self, inputs: Tensor) -> Tensor:
        """The backward GRU's outputs from the last cell back to the first, (B, m, size)."""
        outputs, _ = self.backward_gru(inputs.flip(1))
        return outputs.flip(1)  # type: ignore[no-any-return]

    def _classified(self, forward: Tensor, backward: Tensor) -> Tensor:
        return self.classify(self.dropout(torch.cat([forward, backward], dim=2))).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _others(self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> _Others:
        """Which clips begin with what is remembered of the clip before them in the batch, and its running peak."""
        flags = valid[self.modalities[0]]
        chosen = torch.rand(len(flags) if self.rows is None else self.rows.clips, device=flags.device) < self.carried
        if self.rows is not None:
            chosen = chosen[self.rows.index]
        peak = self._first_peak(len(flags)).to(flags.device)
        if self.spectral is not None:
            assert self.spectral_input is not None
            last = self.spectral_input.peaks(features[self.spectral], valid[self.spectral])[:, -1]
            peak = torch.where(chosen, last.roll(1), peak)
        return _Others(chosen, peak)

    @torch.no_grad()
    def _other_hidden(self, fused: Tensor, others: _Others) -> Tensor:
        _, hidden = self.gru(fused)
        carried: Tensor = hidden.roll(1, dims=1) * others.chosen[None, :, None]
        return carried.transpose(0, 1)


class _Others(NamedTuple):
    chosen: Tensor  # (B,) bool
    peak: Tensor  # (B,)


def sizes_of(tensors: Mapping[str, Tensor]) -> tuple[tuple[int, ...], int]:
    """The convolutions' filters and the GRU's size in the state of a stream form.

    Raises:
        ValueError: it is not one's.

    """
    try:
        size = tensors["backward_gru.weight_hh_l0"].shape[1]
    except (KeyError, IndexError):
        raise ValueError("there is no backward GRU") from None
    names = [f"convolutions.layers.{number}.convolution.weight" for number in range(len(FILTERS))]
    filters = tuple(tensors[name].shape[0] for name in names if name in tensors)
    return filters or FILTERS, size
