"""Convolutions over spectral frames that carry their state: every frame passes each layer once, however it arrives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from streamer.networks.dropout import ByteDropout

POOLING = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2))
"""(time, mel) of each layer: the paper's."""
FRAME_LAYERS = 2
"""The first layers pool time, so their steps are shorter than a cell: they never look ahead."""
FILTERS = (16, 32, 64, 128, 128, 128, 128)
_TAPS = 3


class StreamConvolution(nn.Module):
    """A convolution of 3 x 3, batch norm, ReLU, dropout and average pooling, whose past is an argument.

    If it looks ahead, an output is centred on its input and needs the input after it; else it needs the two before.
    """

    def __init__(self, channels: int, filters: int, pooling: tuple[int, int], dropout: float, *, ahead: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, filters, kernel_size=_TAPS, padding=(0, 1))
        self.norm: nn.Module = nn.BatchNorm2d(filters)
        self.dropout = ByteDropout(dropout)
        self.pool = nn.AvgPool2d(pooling)
        self.ahead = ahead

    def fold(self) -> None:
        """Fold the batch norm into the convolution, for inference."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.convolution = fuse_conv_bn_eval(self.convolution, self.norm)
            self.norm = nn.Identity()

    @property
    def padding(self) -> int:
        """Steps of silence before the first one, and if it looks ahead after the last one too."""
        return 1 if self.ahead else _TAPS - 1

    def forward(self, steps: Tensor, past: Tensor) -> Tensor:
        """The outputs of the last steps of a stream, or of whole clips.

        Args:
            steps: (B, channels, T, mels), T >= 0.
            past: the last inputs before them, (B, 0 to 2, mels, channels); at first `padding` zeros.

        """
        return self._outputs(self._known(steps, past))

    def tail(self, steps: Tensor, past: Tensor) -> Tensor:
        """The same, but in training too with the norm's running statistics and without dropout."""
        outputs = self.convolution(self._known(steps, past))
        if isinstance(norm := self.norm, nn.BatchNorm2d):
            outputs = batch_norm(outputs, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return self.pool(outputs.relu_())  # type: ignore[no-any-return]

    def step(self, steps: Tensor, tail: Tensor, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs that are known after `steps`, those that would follow `tail` if no more came, and the new past.

        Args:
            steps: as in `forward`.
            tail: what the steps behind them would be if no more came, (B, channels, 0 or more, mels).
            past: as in `forward`.

        """
        certain = past.shape[1] + steps.shape[2]
        known = self._known(torch.cat([steps, tail], dim=2), past)
        kept = known[:, :, max(certain - (_TAPS - 1), 0) : certain].permute(0, 2, 3, 1).contiguous()
        outputs = self._outputs(known)
        count = max(certain - (_TAPS - 1), 0) // self.pool.kernel_size[0]  # type: ignore[index]
        return outputs[:, :, :count], outputs[:, :, count:], kept

    def _known(self, steps: Tensor, past: Tensor) -> Tensor:
        """Its inputs, with silence behind them if it looks ahead."""
        parts = [past.permute(0, 3, 1, 2), steps]  # channels-last in memory, as the convolution wants it
        if self.ahead:
            parts.append(steps.new_zeros((*steps.shape[:2], 1, steps.shape[3])))
        return torch.cat(parts, dim=2)

    def _outputs(self, known: Tensor) -> Tensor:
        if known.shape[2] < _TAPS:
            _, mel = self.pool.kernel_size  # type: ignore[misc]
            return known.new_zeros((len(known), self.convolution.out_channels, 0, known.shape[3] // mel))
        return self.pool(self.dropout(self.norm(self.convolution(known)).relu_()))  # type: ignore[no-any-return]


class StreamConvolutions(nn.Module):
    """The seven layers, (B, 1, 4 T, 128) -> (B, filters, T, 1). Raises `ValueError` if they can't look so far ahead."""

    def __init__(self, filters: Sequence[int], ahead_cells: int, dropout: float) -> None:
        """`ahead_cells`: how many of the layers that work on cells look one cell ahead, from the first one on."""
        super().__init__()
        cell_layers = len(POOLING) - FRAME_LAYERS
        if len(filters) != len(POOLING):
            raise ValueError(f"there are {len(POOLING)} convolutions, not {len(filters)}")
        if not 0 <= ahead_cells <= cell_layers:
            raise ValueError(f"the convolutions can look 0 to {cell_layers} cells ahead, not {ahead_cells}")
        self.ahead_cells = ahead_cells
        self.layers = nn.ModuleList(
            StreamConvolution(
                channels, count, pooling, dropout, ahead=FRAME_LAYERS <= number < FRAME_LAYERS + ahead_cells
            )
            for number, (channels, count, pooling) in enumerate(zip((1, *filters[:-1]), filters, POOLING, strict=True))
        )

    def begin(self, clips: int, mels: int, like: Tensor) -> list[Tensor]:
        """The past of each layer before the first cell."""
        past = []
        for layer in self.layers:
            assert isinstance(layer, StreamConvolution)
            past.append(like.new_zeros((clips, layer.padding, mels, layer.convolution.in_channels)))
            mels //= 2
        return past

    def forward(self, frames: Tensor, past: Sequence[Tensor]) -> Tensor:
        """The last cells of a stream, (B, filters, cells)."""
        for layer, before in zip(self.layers, past, strict=True):
            frames = layer(frames, before)
        return frames.squeeze(3)

    def step(self, frames: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The cells that are now known, and what those that wait would be if no more came; and the new past.

        Both are (B, filters, cells); no more than `ahead_cells` wait.
        """
        kept, tail = [], frames[:, :, :0]
        for layer, before in zip(self.layers, past, strict=True):
            assert isinstance(layer, StreamConvolution)
            frames, tail, after = layer.step(frames, tail, before)
            kept.append(after)
        return frames.squeeze(3), tail.squeeze(3), kept

    def whole(self, frames: Tensor, stops: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Whole clips, (B, filters, T), and the tails at `stops`, (B, stops, filters, ahead_cells).

        A stop is a number of cells that are known; it is more than `ahead_cells`.
        """
        inputs: list[Tensor] = []
        for layer, before in zip(self.layers, self.begin(len(frames), frames.shape[3], frames), strict=True):
            inputs.append(frames)
            frames = layer(frames, before)
        outputs = frames.squeeze(3)
        if not stops or not self.ahead_cells:
            return outputs, outputs.new_zeros((len(outputs), len(stops), outputs.shape[1], self.ahead_cells))
        past = []
        for number, steps in enumerate(inputs[FRAME_LAYERS:]):
            late = min(number, self.ahead_cells)  # these inputs are behind by as many cells
            padded = pad(steps, (0, 0, _TAPS - 1, 0))
            known = [padded[:, :, stop - late : stop - late + _TAPS - 1] for stop in stops]
            past.append(torch.stack(known, dim=1).flatten(0, 1).permute(0, 2, 3, 1))
        return outputs, self._tail(past).reshape(len(outputs), len(stops), -1, self.ahead_cells)

    def _tail(self, past: Sequence[Tensor]) -> Tensor:
        """What `step` gives of waiting cells, in training too; `past`: of the layers on cells."""
        first = past[0]
        cells = first.new_zeros((len(first), first.shape[3], 0, first.shape[2]))
        for layer, before in zip(self.layers[FRAME_LAYERS:], past, strict=True):
            assert isinstance(layer, StreamConvolution)
            cells = layer.tail(cells, before)
        return cells.squeeze(3)
