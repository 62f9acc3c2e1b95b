"""The provenance of a model: the settings, data, code and machine of each phase of its training."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import torch

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from train.split import Known, Pin

_PACKAGES = ("earwitness", "torch", "torchaudio", "torchvision", "av", "numpy")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The code, packages and machine of a training run, starting at a step."""

    from_step: int
    commit: str | None  # of the source code, followed by "+" if it was modified; None: not a git checkout
    packages: dict[str, str]
    python: str
    machine: str

    @classmethod
    def here(cls, from_step: int) -> Environment:
        """This machine and this code."""
        return cls(
            from_step=from_step,
            commit=_commit(),
            packages={name: _version(name) for name in _PACKAGES},
            python=platform.python_version(),
            machine=f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        )

    def like(self, other: Environment) -> bool:
        """Whether both are the same except for the step."""
        return msgspec.structs.replace(self, from_step=0) == msgspec.structs.replace(other, from_step=0)


@dataclass(frozen=True, slots=True)
class Phase:
    """A period of training with the same settings and data. Interruptions do not end it."""

    from_step: int
    settings: Mapping[str, Any]  # of `FitConfig`
    corpus: Mapping[str, Any]  # of `CorpusConfig`
    data_sha256: str | None = None  # of media, annotations and feature specs; None: written by an older version
    environments: tuple[Environment, ...] = ()

    def json(self) -> dict[str, Any]:
        """As a bundle stores it: the settings on the same level as the other fields."""
        more = {} if self.data_sha256 is None else {"data_sha256": self.data_sha256}
        if self.environments:
            more["environments"] = msgspec.to_builtins(self.environments)
        return {"corpus": dict(self.corpus), "from_step": self.from_step, **self.settings, **more}

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> Phase:
        """The inverse of `json`. Raises `KeyError`, `TypeError` or `msgspec.ValidationError`."""
        settings = dict(raw)
        return cls(
            from_step=int(settings.pop("from_step")),
            corpus=dict(settings.pop("corpus", {})),
            data_sha256=settings.pop("data_sha256", None),
            environments=msgspec.convert(settings.pop("environments", []), tuple[Environment, ...]),
            settings=settings,
        )

    def goes_on(self, other: Phase) -> bool:
        """Whether `other` is this phase, resumed."""
        return (self.settings, self.corpus, self.data_sha256) == (other.settings, other.corpus, other.data_sha256)


class Source(msgspec.Struct, frozen=True):
    """Recordings of one origin that a model was trained on."""

    source: str
    licence: str
    use: str
    recordings: int  # groups


@dataclass(frozen=True, slots=True)
class Provenance:
    """`provenance` of a bundle that `earwitness-train export` wrote."""

    steps: int
    phases: tuple[Phase, ...]
    corpus: Mapping[str, Any]  # the last corpus's `CorpusConfig`
    recordings: Mapping[str, Mapping[str, int]]  # of the last corpus: part -> class -> groups
    trained_on: tuple[Source, ...]
    split: Pin | None  # of all its corpora; None: written by a version that did not record groups
    split_unchecked: bool = False  # it started from a model whose groups are not recorded

    def json(self) -> dict[str, Any]:
        """As a bundle stores it."""
        return {
            "steps": self.steps,
            "fit": [one.json() for one in self.phases],
            "corpus": dict(self.corpus),
            "recordings": {part: dict(of) for part, of in self.recordings.items()},
            "trained_on": msgspec.to_builtins(self.trained_on),
            **({} if self.split is None else {"split": self.split.json()}),
            **({"split_unchecked": True} if self.split_unchecked else {}),
        }

    @classmethod
    def of(cls, bundle: Bundle) -> Provenance:
        """The provenance of a bundle.

        Raises:
            EarwitnessError: the bundle was not written by `earwitness-train export`.

        """
        raw = bundle.provenance
        try:
            return cls(
                steps=int(raw["steps"]),
                phases=tuple(Phase.of_json(one) for one in raw["fit"]),
                corpus=raw["corpus"],
                recordings=raw.get("recordings", {}),
                trained_on=msgspec.convert(raw.get("trained_on", []), tuple[Source, ...]),
                split=Pin.of_json(raw["split"]) if "split" in raw else None,
                split_unchecked=bool(raw.get("split_unchecked", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            raise EarwitnessError(
                f"bundle {bundle.name}: its provenance is not that of `earwitness-train export`: {error!r}"[:300]
            ) from None

    def until(self, step: int) -> Provenance:
        """The provenance without the phases that begin at or after `step`."""
        return replace(self, phases=tuple(one for one in self.phases if one.from_step < step))


def known_of(bundle: Bundle) -> Known:
    """What a bundle records of the corpora that it was trained on, as input to `check_split`.

    Raises:
        EarwitnessError: its provenance was not written by `earwitness-train export`.

    """
    if not bundle.provenance:
        return Known(bundle.name, None, ())
    came = Provenance.of(bundle)
    configs = (*(one.corpus for one in came.phases if one.corpus), came.corpus)
    return Known(bundle.name, came.split, configs, came.recordings or None)


def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # else it is another project's checkout
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "source"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
