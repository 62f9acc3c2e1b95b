"""Where the runs of an experiment are carried out: in processes of this machine, or by another `Executor`."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Process
from multiprocessing.connection import wait
from typing import Protocol

from train.experiment.job import FAILED, Job, perform
from train.workers import serve

_LOOK_S = 1.0

Watch = Callable[[Sequence[Job]], None]
"""Called about once a second with the jobs that are running."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended."""

    job: Job
    error: str | None  # None: it has written its result


class Executor(Protocol):
    """Carries out jobs, each of which calls `train.experiment.job.perform` once, in any order and number at a time.

    The folders of jobs are on a disk that this process and theirs share: results and progress are read from there.
    """

    def run(self, jobs: Sequence[Job], watch: Watch) -> Iterator[Ended]:
        """Carry out all jobs, and yield each as it ends. Leaving the iteration stops those that are running."""
        ...


@dataclass(frozen=True, slots=True)
class Processes:
    """Up to `workers` processes at a time, one for each job: if one is killed, the others go on."""

    workers: int

    def run(self, jobs: Sequence[Job], watch: Watch) -> Iterator[Ended]:
        """See `Executor`."""
        waiting, running = deque(jobs), dict[Process, Job]()
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    job = waiting.popleft()
                    process = Process(target=_main, args=(os.getpid(), job), name=f"{job.row}/{job.seed}")
                    process.start()
                    running[process] = job
                watch(tuple(running.values()))
                wait([process.sentinel for process in running], _LOOK_S)
                for process in [one for one in running if not one.is_alive()]:
                    process.join()
                    job = running.pop(process)
                    yield Ended(job, _error_of(process.exitcode or 0, job))
                    process.close()
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.join()


def _main(command: int, job: Job) -> None:
    serve(command)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    perform(job)


def _error_of(exit_code: int, job: Job) -> str | None:
    if exit_code == 0:
        return None
    if exit_code < 0:
        return f"its process was killed by {signal.Signals(-exit_code).name}, perhaps because memory ran out"
    try:
        return (job.folder / FAILED).read_text().strip()
    except OSError:
        return f"its process ended with exit code {exit_code}: see {job.folder / 'output.txt'}"
