"""The camera of a clip: its format, and what it does to a view: exposure, colour, blur, shake and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from streamer.media.writing import VideoFormat
from train.film.config import VideoConfig

MARGIN_PX = 16
"""How much more than its picture a camera sees on each side, so that it can shake."""
_SHAKE_STEP_PX = 0.25
"""A smaller movement is none, so that pictures of a quiet camera are equal."""
_DARK_NOISE = 2.0
"""A camera amplifies its noise in the dark; this keeps it visible after H.264."""


@dataclass(frozen=True, slots=True)
class Camera:
    """What is drawn once for a clip."""

    format: VideoFormat
    gain: float  # exposure, 1 is the photo's own
    drift: float  # greatest slow change of the gain
    drift_s: float  # its period
    white: tuple[float, float, float]  # gains of red, green and blue
    infrared: bool
    noise: float  # standard deviation, levels of 255
    blur_px: float
    shake_px: float
    dark_gain: float  # exposure after the light went out
    seed: int  # of noise and shake


def draw_camera(config: VideoConfig, rng: np.random.Generator) -> Camera:
    """A camera for one clip."""
    width, height = config.sizes[int(rng.integers(len(config.sizes)))]
    fps = config.fps[int(rng.integers(len(config.fps)))]
    keyframe_every = max(1, round(fps * rng.uniform(*config.keyframe_s)))
    crf = int(rng.integers(config.crf[0], config.crf[1] + 1))
    red, blue = rng.uniform(0.88, 1.12, 2)
    return Camera(
        format=VideoFormat(width, height, fps, keyframe_every, crf, config.preset),
        gain=float(rng.uniform(0.7, 1.15)),
        drift=float(rng.uniform(0, config.drift)),
        drift_s=float(rng.uniform(8, 40)),
        white=(float(red), 1.0, float(blue)),
        infrared=bool(rng.random() < config.infrared),
        noise=float(rng.uniform(*config.noise)),
        blur_px=float(rng.uniform(*config.blur_px)) if rng.random() < config.blurred else 0.0,
        shake_px=float(rng.uniform(*config.shake_px)) if rng.random() < config.shaky else 0.0,
        dark_gain=float(rng.uniform(0.0, 0.08)),
        seed=int(rng.integers(2**31)),
    )


class Sensor:
    """Takes the pictures of one camera, in their order. What has not changed is not computed again."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._rng = np.random.default_rng(camera.seed)
        side = 2 * max(camera.format.width, camera.format.height)
        grain = self._rng.standard_normal((side, side), np.float32)
        self._grain = {dark: self._noise_of(grain, dark=dark) for dark in (False, True)}
        self._shake = [(self._rng.uniform(0.3, 3.0), self._rng.uniform(0, 2 * np.pi)) for _ in range(4)]
        self._view: Image.Image | None = None
        self._how: tuple[tuple[float, float], float] | None = None
        self._exposed = np.zeros((0, 0, 3), np.int16)

    def take(self, view: Image.Image, at_s: float, *, dark: bool) -> NDArray[np.uint8]:
        """The picture at `at_s`, (height, width, 3) RGB.

        Args:
            view: what is in front of the camera, `MARGIN_PX` larger on each side. The same object: the same view.
            at_s: seconds from the beginning of the clip.
            dark: the light is out.

        """
        form = self._camera.format
        how = self._offset(at_s), self._gain(at_s, dark=dark)
        if view is not self._view or how != self._how:
            self._exposed = self._expose(self._framed(view, how[0]), how[1])
            self._view, self._how = view, how
        grain = self._grain[dark]
        top, left = (int(self._rng.integers(len(grain) - side + 1)) for side in (form.height, form.width))
        noisy = self._exposed + grain[top : top + form.height, left : left + form.width, None]
        return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)

    def _noise_of(self, grain: NDArray[np.float32], *, dark: bool) -> NDArray[np.int16]:
        strength = self._camera.noise * (_DARK_NOISE if dark else 1.0)
        return np.asarray(np.rint(strength * grain), np.int16)

    def _offset(self, at_s: float) -> tuple[float, float]:
        """Where the camera looks, in pixels from its middle: a sum of slow sines."""
        camera = self._camera
        if not camera.shake_px:
            return 0.0, 0.0
        waves = [np.sin(2 * np.pi * hz * at_s + phase) for hz, phase in self._shake]
        steps = (
            camera.shake_px / _SHAKE_STEP_PX / 1.5 * np.array([waves[0] + 0.5 * waves[1], waves[2] + 0.5 * waves[3]])
        )
        x, y = np.rint(steps) * _SHAKE_STEP_PX
        return float(x), float(y)

    def _gain(self, at_s: float, *, dark: bool) -> float:
        camera = self._camera
        drift = 1 + camera.drift * np.sin(2 * np.pi * at_s / camera.drift_s + camera.seed)
        return round(float(drift * (camera.dark_gain if dark else camera.gain)), 3)

    def _framed(self, view: Image.Image, offset: tuple[float, float]) -> Image.Image:
        form, (x, y) = self._camera.format, offset
        left, top = MARGIN_PX + x, MARGIN_PX + y
        if left.is_integer() and top.is_integer():
            picture = view.crop((int(left), int(top), int(left) + form.width, int(top) + form.height))
        else:
            box = (left, top, left + form.width, top + form.height)
            picture = view.resize((form.width, form.height), Image.Resampling.BILINEAR, box)
        if self._camera.blur_px:
            picture = picture.filter(ImageFilter.GaussianBlur(self._camera.blur_px))
        return picture

    def _expose(self, picture: Image.Image, gain: float) -> NDArray[np.int16]:
        if self._camera.infrared:
            picture = picture.convert("L").convert("RGB")
        levels = np.arange(256)
        white = (1.0, 1.0, 1.0) if self._camera.infrared else self._camera.white
        tables = [np.clip(levels * gain * one, 0, 255) for one in white]
        exposed = picture.point(np.rint(np.concatenate(tables)).astype(int).tolist())
        return np.asarray(exposed, np.int16)
