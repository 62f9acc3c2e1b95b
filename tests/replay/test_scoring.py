from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sed_eval.audio_tag import AudioTaggingMetrics
from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics

from streamer.errors import TruthError
from streamer.replay.scoring import ClipPrediction, Counts, Report, evaluate
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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(events, events), min_size=1, max_size=4))
def test_scores_are_those_of_sed_eval_used_directly(
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

    for metric, kind in ((tagging, "clip"), (segment, "segment"), (event, "event")):
        wanted = metric.results_class_wise_metrics()
        for one in report.classes:
            counts: Counts = getattr(one, kind)
            assert counts.true == wanted[one.label]["count"]["Nref"]
            assert counts.found == wanted[one.label]["count"]["Nsys"]
            f1 = wanted[one.label]["f_measure"]["f_measure"]
            if counts.true and counts.found:
                assert counts.f1 == pytest.approx(f1)
            elif counts.true:
                assert counts.f1 == 0  # where sed_eval says nan and leaves the class out of its average
        if all(getattr(one, kind).true and getattr(one, kind).found for one in report.classes):
            average = metric.results_class_wise_average_metrics()["f_measure"]["f_measure"]
            assert getattr(report, f"{kind}_f1") == pytest.approx(average)


def test_a_class_that_was_never_found_counts_as_zero_and_one_that_is_not_there_does_not_count() -> None:
    cat, dog = LabelledEvent(1, 2, "Cat"), LabelledEvent(1, 2, "Dog")
    report = scored({"a.wav": [cat, dog]}, {"a.wav": [cat]})
    assert (report.clip_f1, report.segment_f1, report.event_f1) == (0.5, 0.5, 0.5)
    assert report.classes[2].event.f1 is None


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
    with pytest.raises(TruthError, match=r"truth\.tsv: does not speak of c\.wav"):
        scored({"a.wav": [dog]}, {"c.wav": [dog]})


def test_a_class_that_the_model_lacks_is_named_with_its_nearest() -> None:
    with pytest.raises(TruthError, match=r"class 'Dogs' of a\.wav is not one of the model's: .*did you mean Dog\?"):
        scored({"a.wav": [LabelledEvent(0, 1, "Dogs")]}, {"a.wav": []})


def test_a_weak_truth_scores_tags_alone() -> None:
    truth = Truth("weak.tsv", {}, {"a.wav": frozenset({"Cat", "Speech"}), "b.wav": frozenset()}, strong=False)
    predictions = {name: ClipPrediction((), frozenset({"Cat"})) for name in truth.tags}
    report = evaluate(truth, predictions, CLASSES, dict.fromkeys(truth.tags, 10.0))
    assert report.clip_f1 == pytest.approx((2 / 3 + 0) / 2)
    assert set(report.json()) == {"clips", "clip_f1", "classes"}


def test_the_table_has_a_row_a_class_with_its_number_and_the_means() -> None:
    cat = LabelledEvent(1, 2, "Cat")
    report = scored({"a.wav": [cat, cat]}, {"a.wav": [cat]})
    lines = report.table().splitlines()
    assert len(lines) == 2 + len(CLASSES) + 1
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["Cat", "1", "2", "100.00", "100.00", "66.67"]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["Dog", "0", "0", "–", "–", "–"]
    assert report.json()["classes"]["Cat"]["event"] == {"true": 2, "found": 1, "right": 1, "f1": pytest.approx(2 / 3)}


def test_a_thousand_clips_take_seconds() -> None:
    random = np.random.default_rng(0)

    def some() -> list[LabelledEvent]:
        return [LabelledEvent(float(at), float(at) + 1, CLASSES[random.integers(3)]) for at in random.uniform(0, 9, 3)]

    true, guess = {f"{i}.wav": some() for i in range(1000)}, {f"{i}.wav": some() for i in range(1000)}
    began = time.perf_counter()
    scored(true, guess)
    assert time.perf_counter() - began < 15
