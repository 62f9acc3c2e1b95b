"""One run in several processes, which `torchrun` starts: each trains on its share of every batch.

    torchrun --standalone --nproc-per-node 2 --no-python earwitness-train fit CORPUS FEATURES OUT --config FILE

Processes talk by gloo on CPUs and by NCCL on GPUs, one each. They compute what one process would: sums of costs,
batch norm's statistics (`batch_norm`) and random draws are those of the whole batch. Only the first one writes.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import distributed

from streamer.errors import EarwitnessError

_PATIENCE = timedelta(hours=2)
"""How long processes wait for one that is alive: the first one validates alone."""
_NETWORK = ("gloo", "nccl", "connection", "socket", "process group", "tcpstore", "timed out")
"""Words in torch's errors about other processes; most of them are plain RuntimeErrors."""
T = TypeVar("T")
_Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that share a run, as one of them sees it."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """The first process's `value`."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sums of each of `values` over all processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return total.tolist()


@contextmanager
def joined(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Group]:
    """This process's place among those that `torchrun` started; alone without it.

    Raises:
        EarwitnessError: there is no GPU for this process, or another process of the run has ended.

    """
    try:
        rank, size, local = (int(os.environ.get(name, fallback)) for name, fallback in _PLACE.items())
    except ValueError:
        raise EarwitnessError(f"{', '.join(_PLACE)} must be numbers: start the run with torchrun") from None
    chosen = _device(device, local)
    if size == 1:
        yield Group(chosen)
        return
    before = _on_sigterm(rank, size)
    if rank > 0:
        logging.disable(logging.WARNING)  # the first process says it
    try:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
        yield Group(chosen, rank, size)
        distributed.destroy_process_group()
    except (RuntimeError, ValueError) as error:
        if isinstance(error, EarwitnessError) or not any(word in str(error).lower() for word in _NETWORK):
            raise
        raise EarwitnessError(
            f"process {rank} of {size}: another process of this run has ended: its message says why; the same command "
            "resumes the run from its last checkpoint"
        ) from None
    finally:
        if rank > 0:
            logging.disable(logging.NOTSET)
        if before is not None:
            signal.signal(signal.SIGTERM, before)


_PLACE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""What torchrun sets in the environment, and what it is without it."""


def _device(device: Literal["auto", "cpu", "cuda"], local: int) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and count == 0):
        return torch.device("cpu")
    if count == 0:
        raise EarwitnessError("device: cuda: this machine has no GPU that torch can use: set device to auto or cpu")
    if local >= count:
        raise EarwitnessError(f"this machine has {count} GPUs: start no more processes, with --nproc-per-node {count}")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _on_sigterm(rank: int, size: int) -> _Handler:
    """End with one line on SIGTERM, which torchrun sends to the others when a process has ended."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # said once
        raise EarwitnessError(
            f"process {rank} of {size}: was told to end, because another process has ended or the run was stopped; the "
            "same command resumes it from its last checkpoint"
        )

    return signal.signal(signal.SIGTERM, end)
