"""The configuration of `earwitness-train fit`: YAML files in `configs/train`, parsed once. All defaults are here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from streamer.errors import ConfigError
from streamer.features import EXTRACTORS, SPECTRAL
from streamer.networks.crnn import Dropout
from streamer.networks.stream_convolutions import FILTERS
from streamer.networks.stream_crnn import GRU_SIZE, StreamForm
from streamer.networks.stream_inputs import RELEASE_DB_S

Kind = Literal["strong", "weak", "unlabeled"]
NetworkName = Literal["teacher", "student"]
STREAM_ONLY = ("ahead_cells", "release_db_s", "filters", "right_contexts", "hops", "judged_context", "carried")
"""Fields of `FitConfig` that the window form ignores."""


class FitConfig(BaseModel):
    """How `earwitness-train fit` trains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    modalities: tuple[str, ...] = Field(
        (SPECTRAL,), min_length=1, description="modalities; `earwitness-train features --help` lists them"
    )
    widths: dict[str, PositiveInt] = Field(
        {}, description="widths of the embeddings' projections, by modality; default: paper section 3"
    )
    features: dict[str, dict[str, Any]] = Field(
        {},
        description="how features are computed, by modality: fields of its spec that differ from the default, such as "
        "`vggish: {alignment: paper, last_relu: true}` or `vgg16: {still: 0.9}`; `features --config` and `fit` must "
        "have the same",
    )
    form: Literal["window", "stream"] = Field(
        "window",
        description="window: the paper's network, which computes 10 s at once; stream: one that computes each cell "
        "once and carries its state, a tenth of the cost",
    )
    ahead_cells: int = Field(2, ge=0, le=5, description="stream form: cells that the convolutions look ahead")
    release_db_s: float = Field(RELEASE_DB_S, gt=0, description="stream form: how fast the gain recovers after a peak")
    filters: tuple[PositiveInt, ...] = Field(
        FILTERS, min_length=7, max_length=7, description="stream form: filters of the seven convolutions"
    )
    gru_size: int = Field(
        GRU_SIZE, ge=1, description="size of each GRU layer, in each direction (paper section 2.1: 128)"
    )
    right_contexts: tuple[PositiveInt, ...] = Field(
        (4, 8, 12, 15, 30, 151),
        min_length=1,
        description="stream form: lookaheads in cells, of which each batch draws one; as long as a clip: all of it. "
        "The teacher always hears all of it",
    )
    hops: tuple[PositiveInt, ...] = Field(
        (2, 4, 8),
        min_length=1,
        description="stream form: cells from one run to the next, of which each batch draws one",
    )
    judged_context: int = Field(
        8, ge=0, description="stream form: the lookahead in cells with which validations are scored; 0: the whole clip"
    )
    carried: float = Field(
        0.5, ge=0, le=1, description="stream form: share of clips that begin with what is remembered of another clip"
    )
    steps: int = Field(12_500, ge=1, description="optimiser steps; follows from `epochs` if that is set")
    epochs: int = Field(0, ge=0, description="epochs of `epoch_steps` steps; 0: `steps` alone counts")
    epoch_steps: int = Field(250, ge=1, description="steps of an epoch (paper section 4.3.1)")
    batch: dict[Kind, int] = Field(
        {"strong": 18, "weak": 3, "unlabeled": 3},
        description="number of clips of each kind in a batch; some must be labelled",
    )
    learning_rate: float = Field(0.001, gt=0, description="highest learning rate (paper section 4.3.1)")
    ramp_steps: int = Field(
        12_500, ge=1, description="steps of the ramp exp(-5 (1 - t / ramp)^2) (paper section 4.3.1)"
    )
    decay: float = Field(0.99995, gt=0, le=1, description="factor on the learning rate per step after the ramp")
    frozen_until: int = Field(
        0,
        ge=0,
        description="step up to which the convolutions stay as they were begun with, so that new layers behind them "
        "learn first, in half the time",
    )
    optimiser: Literal["adam", "adamw"] = Field(
        "adamw", description="they differ in how `weight_decay` works: adam adds it to the gradient"
    )
    clip_gradient: float = Field(5.0, ge=0, description="highest norm of the gradient; 0: it is not clipped")
    bias_priors: bool = Field(
        True, description="begin with each class's share in the labels as the classifier's bias, which saves steps"
    )
    anneal_steps: int = Field(
        0, ge=0, description="number of last steps in which the learning rate falls linearly to 0"
    )
    weight_decay: float = Field(0.0, ge=0)
    dropout: float = Field(0.5, ge=0, lt=1, description="after each ReLU of the convolutions (paper section 2.1)")
    embedding_dropout: float = Field(0.0, ge=0, lt=1, description="on projected embeddings (paper section 3)")
    classifier_dropout: float | None = Field(
        None, ge=0, lt=1, description="before the classifier; null: the same as `dropout`"
    )
    ema: float = Field(0.999, gt=0, lt=1, description="share of its weights that the teacher keeps per step")
    ema_warmup: bool = Field(False, description="min(1 - 1 / (step + 1), ema) instead of ema from the start")
    consistency_frames: float = Field(2.0, ge=0, description="weight of the frame-level consistency cost")
    consistency_clip: float = Field(1.0, ge=0, description="weight of the clip-level consistency cost")
    consistency_ramp: bool = Field(False, description="ramp up the consistency weights like the learning rate")
    clip_cost: float = Field(
        1.0, ge=0, description="weight of the clip-level cost on strong clips; weak clips always have 1"
    )
    mixup: float = Field(
        0.0, ge=0, le=1, description="probability that another strong clip is mixed into a strong clip"
    )
    filter_db: float = Field(0.0, ge=0, description="random equaliser on training clips, up to this many dB up or down")
    shift: bool = Field(False, description="rotate training clips in time")
    mask_mels: int = Field(0, ge=0, description="maximum number of adjacent mel bins to mask in a training clip")
    mask_cells: int = Field(0, ge=0, description="maximum number of adjacent cells to mask in a training clip")
    crop: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a batch is cropped to a random shorter window, as at the start of a stream",
    )
    modality_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability that the student lacks a modality of a clip, so that one model serves every "
        "combination of them; one always stays",
    )
    holes: float = Field(
        0.0, ge=0, le=1, description="probability that the student lacks some adjacent cells of a modality of a clip"
    )
    hole_cells: int = Field(45, ge=1, description="the longest of these holes")
    onset_weight: float = Field(
        0.0, ge=0, description="added to the weight of a strong label at an onset (arXiv 2403.13254)"
    )
    offset_weight: float = Field(0.0, ge=0, description="added to the weight of a strong label at an offset")
    edge_cells: int = Field(
        5,
        ge=1,
        description="distance from onsets and offsets at which the added weight has fallen to 0, by a half sine",
    )
    distil_from: tuple[str, ...] = Field(
        (),
        description="models, by name or folder, whose mean posteriors are further targets, of all clips; they may use "
        "other modalities, which `features` must then compute too",
    )
    distil_stored: bool = Field(
        False, description="the posteriors that `earwitness-train guide` stored are these targets, instead of models'"
    )
    distil_frames: float = Field(1.0, ge=0, description="weight of the cost against these cell posteriors")
    distil_clips: float = Field(1.0, ge=0, description="weight of the cost against these clip posteriors")
    pseudo_frames: float = Field(
        0.0, ge=0, description="weight of the cell-level cost of unlabelled clips whose labels come from mn04_scores"
    )
    pseudo_clips: float = Field(0.0, ge=0, description="the same at clip level")
    pseudo_low: float = Field(0.05, ge=0, le=1, description="an mn04 score up to this means that a class is not there")
    pseudo_high: float = Field(
        0.7, ge=0, le=1, description="an mn04 score from this on means that it is; between: neither"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where networks are trained; auto: on a GPU if there is one"
    )
    reduced_precision: bool = Field(False, description="run convolutions in bfloat16 during training")
    channels_last: bool = Field(
        True, description="memory layout of the convolutions; `earwitness-train bench` measures what it saves"
    )
    compile: bool = Field(
        False, description="compile the networks with torch.compile, which takes minutes at first and a C++ compiler"
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="which networks are saved as best.pt: those with the best validation scores, or the last ones",
    )
    network: NetworkName = Field("teacher", description="the network that is validated, and that `export` takes")
    threshold: float = Field(0.5, gt=0, lt=1, description="of untuned decoding, for events and tags")
    median_cells: int = Field(7, ge=1, description="median filter of untuned decoding, 0.46 s (paper section 2.2)")
    tune: bool = Field(
        True, description="`export` tunes thresholds and filters on the validation clips; otherwise they stay untuned"
    )
    validate_every: int = Field(250, ge=1, description="steps between validations")
    product_every: int = Field(
        0,
        ge=0,
        description="steps between validations as the product scores: thresholds tuned, clips streamed with its "
        "lookahead; they take longer; 0: none",
    )
    keep_best: int = Field(3, ge=0, description="number of validated networks, those with the best scores, to keep")
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints to resume from")
    threads: int = Field(0, ge=0, description="torch threads; 0: torch chooses")

    @model_validator(mode="before")
    @classmethod
    def _steps_of_epochs(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not isinstance(epochs := raw.get("epochs", 0), int) or epochs < 1:
            return raw
        epoch_steps = raw.get("epoch_steps", cls.model_fields["epoch_steps"].default)
        if not isinstance(epoch_steps, int):
            return raw  # its own error follows
        if raw.get("steps", epochs * epoch_steps) != epochs * epoch_steps:
            raise ValueError(f"steps is not epochs x epoch_steps ({epochs * epoch_steps}): leave out one of them")
        return {**raw, "steps": epochs * epoch_steps}

    @model_validator(mode="after")
    def _names_modalities(self) -> FitConfig:
        for field, names in (("modalities", self.modalities), ("features", self.features)):
            if wrong := unknown_modality(names):
                raise ValueError(f"{field}: {wrong}")
        for name in self.widths:
            if name not in self.modalities:
                raise ValueError(f"widths: {name} is not among the modalities, {', '.join(self.modalities)}")
            if name == SPECTRAL:
                raise ValueError(f"widths: {name} has none: only embeddings are projected")
        return self

    @model_validator(mode="after")
    def _can_learn(self) -> FitConfig:
        if any(count < 0 for count in self.batch.values()) or not any(
            self.batch.get(kind, 0) for kind in ("strong", "weak")
        ):
            raise ValueError("batch: strong or weak must be at least 1, or there is nothing to learn from")
        if self.median_cells % 2 == 0:
            raise ValueError("median_cells must be odd")
        if self.pseudo_low >= self.pseudo_high:
            raise ValueError("pseudo_low must be below pseudo_high")
        if (self.pseudo_frames or self.pseudo_clips) and not self.batch.get("unlabeled", 0):
            raise ValueError("pseudo_frames and pseudo_clips need unlabeled clips in `batch`")
        if self.distil_stored and self.distil_from:
            raise ValueError("distil_stored, distil_from: choose one of them")
        if self.form == "window":
            for field in STREAM_ONLY:
                if getattr(self, field) != FitConfig.model_fields[field].default:
                    raise ValueError(f"{field}: only the stream form has it: set `form: stream`, or leave it out")
        if self.form == "stream" and min(self.right_contexts) < self.ahead_cells:
            raise ValueError("right_contexts: none can be shorter than ahead_cells")
        if self.form == "stream" and 0 < self.judged_context < self.ahead_cells:
            raise ValueError("judged_context can't be shorter than ahead_cells")
        return self

    @property
    def pseudo(self) -> bool:
        """Whether unlabelled clips get labels from mn04_scores."""
        return self.pseudo_frames > 0 or self.pseudo_clips > 0

    @property
    def stream(self) -> StreamForm | None:
        """The stream form's settings; None: the window form."""
        return StreamForm(self.ahead_cells, self.release_db_s) if self.form == "stream" else None

    @property
    def dropouts(self) -> Dropout:
        """The network's dropout."""
        before = self.dropout if self.classifier_dropout is None else self.classifier_dropout
        return Dropout(self.dropout, self.embedding_dropout, before)


def unknown_modality(names: Iterable[str]) -> str | None:
    """What is wrong with the first name that is none of a modality; None if all are known."""
    unknown = next((name for name in names if name not in EXTRACTORS), None)
    return None if unknown is None else f"there is no modality {unknown!r}; there are {', '.join(EXTRACTORS)}"


C = TypeVar("C", bound=BaseModel)


def load(path: Path | None, schema: type[C], instead: Mapping[str, Any] | None = None) -> C:
    """Parse a YAML file, or the defaults if there is none; `instead` has fields that replace the file's.

    Raises:
        ConfigError: the file can't be read, is not YAML, or has an unknown field or an invalid value.

    """
    fields = {} if path is None else read_yaml(path)
    if instead and isinstance(fields, dict):
        fields = {**fields, **instead}
    return validated(fields, schema, [str(path or "the options")], see="configs/train for examples")


def read_yaml(path: Path) -> Any:
    """What is in a YAML file; {} if it is empty. Raises `ConfigError` if it can't be read, or is not YAML."""
    try:
        return yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None


def validated(fields: Any, schema: type[C], places: Sequence[str], see: str) -> C:
    """The configuration that `fields` are; `places` and `see`: where they stand, and what explains them.

    Raises:
        ConfigError: there is an unknown field or an invalid value.

    """
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        inside = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(": ".join([*places, *([inside] if inside else []), f"{what}; see {see}"])) from None
