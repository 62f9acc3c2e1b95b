"""The `video` section of a corpus's configuration: what is seen in its clips. All defaults are here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Range = tuple[float, float]


class VideoConfig(BaseModel):
    """How `earwitness-train corpus` films what is heard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    leave_out: tuple[str, ...] = Field(
        ("EDITED", "LABEL DOUBT"),
        description="pictures whose `note` in the manifest contains one of these texts are left out",
    )
    wrong: float = Field(
        0.08,
        ge=0,
        le=1,
        description="share of the classes heard in a clip while the picture of another class is seen; drawn for each "
        "class in a clip, so that its events are all seen alike",
    )
    unseen: float = Field(
        0.2, ge=0, le=1, description="share of the classes heard in a clip that are out of the camera's view"
    )
    silent: float = Field(
        0.15, ge=0, le=1, description="share of clips in which a class is seen at some time, but never heard"
    )
    unrelated: dict[int, float] = Field(
        {0: 0.4, 1: 0.4, 2: 0.2},
        description="number of unrelated pictures in a clip that come and go as an event's do, at any time -> its "
        "probability; without them, any new picture would be the sign of an event",
    )
    dark: float = Field(0.06, ge=0, le=1, description="share of clips that are dark, from the beginning or later on")
    frozen: float = Field(
        0.05, ge=0, le=1, description="share of clips whose picture freezes, at the beginning or later on"
    )
    missing: float = Field(0.05, ge=0, le=1, description="share of clips without a video track")
    lead_s: Range = Field(
        (-0.3, 2.0), description="how long before its onset an event's picture appears; negative: after it"
    )
    linger_s: Range = Field(
        (-0.3, 2.0), description="how long after its offset an event's picture disappears; negative: before it"
    )
    always: float = Field(0.15, ge=0, le=1, description="share of the events that are seen during the whole clip")
    full: float = Field(
        0.5, ge=0, le=1, description="share of the events' pictures that fill the view; others cover a part of it"
    )
    cut: float = Field(0.2, ge=0, le=1, description="share of clips in which the view changes to another background")
    rooms: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of backgrounds that are drawn rooms, no two alike; the others are unrelated pictures",
    )
    still: float = Field(
        0.6, ge=0, le=1, description="share of pictures that neither move nor zoom while they are seen"
    )
    fps: tuple[int, ...] = Field(
        (5, 8, 10, 12, 15, 20, 25), min_length=1, description="pictures a second; one is drawn for each clip"
    )
    sizes: tuple[tuple[int, int], ...] = Field(
        ((320, 240), (352, 288), (426, 240), (320, 320)),
        min_length=1,
        description="width and height in pixels, even; one is drawn for each clip",
    )
    noise: Range = Field((0.2, 2.0), description="range of the sensor noise's standard deviation, in levels of 255")
    drift: float = Field(0.06, ge=0, lt=1, description="greatest slow change of the exposure")
    shaky: float = Field(0.2, ge=0, le=1, description="share of cameras that shake a little")
    shake_px: Range = Field((0.3, 2.0), description="range of a shaky camera's amplitude in pixels")
    blurred: float = Field(0.3, ge=0, le=1, description="share of cameras that are out of focus")
    blur_px: Range = Field((0.4, 1.5), description="range of their blur's radius in pixels")
    infrared: float = Field(0.15, ge=0, le=1, description="share of cameras that show grey pictures, as at night")
    crf: tuple[int, int] = Field((21, 29), description="range of x264's constant rate factor; higher is coarser")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"] = Field(
        "ultrafast", description="x264's speed"
    )
    keyframe_s: Range = Field((1.0, 4.0), description="range of the time between keyframes")
    audio_kbps: int = Field(64, ge=16, le=320, description="bit rate of the AAC sound")

    @model_validator(mode="after")
    def _can_be_filmed(self) -> VideoConfig:
        if self.dark + self.frozen + self.missing > 1:
            raise ValueError("dark, frozen and missing are shares of all clips: together they can't exceed 1")
        if self.wrong + self.unseen > 1:
            raise ValueError("wrong and unseen are shares of the classes that are heard: together they can't exceed 1")
        for name in ("lead_s", "linger_s", "noise", "shake_px", "blur_px", "crf", "keyframe_s"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first value is above the second")
        for name in ("noise", "shake_px", "blur_px", "crf", "keyframe_s"):
            if getattr(self, name)[0] < 0:
                raise ValueError(f"{name}: must not be negative")
        if self.crf[1] > 51:
            raise ValueError("crf: x264 knows 0 to 51")
        if self.shake_px[1] > 16:
            raise ValueError("shake_px: at most 16")
        if any(not 1 <= one <= 60 for one in self.fps):
            raise ValueError("fps: each must be from 1 to 60")
        if any(side % 2 or not 64 <= side <= 1920 for size in self.sizes for side in size):
            raise ValueError("sizes: each side must be even, from 64 to 1920")
        if not self.unrelated or min(self.unrelated) < 0 or min(self.unrelated.values()) < 0:
            raise ValueError("unrelated: numbers and probabilities can't be negative, and there must be one")
        if not sum(self.unrelated.values()):
            raise ValueError("unrelated: one probability must be above 0")
        return self
