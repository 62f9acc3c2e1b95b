"""The models that ship with the package, by name. Free of heavy imports: every command's help names them."""

from __future__ import annotations

from pathlib import Path

DEFAULT = "spectral"
"""The shipped model that is used if none is named. It needs no further weights."""
FUSED = "audio"
"""The shipped model that also hears through a pretrained network, whose weights have to be fetched once."""
_FOLDER = Path(__file__).parent / "bundles"


def shipped() -> list[str]:
    """The names of the shipped models, the default one first."""
    names = sorted(path.parent.name for path in _FOLDER.glob("*/bundle.json"))
    return sorted(names, key=lambda name: name != DEFAULT)


def bundle_path(named: str | Path | None) -> Path:
    """The folder of a model: a shipped one by its name, any other by its path; None: the default one."""
    if named is None:
        return _FOLDER / DEFAULT
    return _FOLDER / named if str(named) in shipped() else Path(named)


def model_help(default: str | None = DEFAULT) -> str:
    """What the option `--model` takes; None: its default is told elsewhere."""
    told = "" if default is None else f" (default: {default})"
    return f"a shipped model ({', '.join(shipped())}) or a bundle's folder{told}"
