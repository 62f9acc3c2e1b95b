"""A model bundle: a folder with `bundle.json` and `model.safetensors`, which is everything a daemon needs to detect.

`train` writes bundles and the daemon reads them. A bundle contains no code: JSON and safetensors only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from streamer.decoding import ClassDecoding, Decoding
from streamer.errors import BundleError
from streamer.features import EXTRACTORS
from streamer.features.base import ExtractorFactory
from streamer.models import shipped
from streamer.networks.crnn import inputs_of
from streamer.networks.forms import FusionNetwork, network_of
from streamer.networks.stream_crnn import StreamForm
from streamer.networks.weights import WeightsStore
from streamer.provenance import Provenance
from streamer.types import WINDOW_CELLS
from streamer.windows import StreamSettings

SCHEMA = 2
"""The newest that is read. 1 has the window form alone, and is still written for it: older versions can read it."""
_STREAM_SCHEMA = 2
_JSON, _TENSORS = "bundle.json", "model.safetensors"


class _ClassEntry(msgspec.Struct, forbid_unknown_fields=True):
    onset_threshold: float
    offset_threshold: float
    median_cells: int
    tag_threshold: float


class _StreamEntry(msgspec.Struct, forbid_unknown_fields=True):
    ahead_cells: int
    release_db_s: float


class _Document(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`bundle.json`, field by field."""

    schema: int
    name: str
    classes: list[str]
    features: dict[str, dict[str, Any]]  # modality -> its extractor's spec
    window_cells: int
    decoding: dict[str, _ClassEntry]  # class -> thresholds and median filter
    tensors_sha256: str
    provenance: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    form: Literal["window", "stream"] = "window"
    stream: _StreamEntry | None = None  # of the stream form


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model with the settings of its features and its decoding.

    `provenance` records the training data and settings, `scores` the measured scores with n and command.
    """

    name: str
    feature_specs: Mapping[str, Mapping[str, Any]]  # modality -> its extractor's spec
    decoding: Decoding
    tensors: Mapping[str, Tensor]  # the network's state
    window_cells: int = WINDOW_CELLS
    provenance: Provenance = field(default_factory=Provenance)
    scores: Mapping[str, Any] = field(default_factory=dict)
    stream: StreamForm | None = None  # None: the network has the window form

    @property
    def carried(self) -> bool:
        """Whether the network has the stream form: it carries its state, so that windows have new cells alone."""
        return self.stream is not None

    @property
    def least_lookahead_cells(self) -> int:
        """The network can't decide a cell earlier than this."""
        return 0 if self.stream is None else self.stream.ahead_cells

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the network's outputs."""
        return self.decoding.classes

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that are the network's inputs."""
        return tuple(self.feature_specs)

    def misfit(self, settings: StreamSettings) -> str:
        """Why the model can't be streamed with these settings, and what to do; empty if it can."""
        hop, lookahead = settings.hop_cells, settings.lookahead_cells
        if hop + lookahead > self.window_cells:
            return (
                f"a hop of {hop} and a lookahead of {lookahead} cells exceed the {self.window_cells} cells of a window "
                f"of {self.name}: reduce one of them"
            )
        if lookahead < self.least_lookahead_cells:
            return (
                f"a lookahead of {lookahead} cells is less than the {self.least_lookahead_cells} that {self.name} "
                "needs: increase it"
            )
        return ""

    def fingerprint(self) -> str:
        """SHA-256 of all that its results depend on: classes, features, window, decoding and tensors."""
        document = [
            self.classes,
            self.feature_specs,
            self.window_cells,
            [astuple(one) for one in self.decoding.per_class],
        ]
        if self.stream is not None:
            document.append(astuple(self.stream))
        digest = hashlib.sha256(msgspec.json.encode(document, order="deterministic"))
        digest.update(save_tensors({name: tensor.contiguous() for name, tensor in self.tensors.items()}))
        return digest.hexdigest()

    def network(self) -> FusionNetwork:
        """The network with its weights, in evaluation mode.

        Raises:
            BundleError: the tensors do not match the network.

        """
        shapes, widths = self._inputs()
        try:
            network = network_of(self.tensors, shapes, len(self.classes), widths, self.stream)
        except (ValueError, RuntimeError) as error:
            raise self._foreign(error) from None
        return network.eval().requires_grad_(False)

    def factories(self, weights: WeightsStore) -> dict[str, ExtractorFactory]:
        """The extractor factories of the modalities; loads pretrained networks from `weights`.

        Raises:
            BundleError: a modality or a field of its spec is unknown.
            WeightsError: a pretrained network's weights are missing or are not those used in training.

        """
        made: dict[str, ExtractorFactory] = {}
        for name, spec in self.feature_specs.items():
            if name not in EXTRACTORS:
                raise BundleError(
                    f"bundle {self.name}: needs the modality {name!r}; this version has {', '.join(EXTRACTORS)}"
                )
            try:
                made[name] = EXTRACTORS[name](spec, weights)
            except (TypeError, ValueError) as error:
                raise BundleError(f"bundle {self.name}: the spec of {name} is invalid: {error}") from None
        shapes, _ = self._inputs()
        for name, factory in made.items():
            if factory.shape != shapes[name]:
                raise BundleError(
                    f"bundle {self.name}: its network takes cells of {shapes[name]} for {name}, but its spec makes "
                    f"cells of {factory.shape}: the bundle's two files do not belong together"
                )
        return made

    def _inputs(self) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
        try:
            return inputs_of(self.tensors, self.feature_specs)
        except ValueError as error:
            raise self._foreign(error) from None

    def _foreign(self, error: Exception) -> BundleError:
        detail = " ".join(str(error).split())
        return BundleError(f"bundle {self.name}: its tensors are not those of its network: {detail[:300]}")

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read the bundle in the folder `path`.

        Raises:
            BundleError: it is missing, damaged, of a newer schema, or not a bundle.

        """
        if not path.is_dir():
            hint = (
                "is a file; name the folder that holds bundle.json"
                if path.exists()
                else f"there is no such folder; check the path, or name a shipped model: {', '.join(shipped())}"
            )
            raise BundleError(f"bundle {path}: {hint}")
        document = _read_document(path)
        try:
            data = (path / _TENSORS).read_bytes()
        except OSError as error:
            raise BundleError(
                f"bundle {path}: {_TENSORS} can't be read: {error.strerror}; copy the whole folder"
            ) from None
        if hashlib.sha256(data).hexdigest() != document.tensors_sha256:
            raise BundleError(
                f"bundle {path}: {_TENSORS} is not the file that {_JSON} was written with; copy both again"
            )
        try:
            tensors = load_tensors(data)
        except SafetensorError as error:
            raise BundleError(f"bundle {path}: {_TENSORS} is damaged: {error}") from None
        missing = set(document.classes) ^ set(document.decoding)
        if missing:
            raise BundleError(
                f"bundle {path}: classes and decoding do not name the same classes: {', '.join(sorted(missing))}"
            )
        try:
            entries = [msgspec.structs.asdict(document.decoding[name]) for name in document.classes]
            decoding = Decoding(tuple(document.classes), tuple(ClassDecoding(**entry) for entry in entries))
        except ValueError as error:
            raise BundleError(f"bundle {path}: decoding: {error}") from None
        if document.window_cells < 1:
            raise BundleError(f"bundle {path}: window_cells must be at least 1, not {document.window_cells}")
        if (document.form == "stream") != (document.stream is not None) or (
            document.stream and document.schema < _STREAM_SCHEMA
        ):
            raise BundleError(
                f"bundle {path}: form {document.form!r} of schema {document.schema} "
                f"{'has' if document.stream else 'lacks'} `stream`: the file was changed: copy the bundle again"
            )
        if not document.features:
            raise BundleError(f"bundle {path}: names no modality under features")
        try:
            provenance = Provenance.of_json(document.provenance)
        except msgspec.ValidationError as error:
            raise BundleError(f"bundle {path}: {_JSON} is damaged: provenance: {error}") from None
        return cls(
            document.name,
            document.features,
            decoding,
            tensors,
            document.window_cells,
            provenance,
            document.scores,
            None if document.stream is None else StreamForm(document.stream.ahead_cells, document.stream.release_db_s),
        )

    def save(self, path: Path) -> None:
        """Write the bundle into the folder `path`, each file atomically.

        Raises:
            BundleError: the folder can't be written.

        """
        data = save_tensors({name: tensor.contiguous() for name, tensor in self.tensors.items()})
        document = _Document(
            schema=1 if self.stream is None else _STREAM_SCHEMA,
            name=self.name,
            classes=list(self.classes),
            features={name: dict(spec) for name, spec in self.feature_specs.items()},
            window_cells=self.window_cells,
            decoding={
                name: _ClassEntry(one.onset_threshold, one.offset_threshold, one.median_cells, one.tag_threshold)
                for name, one in zip(self.classes, self.decoding.per_class, strict=True)
            },
            tensors_sha256=hashlib.sha256(data).hexdigest(),
            provenance=self.provenance.json(),
            scores=dict(self.scores),
            form="window" if self.stream is None else "stream",
            stream=None if self.stream is None else _StreamEntry(self.stream.ahead_cells, self.stream.release_db_s),
        )
        try:
            path.mkdir(parents=True, exist_ok=True)
            _replace(path / _TENSORS, data)
            _replace(path / _JSON, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
        except OSError as error:
            raise BundleError(f"bundle {path}: can't be written: {error.strerror}") from None


def _read_document(path: Path) -> _Document:
    try:
        text = (path / _JSON).read_bytes()
        schema = msgspec.json.decode(text, type=dict[str, Any]).get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise BundleError(
                f"bundle {path}: has schema {schema}, this version reads up to {SCHEMA}: update earwitness"
            )
        return msgspec.json.decode(text, type=_Document)
    except OSError as error:
        raise BundleError(
            f"bundle {path}: {_JSON} can't be read: {error.strerror}; is this a bundle's folder?"
        ) from None
    except msgspec.MsgspecError as error:
        raise BundleError(f"bundle {path}: {_JSON} is not a bundle's: {error}") from None


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
