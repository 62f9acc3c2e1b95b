"""The configuration of `earwitness-train teach`: YAML, parsed once. All defaults are here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TeachConfig(BaseModel):
    """How `earwitness-train teach` trains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    steps: int = Field(2000, ge=1, description="optimiser steps")
    batch: int = Field(24, ge=2, description="clips in a batch, all with strong labels")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the new layers")
    trunk_learning_rate: float = Field(4e-4, gt=0, description="highest learning rate of mn04's own layers")
    warmup_steps: int = Field(100, ge=0, description="number of first steps in which the learning rates rise linearly")
    anneal_share: float = Field(
        0.3, gt=0, le=1, description="share of the steps, the last ones, in which the learning rates fall linearly to 0"
    )
    weight_decay: float = Field(1e-3, ge=0, description="AdamW's")
    clip_gradient: float = Field(2.0, gt=0, description="highest norm of the gradient")
    dropout: float = Field(0.3, ge=0, lt=1, description="on the projected maps, between and after the GRU's layers")
    ema: float = Field(
        0.995,
        gt=0,
        lt=1,
        description="share that the mean of the weights keeps per step, or 1 - 1 / (step + 1) if less",
    )
    mixup: float = Field(0.4, ge=0, le=1, description="probability that another clip is mixed into a clip")
    filter_db: float = Field(9.0, ge=0, description="random equaliser, up to this many dB up or down")
    gain_db: float = Field(
        8.0, ge=0, description="random gain of a clip, and level of the one mixed in, up to so many dB up or down"
    )
    mask_mels: int = Field(23, ge=0, le=128, description="maximum number of adjacent mel bins to mask in a clip")
    mask_frames: int = Field(69, ge=0, description="maximum number of adjacent frames of 10 ms to mask in a clip")
    clip_cost: float = Field(0.3, ge=0, description="weight of the clip-level cost beside the cell-level one")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints to resume from")
    threads: int = Field(1, ge=0, description="torch threads; 0: torch chooses")
