"""The stream form of the fusion CRNN: every layer computes a cell once, and carries its state to the next cells.

It has the layers of the window form (`crnn.py`), and differs in three things. The gain follows a running peak
(`stream_inputs.py`). The convolutions look `ahead_cells` ahead, not six cells (`stream_convolutions.py`). The GRU
layers carry their forward states for as long as the stream lasts. Backwards they run from the newest cell to those that
are decided, so that a cell's right context is what was heard when it was decided (`context_gru.py`).

`StreamCrnn.forward` computes whole clips, and `StreamCrnn.step` the same values (to 1e-5) piece by piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from streamer.networks.context_gru import LAYERS, Context, ContextGru, spans
from streamer.networks.crnn import MELS, Dropout, Posteriors, checked_shapes, default_widths, linear_pooling
from streamer.networks.dropout import Rows
from streamer.networks.inputs import EmbeddingInput
from streamer.networks.stream_convolutions import FILTERS, StreamConvolutions
from streamer.networks.stream_inputs import RELEASE_DB_S, RunningSpectralInput

GRU_SIZE = 128


@dataclass(frozen=True, slots=True)
class StreamForm:
    """What the tensors of a stream form do not tell."""

    ahead_cells: int = 2  # right context of the convolutions
    release_db_s: float = RELEASE_DB_S  # of the running peak


@dataclass(slots=True)
class StreamState:
    """What the network remembers of B streams. Of cells with unknown convolutions it has all other inputs."""

    peak: Tensor  # (B,) float64: the running peak's log
    past: list[Tensor]  # of each convolution: (B, 0 to 2, mels, channels)
    waiting: Tensor  # (B, p, sum of widths): embeddings of cells whose convolutions are not known yet
    waiting_valid: Tensor  # (B, p, modalities) bool
    hidden: Tensor  # (B, layers, GRU size): after the newest known cell, and of the second layer the last decided one
    context: Tensor  # (B, m, fused + 2 GRU sizes) of undecided cells: the GRU's inputs, both layers' forward outputs
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
        self.gru = ContextGru(fused, gru_size)
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
        decided = spans(next(iter(valid.values())).shape[1], self.context, self.ahead_cells)
        fused, tails, covered = self._whole(features, valid, state.peak, [span.edge for span in decided[:-1]])
        if before is not None:
            state.hidden = self._other_hidden(fused, before)
        logits = self._classified(self.gru(fused, state.hidden, decided, tails))
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
            hidden=like.new_zeros((clips, LAYERS, size)),
            context=like.new_zeros((clips, 0, self.gru.input_size + LAYERS * size)),
            covered=like.new_zeros((clips, 0), dtype=torch.bool),
        )

    def step(
        self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor], state: StreamState, *, last: bool
    ) -> tuple[Tensor, Tensor, StreamState]:
        """Take the next T >= 0 cells of B streams; `last`: none will follow.

        Returns:
            The posteriors of the m cells in the new state's `context`: of new cells, those whose convolutions are
            known, and of earlier ones again, with all that is known now as right context; behind them those of the p
            waiting cells, as if no more came, (B, m + p, classes). The owner of the state removes from `context` and
            `covered` the cells that it decides, and puts what the second layer made of the last of them into `hidden`.
            Then the backward states at the first of these cells, (B, layers, GRU size), with which `again` goes on; and
            the new state.

        """
        new, size = StreamState.of(state.tensors()), self.gru.hidden_size
        fused, known, covered = self._encode(features, valid, new, last=last)
        ahead = self.gru.onward(0, fused, state.hidden) if fused.shape[1] else state.context[:, :0, -size:]
        if known:
            new.hidden = torch.cat([ahead[:, known - 1 : known], state.hidden[:, 1:]], dim=1)
        inputs = torch.cat([state.context[:, :, : self.gru.input_size], fused], dim=1)
        ahead = torch.cat([state.context[:, :, -2 * size : -size], ahead], dim=1)
        new.covered = torch.cat([state.covered, covered], dim=1)
        cells = new.covered.shape[1]
        if not cells:
            return inputs[:, :0, : self.classify.out_features], torch.zeros_like(new.hidden), new
        back, further = self.gru.backward_passes(inputs, ahead)
        onward = self.gru.onward(1, torch.cat([ahead, back], dim=2), new.hidden)
        new.context = torch.cat([inputs, ahead, onward], dim=2)[:, :cells]
        logits = self._classified(torch.cat([onward, further], dim=2))
        behind = torch.cat([back[:, :1], further[:, :1]], dim=1)
        there = torch.cat([new.covered, new.waiting_valid.any(dim=2)], dim=1)[:, : logits.shape[1], None]
        return torch.sigmoid(logits) * there, behind, new

    def again(self, context: Tensor, covered: Tensor, behind: Tensor) -> Tensor:
        """The posteriors (B, m, classes) of m >= 0 consecutive cells that are decided, with what is known by now.

        Backwards they are computed again. What the second layer made of them forwards stays as they were decided.

        Args:
            context: of the cells, as it was in the state, (B, m, fused + 2 GRU sizes).
            covered: whether any modality has them, (B, m).
            behind: the backward states at the cell after the last one, (B, layers, GRU size).

        """
        if not context.shape[1]:
            return context[:, :, : self.classify.out_features]
        size = self.gru.hidden_size
        inputs, ahead, onward = context[:, :, : -2 * size], context[:, :, -2 * size : -size], context[:, :, -size:]
        _, further = self.gru.backward_passes(inputs, ahead, behind)
        return torch.sigmoid(self._classified(torch.cat([onward, further], dim=2))) * covered[:, :, None]

    def _whole(
        self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor], peak: Tensor, edges: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the GRU gets of whole clips.

        Returns:
            All cells (B, T, fused); what the cells from each edge on would be if none came after them, (B, edges,
            ahead_cells, fused); and whether any modality has a cell, (B, T).

        """
        flags = torch.stack([valid[name] for name in self.modalities], dim=2)
        vectors = self._vectors(features, valid)
        waiting = torch.tensor(edges, dtype=torch.long)[:, None] + torch.arange(self.ahead_cells)
        fused, tails = vectors, vectors[:, waiting]
        if self.convolutions is not None:
            frames, _ = self._frames(features, valid, peak)
            with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.reduced_precision):
                sound, ends = self.convolutions.whole(frames, [edge + self.ahead_cells for edge in edges])
            fused = torch.cat([sound.float().transpose(1, 2) * flags[:, :, :1], fused], dim=2)
            tails = torch.cat([ends.float().transpose(2, 3) * flags[:, waiting, :1], tails], dim=3)
        return fused, tails, flags.any(dim=2)

    def _encode(
        self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor], state: StreamState, *, last: bool
    ) -> tuple[Tensor, int, Tensor]:
        """What the GRU gets of new cells; updates `state`'s parts before the GRU.

        Returns:
            Those that are now known, and behind them what the waiting ones would be if no more came, (B, n, fused); how
            many are known; and whether any modality has these, (B, known).

        """
        flags = torch.stack([valid[name] for name in self.modalities], dim=2)
        flags = torch.cat([state.waiting_valid, flags], dim=1)
        vectors = torch.cat([state.waiting, self._vectors(features, valid)], dim=1)
        known, fused = flags.shape[1], vectors
        if self.convolutions is not None:
            frames, state.peak = self._frames(features, valid, state.peak)
            if last:
                sound = self.convolutions(frames, state.past)
            else:
                sound, tail, state.past = self.convolutions.step(frames, state.past)
                known = sound.shape[2]
                sound = torch.cat([sound, tail], dim=2)
            fused = torch.cat([sound.transpose(1, 2) * flags[:, :, :1], vectors], dim=2)
        state.waiting, state.waiting_valid = vectors[:, known:], flags[:, known:]
        return fused, known, flags[:, :known].any(dim=2)

    def _vectors(self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
        """The projections of all embeddings, (B, T, sum of widths)."""
        made = [module(features[name], valid[name]) for name, module in self.embeddings.items()]
        flags = valid[self.modalities[0]]
        return torch.cat(made, dim=2) if made else torch.zeros(*flags.shape, 0, device=flags.device)

    def _frames(
        self, features: Mapping[str, Tensor], valid: Mapping[str, Tensor], peak: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Spectral frames as the convolutions get them, (B, 1, 4 T, 128), and the running peak after them, (B,)."""
        assert self.spectral is not None
        assert self.spectral_input is not None
        magnitudes, there = features[self.spectral], valid[self.spectral]
        peaks = self.spectral_input.peaks(magnitudes, there, peak)
        frames = self.spectral_input.standard(magnitudes, there, peaks)[:, None]
        if self.channels_last:
            frames = frames.contiguous(memory_format=torch.channels_last)
        return frames, peaks[:, -1] if peaks.shape[1] else peak

    def _first_peak(self, clips: int) -> Tensor:
        if self.spectral_input is None:
            return torch.zeros(clips, dtype=torch.float64)
        return self.spectral_input.first(clips)

    def _classified(self, heard: Tensor) -> Tensor:
        return self.classify(self.dropout(heard)).float()  # type: ignore[no-any-return]

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
        return self.gru.last_states(fused).roll(1, dims=0) * others.chosen[:, None, None]


class _Others(NamedTuple):
    chosen: Tensor  # (B,) bool
    peak: Tensor  # (B,)


def sizes_of(tensors: Mapping[str, Tensor]) -> tuple[tuple[int, ...], int]:
    """The convolutions' filters and the GRU's size in the state of a stream form.

    Raises:
        ValueError: it is not one's.

    """
    try:
        size = tensors["gru.backwards.1.weight_hh_l0"].shape[1]
    except (KeyError, IndexError):
        raise ValueError("there is no second backward GRU layer") from None
    names = [f"convolutions.layers.{number}.convolution.weight" for number in range(len(FILTERS))]
    filters = tuple(tensors[name].shape[0] for name in names if name in tensors)
    return filters or FILTERS, size
