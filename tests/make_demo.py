"""Makes the demo recording from recordings that may be redistributed and that no shipped model was trained on.

    python -m tests.make_demo RECORDINGS CORPUS OUT

RECORDINGS holds `manifest.tsv` (as for `earwitness-train corpus`), CORPUS the corpus that the shipped model was
trained on: a recording whose group is not in its test part is refused. OUT gets `demo.mp4` (H.264 and AAC),
`truth.tsv` and `ATTRIBUTION.md`. The scene was written down before the model was trained.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from streamer.replay.truth import LabelledEvent, strong_tsv
from train.data.recordings import RATE_HZ, Recording, active_spans, read_manifest, read_samples

SECONDS = 96
_SCENE = (  # onset_s, longest_s, loop, level_dbfs, recording
    (3.0, 6.0, False, -22, "foreground/Speech/librispeech__1998__a.flac"),
    (12.5, 5.0, False, -20, "foreground/Dog/esc10__155312.flac"),
    (20.5, 10.0, True, -26, "foreground/Running_water/kitchen20__318931.flac"),
    (24.5, 5.0, False, -20, "foreground/Dishes/kitchen20__K-couverts.m4a.flac"),
    (38.0, 3.0, False, -20, "foreground/Alarm_bell_ringing/marinara__b38e515f.flac"),
    (44.0, 8.0, True, -20, "foreground/Blender/kitchen20__440675__a.flac"),
    (53.5, 6.5, False, -20, "foreground/Speech/asterisk-core-sounds-ru__ru-voice__a.flac"),
    (62.0, 9.0, True, -24, "foreground/Frying/kitchen20__387968.flac"),
    (66.0, 5.0, False, -18, "foreground/Dog/esc10__192236.flac"),
    (74.5, 5.0, False, -20, "foreground/Dishes/kitchen20__J-assiettes4.aac.flac"),
    (82.0, 9.0, False, -22, "foreground/Speech/librispeech__1688__a.flac"),
    (87.0, 3.0, False, -20, "foreground/Alarm_bell_ringing/marinara__b38e515f.flac"),
)
_BACKGROUND = ("background/ambience/timgrau__aircon-0.flac", -48)
_GAP_S, _ACTIVE_DB, _SHORTEST_S = 0.5, 25.0, 0.25
_FPS, _WIDTH, _HEIGHT = 12, 320, 240


@dataclass(frozen=True, slots=True)
class _Scene:
    samples: NDArray[np.float32]
    events: list[LabelledEvent]
    used: list[Recording]


def main() -> None:
    source, corpus, out = (Path(argument) for argument in sys.argv[1:4])
    recordings = {str(one.path.relative_to(source)): one for one in read_manifest(source, ["ship"])}
    kept_apart = json.loads((corpus / "corpus.json").read_text())["groups"]["test"]
    for path in [row[-1] for row in _SCENE] + [_BACKGROUND[0]]:
        if recordings[path].group not in kept_apart[recordings[path].label]:
            sys.exit(f"{path}: its group is not in the corpus's test part, so a model may know it")
    scene = _mix(recordings)
    out.mkdir(parents=True, exist_ok=True)
    _encode(scene.samples, out / "demo.mp4")
    (out / "truth.tsv").write_text(strong_tsv({"demo.mp4": scene.events}))
    (out / "ATTRIBUTION.md").write_text(_attribution(scene.used))


def _mix(recordings: dict[str, Recording]) -> _Scene:
    length = SECONDS * RATE_HZ
    background = read_samples(recordings[_BACKGROUND[0]])
    mixture = _scaled(np.tile(background, -(-length // len(background)))[:length], _BACKGROUND[1])
    events: list[LabelledEvent] = []
    for onset_s, longest_s, loop, level_dbfs, path in _SCENE:
        samples = read_samples(recordings[path])
        if loop:
            start, stop = max(
                active_spans(samples, _ACTIVE_DB, _GAP_S, _SHORTEST_S), key=lambda part: part[1] - part[0]
            )
            samples = _looped(samples[start:stop], round(longest_s * RATE_HZ))
        samples = samples[: round(longest_s * RATE_HZ)]
        start = round(onset_s * RATE_HZ)
        mixture[start : start + len(samples)] += _scaled(samples, level_dbfs)
        label = path.split("/")[1]
        for first, stop in active_spans(samples, _ACTIVE_DB, _GAP_S, _SHORTEST_S):
            events.append(LabelledEvent(onset_s + first / RATE_HZ, onset_s + stop / RATE_HZ, label))
    used = [recordings[path] for path in dict.fromkeys([row[-1] for row in _SCENE] + [_BACKGROUND[0]])]
    return _Scene(np.clip(mixture, -1, 1).astype(np.float32), sorted(events, key=lambda one: one.onset_s), used)


def _scaled(samples: NDArray[np.float32], level_dbfs: float) -> NDArray[np.float32]:
    return samples * (10 ** (level_dbfs / 20) / float(np.sqrt(np.square(samples).mean())))


def _looped(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    fade = RATE_HZ // 5
    ramp = np.sqrt(np.linspace(0, 1, fade, dtype=np.float32))
    body = samples[fade:].copy()
    body[-fade:] = body[-fade:] * ramp[::-1] + samples[:fade] * ramp
    return np.tile(body, -(-length // len(body)))[:length]


def _encode(samples: NDArray[np.float32], path: Path) -> None:
    """A level meter over a scrolling waveform, and the sound."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=_FPS, options={"crf": "30", "preset": "slow"})
        video.width, video.height, video.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=44_100, layout="mono", bit_rate=96_000)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=44_100, frame_size=1024)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        for index in range(SECONDS * _FPS):
            picture = av.VideoFrame.from_ndarray(_picture(samples, index), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, _FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))


def _picture(samples: NDArray[np.float32], index: int) -> NDArray[np.uint8]:
    picture = np.full((_HEIGHT, _WIDTH, 3), (18, 24, 32), np.uint8)
    now, span = index * RATE_HZ // _FPS, 4 * RATE_HZ
    history = np.pad(samples, (span, 0))[now : now + span]
    levels = np.abs(history[: span // _WIDTH * _WIDTH]).reshape(_WIDTH, -1).max(axis=1)
    heights = np.clip((20 * np.log10(levels + 1e-4) + 60) / 60, 0, 1) * (_HEIGHT // 2 - 8)
    rows = np.abs(np.arange(_HEIGHT)[:, None] - _HEIGHT // 2)
    picture[rows < heights[None, :] + 1] = (64, 190, 150)
    return picture


def _attribution(used: list[Recording]) -> str:
    rows = [
        f"| {one.path.name} | {one.label} | {one.source} | {one.group} | {_credit(one.note)} | {one.licence} |"
        for one in used
    ]
    return "\n".join(
        [
            "# What the demo recording is made of",
            "",
            "`demo.mp4` mixes these recordings over one background, each scaled in level, some looped; the picture is",
            "drawn from the sound. No shipped model was trained on any recording of these groups. `truth.tsv` was",
            "measured from the recordings' energy before mixing. Thanks to all who recorded and shared them.",
            "",
            "| file | class | source repository | recording | by | licence |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _credit(note: str) -> str:
    return "; ".join(part.strip() for part in note.split(";") if " by " in part or part.strip().startswith("speaker"))


if __name__ == "__main__":
    main()
