"""Reads a changed config in the background, on request; the supervisor then applies it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from streamer.errors import EarwitnessError
from streamer.runtime.control import Answer, Outcome
from streamer.runtime.model import Model
from streamer.runtime.plan import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setup:
    """A changed config, ready to be applied to the running daemon."""

    plan: Plan
    model: Model  # the running one itself, if it stays
    other_fields: tuple[str, ...]  # changed fields that the plan does not hold, by their names in the config
    on_applied: Callable[[], None]  # called in the supervisor's thread once everything is applied


class Reloads:
    """Runs the requested reloads one at a time. All requests that arrive during a reload share the next one."""

    def __init__(self, prepare: Callable[[], Setup], asked: threading.Event) -> None:
        """`prepare` reads the config and loads its model, in a separate thread, and may raise `EarwitnessError`.

        Setting `asked`, as the signal handler does, requests a reload without waiting for its outcome.
        """
        self._prepare = prepare
        self._asked = asked
        self._lock = threading.Lock()
        self._waiting: list[Answer] = []  # for the next reload
        self._answers: list[Answer] = []  # for the current one
        self._thread: threading.Thread | None = None
        self._found: Setup | str | None = None

    @property
    def reading(self) -> bool:
        """Whether a config is being read now."""
        return self._thread is not None and self._thread.is_alive()

    def ask(self, answer: Answer) -> None:
        """Request a reload; `answer` is called with its outcome, in another thread. May be called from any thread."""
        with self._lock:
            self._waiting.append(answer)
        self._asked.set()

    def begin(self) -> bool:
        """Start a requested reload unless one is running; returns whether one was started."""
        if self._thread is not None or not self._asked.is_set():
            return False
        self._asked.clear()
        with self._lock:
            self._answers, self._waiting = self._waiting, []
        self._thread = threading.Thread(target=self._read, name="reload", daemon=True)
        self._thread.start()
        return True

    def take(self) -> Setup | str | None:
        """The new setup, or why the config is refused: once for each reload, and None before it is known."""
        found, self._found = self._found, None
        return found

    def end(self, outcome: Outcome) -> None:
        """Finish the reload: log its outcome, and pass it to everyone who requested it."""
        if outcome.applied:
            log.info("reloaded: %s", outcome.text)
        else:
            log.error("the new config is refused, the old one stays in effect: %s", outcome.text)
        self._thread = None
        for answer in self._answers:
            answer(outcome)

    def _read(self) -> None:
        try:
            self._found = self._prepare()
        except EarwitnessError as error:
            self._found = " ".join(str(error).split())
        except Exception as error:  # no fault in a new config may stop the running daemon
            self._found = f"this should not happen: {type(error).__name__}: {' '.join(str(error).split())}"
