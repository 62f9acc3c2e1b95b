"""The configuration of a corpus: YAML files such as `configs/train/corpus.yaml`. All defaults are here, except those of
video (`film/config.py`)."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from train.film.config import VideoConfig

Part = Literal["train", "weak", "unlabeled", "validation", "test"]
"""A part of a corpus's clips. Those of weak and unlabeled are mixed from the groups of recordings of train."""
GroupPart = Literal["train", "validation", "test"]
GROUP_PARTS: tuple[GroupPart, ...] = get_args(GroupPart)
"""The parts that groups of recordings are split into."""
CLASSES = (
    "Alarm_bell_ringing",
    "Blender",
    "Cat",
    "Dishes",
    "Dog",
    "Electric_shaver_toothbrush",
    "Frying",
    "Running_water",
    "Speech",
    "Vacuum_cleaner",
)
"""The ten classes of DCASE 2018 task 4, in its order."""


class CorpusConfig(BaseModel):
    """How `earwitness-train corpus` mixes recordings into clips."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, description="seed of all random choices; the same seed gives the same corpus")
    classes: tuple[str, ...] = Field(CLASSES, description="the foreground classes, in the order of the model's outputs")
    uses: tuple[str, ...] = Field(
        ("ship", "train"), description="`use` values of the manifest whose recordings are taken"
    )
    clips: dict[Part, int] = Field(
        {"train": 6000, "weak": 500, "unlabeled": 500, "validation": 400, "test": 500},
        description="number of clips in each part; train, weak and unlabeled share the training recordings",
    )
    validation_share: float = Field(0.12, gt=0, lt=0.5, description="share of each class's groups, at least one group")
    test_share: float = Field(0.18, gt=0, lt=0.5, description="share of each class's groups, at least one group")
    train_on_validation: bool = Field(
        False,
        description="mix the validation recordings into the training clips too: for a model's last phase, after the "
        "thresholds are tuned and nothing is left to select",
    )
    clip_s: float = Field(10.0, gt=1.0, description="length of a clip in seconds")
    events: dict[int, float] = Field(
        {0: 0.04, 1: 0.26, 2: 0.30, 3: 0.22, 4: 0.12, 5: 0.06},
        description="number of events in a clip -> its probability",
    )
    polyphony: int = Field(3, ge=1, description="maximum number of simultaneous events")
    peak_dbfs: tuple[float, float] = Field((-25.0, -3.0), description="range of a finished clip's peak")
    snr_db: tuple[float, float] = Field((5.0, 25.0), description="range of an event's level above the background")
    snr_train_db: tuple[float, float] = Field((0.0, 28.0), description="the same for training clips")
    distractors: dict[int, float] = Field(
        {0: 0.75, 1: 0.25},
        description="number of background sounds that are added like events but not labelled -> its probability",
    )
    extend: float = Field(
        0.3, ge=0, le=1, description="probability that a steady sound is looped to last longer than its recording"
    )
    event_s: tuple[float, float] = Field((0.25, 10.0), description="shortest and longest event in seconds")
    gap_s: float = Field(0.5, gt=0, description="a silence shorter than this does not end an event")
    active_db: float = Field(
        25.0, gt=0, description="a recording is active where its level is within this many dB of its loud parts"
    )
    speed: float = Field(
        0.12,
        ge=0,
        lt=0.5,
        description="training clips: recordings are played up to this share faster or slower",
    )
    room: float = Field(0.25, ge=0, le=1, description="training clips: probability that an event gets reverberation")
    video: VideoConfig | None = Field(
        None, description="what is seen; without it the clips are audio. `video: {}` takes all defaults"
    )
