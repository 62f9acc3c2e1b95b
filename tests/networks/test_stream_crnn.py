"""The stream form computes the same scores for a whole clip and for any pieces of it, and forgets."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamer.networks.context_gru import Context, Span, spans
from streamer.networks.crnn import Dropout
from streamer.networks.stream_crnn import StreamCrnn, StreamForm, StreamState, sizes_of
from streamer.networks.stream_inputs import RunningSpectralInput

SHAPES: dict[str, tuple[int, ...]] = {"spectral": (4, 128), "vggish": (128,), "vgg16": (40,)}
SETS: tuple[tuple[str, ...], ...] = (
    ("spectral",),
    ("spectral", "vggish"),
    ("vgg16", "spectral", "vggish"),
    ("vggish", "vgg16"),
)
SMALL = (4, 6, 8, 8, 8, 8, 8)
TOLERANCE = 1e-5


def network(modalities: tuple[str, ...], ahead_cells: int = 2, seed: int = 0) -> StreamCrnn:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = StreamCrnn(
            {name: SHAPES[name] for name in modalities}, 3, form=StreamForm(ahead_cells), filters=SMALL, gru_size=24
        )
        for name, tensor in made.state_dict().items():
            if name.endswith(("running_mean", "spectral_input.mean")):
                tensor.uniform_(-1, 1)
            if name.endswith(("running_var", "spectral_input.std")):
                tensor.uniform_(0.5, 2)
        made.classify.weight.data *= 8  # untrained outputs hardly move
    return made.eval().requires_grad_(False)


NETWORKS: dict[tuple[tuple[str, ...], int], StreamCrnn] = {
    (modalities, ahead): network(modalities, ahead) for modalities in SETS for ahead in (0, 2, 5)
}


def cells_of(
    modalities: tuple[str, ...], clips: int, cells: int, seed: int, invalid: float = 0.1
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    random = np.random.default_rng(seed)
    features, valid = {}, {}
    for name in modalities:
        levels = 10.0 ** random.uniform(-4, 2, (clips, cells, *(1 for _ in SHAPES[name])))
        values = np.abs(random.normal(size=(clips, cells, *SHAPES[name]))) * levels
        there = random.random((clips, cells)) >= invalid
        values[~there] = 0
        features[name] = torch.from_numpy(values.astype(np.float32))
        valid[name] = torch.from_numpy(there)
    return features, valid


def decide(state: StreamState, count: int) -> None:
    """The first `count` cells that are not decided become so."""
    if count:
        state.hidden[:, 1] = state.context[:, count - 1, -state.hidden.shape[2] :]
    state.context, state.covered = state.context[:, count:], state.covered[:, count:]


def streamed(
    made: StreamCrnn, features: dict[str, Tensor], valid: dict[str, Tensor], cuts: list[int], lookahead: int = 10_000
) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """The posteriors that each step gives, and the cells that they are of."""
    cells = next(iter(valid.values())).shape[1]
    edges = [0, *sorted({min(cut, cells) for cut in cuts}), cells]
    state = made.begin(features)
    given, of, known, decided = [], [], 0, 0
    for start, stop in pairwise(edges):
        piece = {name: values[:, start:stop] for name, values in features.items()}
        flags = {name: values[:, start:stop] for name, values in valid.items()}
        before = state.context.shape[1]
        posteriors, _, state = made.step(piece, flags, state, last=stop == cells and stop == edges[-1])
        known += state.context.shape[1] - before
        posteriors = posteriors[:, : state.context.shape[1]]  # without waiting cells
        given.append(posteriors)
        of.append((known - posteriors.shape[1], known))
        count = max(stop - lookahead - decided, 0)
        decide(state, count)
        decided += count
    return given, of


modalities_and_ahead = st.sampled_from(sorted(NETWORKS))
cuts = st.lists(st.integers(0, 70), max_size=40)


@settings(max_examples=60, deadline=None)
@given(modalities_and_ahead, st.integers(1, 70), cuts, st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_a_clip_in_any_pieces_has_the_scores_of_the_whole(
    which: tuple[tuple[str, ...], int], cells: int, cuts: list[int], seed: int, clips: int
) -> None:
    made = NETWORKS[which]
    features, valid = cells_of(which[0], clips, cells, seed)
    whole = made(features, valid).cells
    given, of = streamed(made, features, valid, [cut for cut in cuts if cut < cells])
    assert of[-1] == (0, cells)
    assert float((given[-1] - whole).abs().max()) <= TOLERANCE


@settings(max_examples=60, deadline=None)
@given(modalities_and_ahead, st.integers(1, 70), st.integers(1, 9), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_cells_that_are_decided_on_the_way_have_the_scores_of_their_context(
    which: tuple[tuple[str, ...], int], cells: int, hop: int, more: int, seed: int
) -> None:
    made = NETWORKS[which]
    context = Context(made.ahead_cells + more, hop)
    features, valid = cells_of(which[0], 2, cells, seed)
    made.context = context
    try:
        whole = made(features, valid).cells
    finally:
        made.context = None
    stops = list(range(hop, cells, hop))
    given, of = streamed(made, features, valid, stops, context.lookahead_cells)
    decided = 0
    for index, (posteriors, (start, stop)) in enumerate(zip(given, of, strict=True)):
        end = cells if index == len(given) - 1 else max(stops[index] - context.lookahead_cells, decided)
        if end > decided:
            assert stop >= end
            part = posteriors[:, decided - start : end - start]
            assert float((part - whole[:, decided:end]).abs().max()) <= TOLERANCE
            decided = end
    assert decided == cells


@settings(max_examples=30, deadline=None)
@given(modalities_and_ahead, st.integers(2, 60), st.integers(1, 59), st.integers(0, 2**32 - 1))
def test_waiting_cells_have_the_scores_that_they_would_have_if_no_more_came(
    which: tuple[tuple[str, ...], int], cells: int, cut: int, seed: int
) -> None:
    made, cut = NETWORKS[which], min(cut, cells - 1)
    features, valid = cells_of(which[0], 2, cells, seed)
    pieces = [
        ({name: one[:, part] for name, one in features.items()}, {name: one[:, part] for name, one in valid.items()})
        for part in (slice(0, cut), slice(cut, cells))
    ]
    _, _, state = made.step(*pieces[0], made.begin(features), last=False)
    given, _, after = made.step(*pieces[1], state, last=False)
    ended, _, _ = made.step(*pieces[1], state, last=True)
    known = after.context.shape[1]
    assert given.shape[1] in ((known + after.waiting.shape[1],) if known else (0,))
    assert given.shape[1] == 0 or float((given - ended[:, : given.shape[1]]).abs().max()) <= TOLERANCE


def test_every_cell_has_at_least_its_lookahead() -> None:
    assert spans(20, Context(5, 4), 2) == [Span(0, 3, 6), Span(3, 7, 10), Span(7, 11, 14), Span(11, 20, 20)]
    assert spans(20, None, 2) == [Span(0, 20, 20)]
    assert spans(3, Context(5, 4), 2) == [Span(0, 3, 3)]


@pytest.mark.parametrize("ahead", [0, 2, 5])
def test_a_cell_depends_on_its_lookahead_and_no_further(ahead: int) -> None:
    made = NETWORKS[("spectral", "vggish"), ahead]
    features, valid = cells_of(("spectral", "vggish"), 1, 60, 3, invalid=0.0)
    changed = {name: values.clone() for name, values in features.items()}
    changed["spectral"][:, 41:] *= 3
    changed["vggish"][:, 41:] += 1
    made.context = Context(7)
    try:
        before, after = made(features, valid).cells, made(changed, valid).cells
    finally:
        made.context = None
    differs = (before - after).abs().amax(dim=(0, 2)) > 1e-7
    assert not differs[:34].any(), "cell 33 is decided with the cells up to 40"
    assert differs[34:].all()


def test_a_masked_modality_adds_nothing_and_a_cell_without_any_has_score_zero() -> None:
    made = NETWORKS[("spectral", "vggish"), 2]
    features, valid = cells_of(("spectral", "vggish"), 1, 30, 5)
    valid["vggish"][:] = False
    one = made(features, valid).cells
    features["vggish"] = torch.randn_like(features["vggish"])
    assert torch.equal(one, made(features, valid).cells)
    there = valid["spectral"][0]
    assert (one[0][~there] == 0).all()
    assert (one[0][there] > 0).all()


def test_the_gain_follows_a_peak_at_once_and_forgets_it_slowly() -> None:
    made = RunningSpectralInput(128, release_db_s=3.0)
    quiet = torch.full((1, 300, 4, 128), 1.0)
    loud = quiet.clone()
    loud[:, 20] = 100.0
    there = torch.ones((1, 300), dtype=torch.bool)
    peaks = made.peaks(loud, there)[0]
    assert peaks[19].exp() == pytest.approx(1.0)
    assert peaks[20].exp() == pytest.approx(100.0)
    ten_s = 20 + 151
    assert 20 * np.log10(np.exp(float(peaks[20] - peaks[ten_s]))) == pytest.approx(30.0, abs=0.1)
    assert torch.equal(peaks[-1:], made.peaks(quiet, there)[0, -1:]), "13.3 s later it is forgotten"
    silent = made.peaks(torch.zeros_like(quiet), there)
    assert silent.numpy() == pytest.approx(np.log(0.5)), "silence is not raised"


def test_the_gain_starts_at_the_peak_of_the_training_clips() -> None:
    """What comes first is not raised to the loudest; the gain of a quiet source rises slowly."""
    made = RunningSpectralInput(128, release_db_s=1.0)
    made.first_peak.fill_(50.0)
    quiet, there = torch.full((1, 600, 4, 128), 5.0), torch.ones((1, 600), dtype=torch.bool)
    peaks = made.peaks(quiet, there)[0].exp()
    assert 49.0 < peaks[0] < 50.0
    ten_s = 151
    assert 20 * np.log10(50.0 / float(peaks[ten_s - 1])) == pytest.approx(10.0, abs=0.1)
    assert peaks[-1] == pytest.approx(5.0), "20 s later it has the source's own peak"
    network_of = NETWORKS[("spectral",), 2]
    assert network_of.spectral_input is not None
    assert network_of.begin({"spectral": quiet}).peak == network_of.spectral_input.first_peak.double().log()


def test_what_is_remembered_of_long_ago_does_not_matter() -> None:
    """A stream that has run for long gives the scores of one that began 30 s ago, and 20 s later no trace is left."""
    made = NETWORKS[("spectral", "vggish"), 2]
    features, valid = cells_of(("spectral", "vggish"), 1, 2000, 9)
    recent = {name: values[:, -755:] for name, values in features.items()}
    flags = {name: values[:, -755:] for name, values in valid.items()}
    late = (made(features, valid).cells[:, -302:] - made(recent, flags).cells[:, -302:]).abs().max()
    assert float(late) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_a_day_the_last_hour_is_that_of_a_fresh_start() -> None:
    """1.3 million cells of a day, through a network without convolutions, whose state is bounded by its two cells."""
    made = NETWORKS[("vggish", "vgg16"), 0]
    hour = round(3600 * 22_100 / 1464)
    random = torch.Generator().manual_seed(0)
    state = made.begin({name: torch.zeros(1, 0, *SHAPES[name]) for name in made.modalities})
    fresh, worst = None, 0.0
    for number in range(24 * hour // 906):
        features = {name: torch.randn(1, 906, *SHAPES[name], generator=random) for name in made.modalities}
        valid = {name: torch.rand(1, 906, generator=random) > 0.05 for name in made.modalities}
        if number == 23 * hour // 906:
            fresh = made.begin(features)
        posteriors, _, state = made.step(features, valid, state, last=False)
        decide(state, 906)
        if fresh is not None:
            again, _, fresh = made.step(features, valid, fresh, last=False)
            decide(fresh, 906)
            late = slice(453, None) if number == 23 * hour // 906 else slice(None)
            worst = max(worst, float((posteriors - again)[:, late].abs().max()))
    assert worst <= TOLERANCE


def test_training_begins_some_clips_with_what_is_remembered_of_others() -> None:
    made = network(("spectral",)).train()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    features, valid = cells_of(("spectral",), 16, 20, 4)
    made.carried = 0.0
    torch.manual_seed(1)
    alone = made(features, valid).cells
    made.carried = 0.5
    with_others = made(features, valid).cells
    moved = (alone - with_others).abs().amax(dim=(1, 2)) > 1e-6
    assert 0 < int(moved.sum()) < 16
    assert float((alone - with_others)[:, 0].abs().max()) > float((alone - with_others)[:, -1].abs().max())


def test_gradients_reach_every_parameter_in_a_short_context() -> None:
    made = network(("spectral", "vggish")).train().requires_grad_(True)
    made.context = Context(4, 4)
    features, valid = cells_of(("spectral", "vggish"), 4, 30, 4)
    out = made(features, valid)
    (out.cells.square().sum() + out.clip.sum()).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0 or name.endswith("convolution.bias"), name  # batch norm removes a bias


def test_cells_that_wait_are_heard_but_leave_no_trace_in_batch_norm() -> None:
    made = network(("spectral",), 5).train()
    features, valid = cells_of(("spectral",), 2, 40, 4, invalid=0.0)
    statistics = {}
    for context in (None, Context(8, 8)):
        other = deepcopy(made)
        other.carried, other.context = 0.0, context
        assert other.convolutions is not None
        with torch.no_grad():
            statistics[context] = (other(features, valid).cells, other.convolutions.state_dict())
    one, other_one = statistics.values()
    assert not torch.equal(one[0], other_one[0])
    assert all(torch.equal(value, other_one[1][name]) for name, value in one[1].items())


def test_dropout_is_not_drawn_in_evaluation() -> None:
    made = StreamCrnn({"spectral": (4, 128)}, 3, dropout=Dropout(0.5, 0.5, 0.5), filters=SMALL, gru_size=8).eval()
    features, valid = cells_of(("spectral",), 2, 10, 4)
    assert torch.equal(made(features, valid).cells, made(features, valid).cells)


def test_a_lookahead_shorter_than_the_convolutions_is_refused() -> None:
    made = network(("spectral",), 2)
    made.context = Context(1)
    with pytest.raises(ValueError, match="a lookahead of 1 cells is less than 2"):
        made(*cells_of(("spectral",), 1, 10, 4))
    with pytest.raises(ValueError, match="0 to 5 cells ahead, not 6"):
        network(("spectral",), 6)


def test_sizes_are_read_from_the_tensors() -> None:
    assert sizes_of(network(("spectral", "vggish")).state_dict()) == (SMALL, 24)
    with pytest.raises(ValueError, match="no second backward GRU layer"):
        sizes_of({})
