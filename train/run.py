"""`fit.json`: a training run and its phases, and what may change when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.provenance import Phase
from train.config import STREAM_ONLY, FitConfig
from train.data.summary import Summary
from train.provenance import exported_steps, known_of, pin_of_provenance
from train.split import Known, Pin, check_split, pin_of

FILE = "fit.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of `earwitness-train fit`. Its classes, modalities and feature specs never change."""

    name: str  # for errors
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    specs: Mapping[str, Mapping[str, Any]]  # of the features; empty: written by a version that did not record them
    phases: tuple[Phase, ...]
    split: Pin | None  # of all its corpora; None: written by a version that did not record groups
    split_unchecked: bool = False  # it started from a model whose groups are not recorded
    begun_with: Known | None = None  # the bundle that it starts from
    steps: int = 0  # of that bundle

    @classmethod
    def read(cls, folder: Path) -> Run | None:
        """The run in `folder`; None if there is none.

        Raises:
            EarwitnessError: its `fit.json` is damaged.

        """
        path = folder / FILE
        try:
            raw = json.loads(path.read_text())
            return cls(
                name=str(folder),
                classes=tuple(raw["classes"]),
                modalities=tuple(raw["modalities"]),
                specs=raw.get("features", {}),
                phases=tuple(Phase.of_json(one) for one in raw["phases"]),
                split=Pin.of_json(raw["split"]) if "split" in raw else None,
                split_unchecked=bool(raw.get("split_unchecked", False)),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError) as error:
            raise EarwitnessError(
                f"{path}: is damaged, or not written by `earwitness-train fit` ({error!r:.120}): restore it, or name "
                "another folder"
            ) from None

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Run:
        """A run that starts from a bundle. Raises `EarwitnessError` if `export` did not write the bundle."""
        came, steps = bundle.provenance, exported_steps(bundle)
        return cls(
            name=bundle.name,
            classes=bundle.classes,
            modalities=bundle.modalities,
            specs=bundle.feature_specs,
            phases=came.until(steps).phases,
            split=pin_of_provenance(came),
            split_unchecked=came.split_unchecked,
            begun_with=known_of(bundle),
            steps=steps,
        )

    def write(self, folder: Path) -> None:
        """Write `fit.json` atomically."""
        raw: dict[str, Any] = {
            "classes": list(self.classes),
            "modalities": list(self.modalities),
            "features": {name: dict(spec) for name, spec in self.specs.items()},
            **({} if self.split is None else {"split": self.split.json()}),
            **({"split_unchecked": True} if self.split_unchecked else {}),
            "phases": [one.json() for one in self.phases],
        }
        part = folder / (FILE + ".part")
        part.write_text(json.dumps(raw, indent=1) + "\n")
        part.replace(folder / FILE)

    def settings(self) -> FitConfig:
        """The settings of its last phase; those that an older version did not have are the defaults.

        So are those that its form ignores: an older version recorded its own defaults of them.
        """
        last = self.phases[-1].settings if self.phases else {}
        ignored = STREAM_ONLY if last.get("form", "window") == "window" else ()
        names = [name for name in FitConfig.model_fields if name in last and name not in ignored]
        return FitConfig.model_validate({name: last[name] for name in names})

    def check_corpus(self, corpus: Summary) -> bool:
        """Check that a corpus can evaluate the run; returns and raises as `check_split`."""
        configs = tuple(one.corpus for one in self.phases if one.corpus)
        return check_split(self.begun_with or Known(self.name, self.split, configs), corpus)

    def taken_up(self, phase: Phase, corpus: Summary, specs: Mapping[str, Mapping[str, Any]]) -> Run:
        """The run with `phase` added, which begins at the current step.

        A phase with the same settings and data as the last one continues it after an interruption. Settings and data
        may change, but not the network's architecture or its feature specs.

        Raises:
            EarwitnessError: classes, modalities, widths or features differ, or `check_split` rejects the corpus.

        """
        self._check_same("classes", self.classes, corpus.classes)
        self._check_same("modalities", self.modalities, tuple(specs))
        for name, spec in self.specs.items():
            fields = sorted(field for field in {*spec, *specs[name]} if field not in spec or spec[field] is not None)
            before, now = ({field: one.get(field) for field in fields} for one in (spec, specs[name]))
            self._check_same(f"{name} features", before, now)
        phases = tuple(one for one in self.phases if one.from_step < phase.from_step)
        if phases:
            self._check_same("widths", phases[-1].settings.get("widths", {}), phase.settings["widths"])
        certain = replace(self, phases=phases).check_corpus(corpus)
        last = phases[-1] if phases else None
        if last is not None and last.goes_on(phase):
            seen = last.environments
            new = () if seen and seen[-1].like(phase.environments[0]) else phase.environments
            phases = (*phases[:-1], msgspec.structs.replace(last, environments=(*seen, *new)))
        else:
            phases = (*phases, phase)
        pin = pin_of(corpus)
        return replace(
            self,
            specs=specs,
            phases=phases,
            split=pin if self.split is None else self.split.joined(pin),
            split_unchecked=self.split_unchecked or not certain,
        )

    def taught_by(self, teacher: Known, *, certain: bool) -> Run:
        """The run with the groups that a bundle it learns from was trained on; `certain` as `check_split` says."""
        known = [pin for pin in (self.split, teacher.pin) if pin is not None]
        split = known[0].joined(known[1]) if len(known) == 2 else next(iter(known), None)
        return replace(self, split=split, split_unchecked=self.split_unchecked or not certain)

    def _check_same(self, what: str, before: object, now: object) -> None:
        if before != now:
            raise EarwitnessError(
                f"{self.name} has {what} {_shown(before)}, now they are {_shown(now)}: they can't change within a run; "
                "name another folder"
            )


def new_run(folder: Path, phase: Phase, corpus: Summary, specs: Mapping[str, Mapping[str, Any]]) -> Run:
    """A run that starts from random weights."""
    return Run(str(folder), corpus.classes, tuple(specs), specs, (phase,), pin_of(corpus))


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else json.dumps(value)
