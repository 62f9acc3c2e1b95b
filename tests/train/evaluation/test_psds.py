"""PSDS are those of sed_scores_eval for files that are written here, without our code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from streamer.decoding import ClassDecoding, Decoding
from streamer.replay.truth import LabelledEvent, Truth
from train.evaluation.bootstrap import Groups, drawn
from train.evaluation.psds import SCENARIOS, Psds, psds
from train.evaluation.stored import ClipPosteriors

CLASSES = ("Cat", "Dog", "<script>")
MEDIANS = (1, 3, 7)
DECODING = Decoding(CLASSES, tuple(ClassDecoding(0.5, 0.4, median) for median in MEDIANS))
CELL_S = 1464 / 22100


def truth_of(events: dict[str, list[LabelledEvent]]) -> Truth:
    return Truth(
        "truth", {name: tuple(row) for name, row in events.items()},
        {name: frozenset(one.label for one in row) for name, row in events.items()}, strong=True,
    )  # fmt: skip


def case(seed: int, clips: int = 3, cells: int = 40) -> tuple[list[ClipPosteriors], Truth]:
    """Posteriors that follow the events more or less, and events of some classes that do not overlap."""
    rng = np.random.default_rng(seed)
    made: list[ClipPosteriors] = []
    events: dict[str, list[LabelledEvent]] = {}
    classes = CLASSES[: int(rng.integers(2, 4))]
    for number in range(clips):
        name = f"clip {number}.wav"
        length = int(rng.integers(cells // 2, cells))
        rows = rng.beta(1, 4, (length, len(CLASSES))).astype(np.float32)
        events[name] = []
        for column, label in enumerate(classes):
            edges = np.sort(rng.choice(length, 4, replace=False))
            for first, last in edges.reshape(2, 2)[: rng.integers(0, 3)]:
                events[name].append(LabelledEvent(round(first * CELL_S, 3), round(last * CELL_S, 3), label))
                rows[first:last, column] += 0.9 * (rng.random() < 0.85) * rng.beta(8, 2, last - first)
        made.append(ClipPosteriors(name, np.clip(rows.round(3), 0, 1), rows.max(axis=0)))
    return made, truth_of(events)


def by_hand(folder: Path, clips: list[ClipPosteriors], truth: Truth) -> tuple[float, float]:
    """Both scores, from files as sed_scores_eval reads them."""
    from sed_scores_eval import intersection_based as library

    (folder / "scores").mkdir(parents=True, exist_ok=True)
    used = [label for label in CLASSES if any(one.label == label for row in truth.events.values() for one in row)]
    safe = {label: f"c{CLASSES.index(label)}" for label in CLASSES}
    rows, durations = ["filename\tonset\toffset\tevent_label"], ["filename\tduration"]
    for clip in clips:
        key = clip.name.removesuffix(".wav")
        smooth = [
            median_filter(clip.cells[:, CLASSES.index(label)], MEDIANS[CLASSES.index(label)], mode="constant")
            for label in used
        ]
        lines = ["\t".join(["onset", "offset", *(safe[label] for label in used)])]
        for cell in range(len(clip.cells)):
            values = [cell * 1464 / 22100, (cell + 1) * 1464 / 22100, *(float(one[cell]) for one in smooth)]
            lines.append("\t".join(map(repr, values)))
        (folder / "scores" / f"{key}.tsv").write_text("\n".join(lines) + "\n")
        durations.append(f"{clip.name}\t{len(clip.cells) * 1464 / 22100!r}")
        rows += [f"{clip.name}\t{one.onset_s}\t{one.offset_s}\t{safe[one.label]}" for one in truth.events[clip.name]]
        rows += [f"{clip.name}\t\t\t"] * (not truth.events[clip.name])
    (folder / "truth.tsv").write_text("\n".join(rows) + "\n")
    (folder / "durations.tsv").write_text("\n".join(durations) + "\n")
    files = {
        "scores": str(folder / "scores"),
        "ground_truth": str(folder / "truth.tsv"),
        "audio_durations": str(folder / "durations.tsv"),
    }
    one = library.psds(**files, dtc_threshold=0.7, gtc_threshold=0.7, alpha_st=1, max_efpr=100)
    two = library.psds(
        **files, dtc_threshold=0.1, gtc_threshold=0.1, cttc_threshold=0.3, alpha_ct=0.5, alpha_st=1, max_efpr=100
    )
    return float(one[0]), float(two[0])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1))
def test_scores_are_those_of_sed_scores_eval_for_files_of_the_same_posteriors(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    clips, truth = case(seed)
    found = psds(clips, truth, DECODING, Groups.each_its_own(len(clips)))
    if len({one.label for row in truth.events.values() for one in row}) < 2:
        return
    wanted = by_hand(tmp_path_factory.mktemp("files"), clips, truth)
    assert [float(one.score.value) for one in found] == pytest.approx(wanted, abs=1e-9)


def test_events_of_one_class_that_overlap_or_touch_are_one_event() -> None:
    clips, _ = case(3)
    name = clips[0].name
    nothing: dict[str, list[LabelledEvent]] = {clip.name: [] for clip in clips}
    apart = nothing | {
        name: [LabelledEvent(0.2, 0.6, "Cat"), LabelledEvent(0.5, 0.9, "Cat"), LabelledEvent(0.9, 1.2, "Cat")]
    }
    joined = nothing | {name: [LabelledEvent(0.2, 1.2, "Cat")]}
    groups = Groups.each_its_own(len(clips))
    one, other = (psds(clips, truth_of(events), DECODING, groups) for events in (apart, joined))
    assert [float(row.score.value) for row in one] == [float(row.score.value) for row in other]


def test_a_clip_of_which_nothing_was_heard_counts_as_missed() -> None:
    clips, truth = case(5, clips=4)
    silent = [ClipPosteriors(clips[0].name, np.zeros((0, 3), np.float32), np.zeros(3, np.float32)), *clips[1:]]
    groups = Groups.each_its_own(len(clips))
    heard, unheard = psds(clips, truth, DECODING, groups), psds(silent, truth, DECODING, groups)
    assert float(unheard[1].score.value) < float(heard[1].score.value)


@pytest.mark.parametrize("crossed", [False, True])
def test_each_draw_is_the_score_of_the_drawn_clips(crossed: bool) -> None:
    clips, truth = case(11, clips=30)
    count = len(clips)
    groups = Groups.each_its_own(count)
    if crossed:  # the same draws, as weights of each class in each clip
        groups = Groups(groups.names, (np.broadcast_to(groups.factors[0][:, None], (count, 3, 1)),))
    found = psds(clips, truth, DECODING, groups, draws=12)
    weights = drawn(lambda given: given, Groups.each_its_own(count), draws=12).draws.astype(int)
    for index, row in enumerate(weights):
        taken = [
            ClipPosteriors(f"{copy} {clip.name}", clip.cells, clip.clip)
            for clip, times in zip(clips, row, strict=True)
            for copy in range(times)
        ]
        again = truth_of({one.name: list(truth.events[one.name.partition(" ")[2]]) for one in taken})
        wanted = psds(taken, again, DECODING, Groups.each_its_own(len(taken)))
        for scenario, want in zip(found, wanted, strict=True):
            assert scenario.score.draws[index] == pytest.approx(float(want.score.value), abs=0.01)


def test_curves_rise_to_the_last_rate_and_their_area_is_the_score() -> None:
    clips, truth = case(11, clips=30)
    for one in psds(clips, truth, DECODING, Groups.each_its_own(len(clips))):
        rates, found = np.array(one.curve.false_per_hour), np.array(one.curve.found)
        assert rates[-1] == 100
        assert (np.diff(rates) >= 0).all()
        assert (np.diff(rates) * found[:-1]).sum() / 100 == pytest.approx(float(one.score.value))
        assert set(one.classes) <= set(CLASSES)


def scenario(found: tuple[Psds, ...], name: str) -> Psds:
    return next(one for one in found if one.scenario.name == name)


def test_late_offsets_cost_in_the_first_scenario_alone() -> None:
    cells = np.zeros((100, 3), np.float32)
    cells[20:60, 0] = 0.9
    clips = [ClipPosteriors("a", cells, cells.max(axis=0))]
    exact = truth_of({"a": [LabelledEvent(20 * CELL_S, 60 * CELL_S, "Cat")]})
    short = truth_of({"a": [LabelledEvent(20 * CELL_S, 40 * CELL_S, "Cat")]})
    groups = Groups.each_its_own(1)
    assert [float(one.score.value) for one in psds(clips, exact, DECODING, groups)] == [1, 1]
    found = psds(clips, short, DECODING, groups)
    assert float(scenario(found, "PSDS 1").score.value) == 0
    assert float(scenario(found, "PSDS 2").score.value) == 1
    assert psds(clips, truth_of({"a": []}), DECODING, groups) == ()
    assert [one.name for one in SCENARIOS] == ["PSDS 1", "PSDS 2"]
