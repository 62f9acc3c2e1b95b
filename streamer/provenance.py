"""Where a model comes from, as its bundle records it: the data, settings, code and machine of its training.

`train` writes it and reads it again. Every field has a default, because bundles of older versions lack some. Fields
that are not known here are kept in `more` and written back, so that a bundle that is saved again loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The code, packages and machine of a training run, starting at a step."""

    from_step: int
    commit: str | None  # of the source code, followed by "+" if it was modified; None: not a git checkout
    packages: dict[str, str]
    python: str
    machine: str

    def like(self, other: Environment) -> bool:
        """Whether both are the same except for the step."""
        return msgspec.structs.replace(self, from_step=0) == msgspec.structs.replace(other, from_step=0)


class Phase(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A period of training with the same settings and data. Interruptions do not end it."""

    from_step: int
    corpus: dict[str, Any] = {}  # the settings of its corpus; empty: written by an older version
    data_sha256: str | None = None  # of media, annotations and feature specs; None: written by an older version
    environments: tuple[Environment, ...] = ()
    settings: dict[str, Any] = {}  # of the training; in JSON they are beside the other fields

    def json(self) -> dict[str, Any]:
        """As a bundle and `fit.json` store it."""
        return _flat(self, "settings")

    @classmethod
    def of_json(cls, raw: Any) -> Phase:
        """The inverse of `json`. Raises `msgspec.ValidationError`."""
        return msgspec.convert(_nested(cls, raw, "settings"), cls)

    def goes_on(self, other: Phase) -> bool:
        """Whether `other` is this phase, resumed."""
        return (self.settings, self.corpus, self.data_sha256) == (other.settings, other.corpus, other.data_sha256)


class Source(msgspec.Struct, frozen=True):
    """Recordings of one origin that a model was trained on."""

    source: str
    licence: str
    use: str
    recordings: int  # groups


class Provenance(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`provenance` of a bundle. With no field set: the bundle records nothing."""

    steps: int | None = None  # None: it was not written by `earwitness-train export`
    phases: tuple[Phase, ...] = msgspec.field(default=(), name="fit")
    corpus: dict[str, Any] = {}  # the settings of the last corpus
    recordings: dict[str, dict[str, int]] = {}  # of the last corpus: part -> class -> groups of recordings
    trained_on: tuple[Source, ...] = ()
    split: dict[str, list[str]] | None = None  # part -> groups, of all corpora; None: groups were not recorded
    split_unchecked: bool = False  # it started from a model whose groups are not recorded
    network: Literal["teacher", "student"] = "teacher"  # whose weights these are
    decoding: Literal["tuned", "untuned"] = "tuned"  # untuned: one fixed threshold and median filter for all classes
    more: dict[str, Any] = {}  # fields that are not known here

    def json(self) -> dict[str, Any]:
        """As a bundle stores it."""
        phases = {"fit": [one.json() for one in self.phases]} if self.phases else {}
        return {**_flat(self, "more"), **phases}

    @classmethod
    def of_json(cls, raw: Mapping[str, Any]) -> Provenance:
        """The inverse of `json`. Raises `msgspec.ValidationError`."""
        nested = _nested(cls, raw, "more")
        if isinstance(nested.get("fit"), list):
            nested["fit"] = [_nested(Phase, one, "settings") for one in nested["fit"]]
        return msgspec.convert(nested, cls)

    def until(self, step: int) -> Provenance:
        """The provenance without the phases that begin at or after `step`."""
        return msgspec.structs.replace(self, phases=tuple(one for one in self.phases if one.from_step < step))


def _flat(one: msgspec.Struct, field: str) -> dict[str, Any]:
    """`one` as JSON-able values, with what is in its `field` beside the other fields."""
    fields: dict[str, Any] = msgspec.to_builtins(one)
    return {**fields.pop(field, {}), **fields}


def _nested(of: type[msgspec.Struct], raw: Any, field: str) -> Any:
    """The inverse of `_flat`: what is no field of `of` is put into `field`."""
    if not isinstance(raw, Mapping):
        return raw
    names = set(of.__struct_encode_fields__) - {field}
    rest = {name: value for name, value in raw.items() if name not in names}
    return {**{name: value for name, value in raw.items() if name in names}, field: rest}
