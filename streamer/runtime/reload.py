"""Asks for a new config, and has it read beside the old one; the supervisor carries it out."""

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
    """What a config asks of a running daemon."""

    plan: Plan
    model: Model  # the very one that runs, if it is to stay
    also: tuple[str, ...]  # what else is new, by its names in the config
    taken: Callable[[], None]  # called in the supervisor's thread once all of it holds


class Reloads:
    """The reloads that are asked for, one after the other. What is asked while one is under way is one more."""

    def __init__(self, prepare: Callable[[], Setup], asked: threading.Event) -> None:
        """`prepare` reads the config and loads its model, in a thread of its own, and raises `EarwitnessError`.

        Setting `asked`, as a signal does, asks for a reload that nobody waits for.
        """
        self._prepare = prepare
        self._asked = asked
        self._lock = threading.Lock()
        self._waiting: list[Answer] = []  # for the next one
        self._answers: list[Answer] = []  # for the one that is under way
        self._thread: threading.Thread | None = None
        self._found: Setup | str | None = None

    @property
    def reading(self) -> bool:
        """Whether a config is being read at this moment."""
        return self._thread is not None and self._thread.is_alive()

    def ask(self, answer: Answer) -> None:
        """Ask for a reload; `answer` is called with what came of it, in another thread. From any thread."""
        with self._lock:
            self._waiting.append(answer)
        self._asked.set()

    def begin(self) -> bool:
        """Begin what was asked for, if nothing is under way; False if nothing was begun."""
        if self._thread is not None or not self._asked.is_set():
            return False
        self._asked.clear()
        with self._lock:
            self._answers, self._waiting = self._waiting, []
        self._thread = threading.Thread(target=self._read, name="reload", daemon=True)
        self._thread.start()
        return True

    def take(self) -> Setup | str | None:
        """What the config asks for, or why it can't be taken; once for each reload, None while there is nothing new."""
        found, self._found = self._found, None
        return found

    def end(self, outcome: Outcome) -> None:
        """The reload is over: tell all who asked."""
        if outcome.taken:
            log.info("reloaded: %s", outcome.text)
        else:
            log.error("the new config is refused, and the old one goes on: %s", outcome.text)
        self._thread = None
        for answer in self._answers:
            answer(outcome)

    def _read(self) -> None:
        try:
            self._found = self._prepare()
        except EarwitnessError as error:
            self._found = " ".join(str(error).split())
        except Exception as error:  # whatever it is, what runs must go on
            self._found = f"this should not happen: {type(error).__name__}: {' '.join(str(error).split())}"
