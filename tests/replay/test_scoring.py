from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sed_eval.audio_tag import AudioTaggingMetrics
from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics

from streamer.errors import TruthError
from streamer.replay.scoring import ClipPrediction, Counts, Kind, Report, evaluate
from streamer.replay.truth import LabelledEvent, Truth

CLASSES = ("Cat", "Dog", "Speech")


def truth_of(events: dict[str, list[LabelledEvent]]) -> Truth:
    return Truth(
        source="truth.tsv",
        events={name: tuple(row) for name, row in events.items()},
        tags={name: frozenset(one.label for one in row) for name, row in events.items()},
        strong=True,
    )


def found(events: list[LabelledEvent]) -> ClipPrediction:
    return ClipPrediction(tuple(events), frozenset(one.label for one in events))


def scored(true: dict[str, list[LabelledEvent]], guess: dict[str, list[LabelledEvent]]) -> Report:
    predictions = {name: found(row) for name, row in guess.items()}
    return evaluate(truth_of(true), predictions, CLASSES, dict.fromkeys(guess, 10.0))


def items(events: list[LabelledEvent]) -> list[dict[str, object]]:
    return [
        {"filename": "x", "event_onset": e.onset_s, "event_offset": e.offset_s, "event_label": e.label} for e in events
    ]


events = st.lists(
    st.tuples(st.integers(0, 90), st.integers(1, 40), st.sampled_from(CLASSES)).map(
        lambda drawn: LabelledEvent(drawn[0] / 10, (drawn[0] + drawn[1]) / 10, drawn[2])
    ),
    max_size=5,
)


def jittered(row: list[LabelledEvent], shifts: list[int]) -> list[LabelledEvent]:
    """The same events, some within the collars and some outside: drawn apart, hardly one would be right."""
    return [
        LabelledEvent(max(0.0, one.onset_s + shift / 20), one.offset_s + shift / 20, one.label)
        for one, shift in zip(row, shifts, strict=False)
    ]


pairs = st.tuples(events, events) | st.tuples(events, st.lists(st.integers(-8, 8), max_size=5)).map(
    lambda drawn: (drawn[0], jittered(drawn[0], drawn[1]))
)


@settings(max_examples=200)
@given(st.lists(pairs, min_size=1, max_size=4))
def test_counts_micro_and_macro_are_those_of_sed_eval_used_directly(
    clips: list[tuple[list[LabelledEvent], list[LabelledEvent]]],
) -> None:
    true = {f"clip{index}.wav": pair[0] for index, pair in enumerate(clips)}
    guess = {f"clip{index}.wav": pair[1] for index, pair in enumerate(clips)}
    report = scored(true, guess)

    tagging = AudioTaggingMetrics(tags=list(CLASSES))
    segment = SegmentBasedMetrics(event_label_list=list(CLASSES), time_resolution=1.0)
    event = EventBasedMetrics(event_label_list=list(CLASSES), t_collar=0.2, percentage_of_length=0.2)
    tagging.evaluate(
        [{"filename": name, "tags": sorted({e.label for e in row})} for name, row in true.items()],
        [{"filename": name, "tags": sorted({e.label for e in row})} for name, row in guess.items()],
    )
    for name in true:
        segment.evaluate(items(true[name]), items(guess[name]), evaluated_length_seconds=10.0)
        event.evaluate(items(true[name]), items(guess[name]))

    metrics: tuple[tuple[Kind, Any], ...] = (("clip", tagging), ("segment", segment), ("event", event))
    for kind, metric in metrics:
        wanted = metric.results_class_wise_metrics()
        macro = []
        for one in report.classes:
            counts = one.counts(kind)
            assert counts.true == wanted[one.label]["count"]["Nref"]
            assert counts.found == wanted[one.label]["count"]["Nsys"]
            f1 = wanted[one.label]["f_measure"]["f_measure"]
            if counts.true and counts.found:
                assert counts.f1 == pytest.approx(f1, abs=1e-9)
                macro.append(f1)
            elif counts.true:
                assert math.isnan(f1)
                assert counts.f1 == 0
                macro.append(0.0)  # where sed_eval leaves the class out of its mean
        found = report.macro_f1(kind)
        assert found is None if not macro else found == pytest.approx(sum(macro) / len(macro), abs=1e-9)
        if all(one.counts(kind).true and one.counts(kind).found for one in report.classes):
            average = metric.results_class_wise_average_metrics()["f_measure"]["f_measure"]
            assert found == pytest.approx(average, abs=1e-9)
        overall = metric.results_overall_metrics()["f_measure"]
        micro = overall["f_measure"] if isinstance(overall, dict) else overall
        total = report.total(kind)
        if total.true and total.found:
            assert report.micro_f1(kind) == pytest.approx(micro, abs=1e-9)
        elif total.true or total.found:
            assert report.micro_f1(kind) == 0  # sed_eval says 0 or nan, by which of the two is missing
        else:
            assert report.micro_f1(kind) is None


def test_a_class_that_was_never_found_counts_as_zero_and_one_that_is_not_there_does_not_count() -> None:
    cat, dog = LabelledEvent(1, 2, "Cat"), LabelledEvent(1, 2, "Dog")
    report = scored({"a.wav": [cat, dog]}, {"a.wav": [cat]})
    assert (report.clip_f1, report.segment_f1, report.event_f1) == (0.5, 0.5, 0.5)
    assert report.classes[2].event.f1 is None
    assert report.micro_f1("event") == pytest.approx(2 / 3)
    assert report.paper() == "clip micro 66.67, segment micro 66.67, event macro 50.00"


def test_false_alarms_of_a_class_that_is_not_there_count_in_the_micro_figure_alone() -> None:
    cat, dog = LabelledEvent(1, 2, "Cat"), LabelledEvent(1, 2, "Dog")
    report = scored({"a.wav": [cat]}, {"a.wav": [cat, dog]})
    assert report.macro_f1("event") == 1
    assert report.micro_f1("event") == pytest.approx(2 / 3)


def test_where_nothing_is_there_and_nothing_found_there_is_no_score() -> None:
    report = scored({"a.wav": []}, {"a.wav": []})
    assert (report.micro_f1("clip"), report.macro_f1("clip"), report.clip_f1) == (None, None, 0.0)
    assert report.json()["event_f1_micro"] is None


def test_collars_are_200_ms_and_a_fifth_of_the_event() -> None:
    true = {"a.wav": [LabelledEvent(1.0, 6.0, "Dog")]}
    assert scored(true, {"a.wav": [LabelledEvent(1.19, 6.99, "Dog")]}).event_f1 == 1
    assert scored(true, {"a.wav": [LabelledEvent(1.21, 6.0, "Dog")]}).event_f1 == 0
    assert scored(true, {"a.wav": [LabelledEvent(1.0, 7.01, "Dog")]}).event_f1 == 0


def test_false_alarms_in_a_clip_without_events_count() -> None:
    dog = LabelledEvent(1.0, 2.0, "Dog")
    report = scored({"a.wav": [dog], "empty.wav": []}, {"a.wav": [dog], "empty.wav": [dog]})
    assert report.event_f1 == pytest.approx(2 / 3)
    assert report.clip_f1 == pytest.approx(2 / 3)
    assert report.clips == 2


def test_codec_padding_makes_no_segment_and_truth_beyond_the_media_none_either() -> None:
    truth = truth_of({"a.wav": [LabelledEvent(9.0, 12.0, "Dog")]})
    report = evaluate(truth, {"a.wav": found([LabelledEvent(9.0, 10.06, "Dog")])}, CLASSES, {"a.wav": 10.06})
    assert report.classes[1].segment == Counts(true=1, found=1, right=1)


def test_only_predicted_clips_are_scored_and_unknown_ones_refused() -> None:
    dog = LabelledEvent(1.0, 2.0, "Dog")
    assert scored({"a.wav": [dog], "b.wav": [dog]}, {"a.wav": [dog]}).event_f1 == 1
    with pytest.raises(TruthError, match=r"truth\.tsv: does not have c\.wav"):
        scored({"a.wav": [dog]}, {"c.wav": [dog]})


def test_a_class_that_the_model_lacks_is_named_with_its_nearest() -> None:
    with pytest.raises(TruthError, match=r"class 'Dogs' of a\.wav is not one of the model's: .*did you mean Dog\?"):
        scored({"a.wav": [LabelledEvent(0, 1, "Dogs")]}, {"a.wav": []})


def test_a_weak_truth_scores_tags_alone() -> None:
    truth = Truth("weak.tsv", {}, {"a.wav": frozenset({"Cat", "Speech"}), "b.wav": frozenset()}, strong=False)
    predictions = {name: ClipPrediction((), frozenset({"Cat"})) for name in truth.tags}
    report = evaluate(truth, predictions, CLASSES, dict.fromkeys(truth.tags, 10.0))
    assert report.clip_f1 == pytest.approx((2 / 3 + 0) / 2)
    assert set(report.json()) - {"annotated", "subset_sha256"} == {
        "clips",
        "clip_f1",
        "clip_f1_micro",
        "clip_f1_macro",
        "classes",
    }


def test_the_table_has_a_row_a_class_with_its_number_and_the_means() -> None:
    cat = LabelledEvent(1, 2, "Cat")
    report = scored({"a.wav": [cat, cat]}, {"a.wav": [cat]})
    lines = report.table().splitlines()
    assert len(lines) == 2 + len(CLASSES) + 2
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["Cat", "1", "2", "100.00", "100.00", "66.67"]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["Dog", "0", "0", "–", "–", "–"]
    assert [cell.strip() for cell in lines[-2].split("|")[1:-1]] == ["**micro**", "1", "2", "100.00", "100.00", "66.67"]
    assert [cell.strip() for cell in lines[-1].split("|")[1:-1]] == ["**macro**", "1", "2", "100.00", "100.00", "66.67"]
    assert report.json()["classes"]["Cat"]["event"] == {"true": 2, "found": 1, "right": 1, "f1": pytest.approx(2 / 3)}


def test_a_thousand_clips_take_seconds() -> None:
    random = np.random.default_rng(0)

    def some() -> list[LabelledEvent]:
        return [LabelledEvent(float(at), float(at) + 1, CLASSES[random.integers(3)]) for at in random.uniform(0, 9, 3)]

    true, guess = {f"{i}.wav": some() for i in range(1000)}, {f"{i}.wav": some() for i in range(1000)}
    began = time.perf_counter()
    scored(true, guess)
    assert time.perf_counter() - began < 15
