"""`configs/train/paper.yaml` is the paper's training: its fields, its manifest, and the steps of a real run."""

from __future__ import annotations

import csv
import math
from functools import cache as cache_result
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from streamer.bundle import Bundle
from streamer.networks.crnn import Crnn, Dropout, default_widths
from tests.train.test_cache import features, make_corpus
from tests.train.test_corpus import CLASSES
from tests.train.test_resume import log
from train import cli, config, loop, manifest
from train.config import FitConfig
from train.data.dataset import Corpus

PATH = Path(__file__).parents[2] / "configs" / "train" / "paper.yaml"
THIRD = pytest.approx(1 / 3, abs=1e-6)
FIELDS: list[tuple[str, str, object]] = [
    ("2.1", "dropout", THIRD),
    ("2.1", "classifier_dropout", 0.0),
    ("2.2", "threshold", 0.5),
    ("2.2", "median_cells", 7),
    ("2.2", "tune", False),
    ("2.3", "ema", 0.999),
    ("2.3", "consistency_clip", 2.0),
    ("2.3", "consistency_frames", 2.0),
    ("3", "embedding_dropout", THIRD),
    ("3", "widths", {}),
    ("4.2", "features", {"vggish": {"alignment": "paper", "last_relu": False}}),
    ("4.3.1", "epochs", 200),
    ("4.3.1", "epoch_steps", 250),
    ("4.3.1", "steps", 50_000),
    ("4.3.1", "batch", {"weak": 24, "unlabeled": 24}),
    ("4.3.1", "optimiser", "adam"),
    ("4.3.1", "learning_rate", 0.001),
    ("4.3.1", "ramp_steps", 12_500),
    ("4.3.1", "decay", 0.99995),
    ("4.3.2", "network", "student"),
    ("4.3.2", "keep", "last"),
    ("-", "weight_decay", 0.0),
    ("-", "clip_gradient", 0.0),
    ("-", "bias_priors", False),
    ("-", "anneal_steps", 0),
    ("-", "ema_warmup", False),
    ("-", "consistency_ramp", False),
    ("-", "mixup", 0.0),
    ("-", "filter_db", 0.0),
    ("-", "shift", False),
    ("-", "mask_mels", 0),
    ("-", "mask_cells", 0),
    ("-", "crop", 0.0),
    ("-", "modality_dropout", 0.0),
    ("-", "holes", 0.0),
    ("-", "onset_weight", 0.0),
    ("-", "offset_weight", 0.0),
    ("-", "distil_from", ()),
    ("-", "pseudo_frames", 0.0),
    ("-", "pseudo_clips", 0.0),
    ("-", "reduced_precision", False),
]
"""Section of the paper (-: it has no such thing), field, value."""
MANIFEST: list[tuple[str, str, str]] = [
    ("2.1", "mel bins", "128"),
    *(
        ("2.1", f"convolution {number}", f"kernel (3, 3), stride (1, 1), {channels} channels")
        for number, channels in enumerate((16, 32, 64, 128, 128, 128, 128))  # table 1
    ),
    *(
        ("2.1", f"average pooling {number}", f"kernel and stride {size}")
        for number, size in enumerate([(2, 2)] * 2 + [(1, 2)] * 5)  # table 2
    ),
    ("2.1", "a stack", "convolution, batch norm, ReLU, dropout 0.332, pooling"),
    ("2.1", "GRU", "2 layers, 128 per direction, bidirectional"),
    ("2.1", "before the classifier", "dropout 0.000"),
    ("2.1", "classifier", "dense layer with 10 outputs, sigmoid"),
    ("2.1", "clip posteriors", "linear pooling"),
    ("2.3", "clip cost", "binary cross-entropy of clip posteriors, weight 1 on weak clips"),
    ("2.3", "consistency costs", "mean squared error of student and teacher posteriors, of clips and of cells"),
    ("3", "vggish: projection", "128 to 16"),
    ("3", "vgg16: projection", "4096 to 4"),
    ("3", "vggish: after the projection", "ReLU, dropout 0.332"),
    ("3", "vgg16: after the projection", "ReLU, dropout 0.332"),
    ("4.2", "spectral: sample rate", "22100 Hz"),
    ("4.2", "spectral: window", "2048"),
    ("4.2", "spectral: hop", "366 samples"),
    ("4.2", "spectral: mels", "128"),
    ("4.2", "vggish: sample rate", "16000 Hz"),
    ("4.2", "vggish: frame and hop", "400 and 160 samples"),
    ("4.2", "vggish: chunk", "96 frames"),
    ("4.2", "vggish: alignment", "paper"),
    ("4.2", "vggish: last_relu", "false"),
    ("4.2", "vgg16: pictures", "15.1 per second"),
    ("4.3.1", "optimiser in use", "Adam"),
    ("4.3.1", "learning rate", "learning_rate x exp(-5 (1 - step / ramp_steps)^2), then x decay per step"),
]
"""Section, name and value in the manifest of a run with all three modalities."""


def profile(**fields: object) -> FitConfig:
    return config.load(PATH, FitConfig).model_copy(update=fields)


def three(settings: FitConfig) -> Crnn:
    shapes: dict[str, tuple[int, ...]] = {"spectral": (4, 128), "vggish": (128,), "vgg16": (4096,)}
    return Crnn(shapes, 10, default_widths(shapes), settings.dropouts)


@pytest.mark.parametrize(("section", "name", "value"), FIELDS)
def test_the_profile_has_the_papers_value_and_the_manifest_its_section(section: str, name: str, value: object) -> None:
    assert name in yaml.safe_load(PATH.read_text()) or name in (
        "steps",
        "widths",
    )  # written down, not left to a default
    assert getattr(profile(), name) == value
    rows = {row.name: row for row in of_all_three()}
    assert rows[name].section == section


@cache_result
def of_all_three() -> tuple[manifest.Row, ...]:
    settings = profile()
    network = three(settings)
    specs: dict[str, dict[str, Any]] = {
        "spectral": {"window": 2048, "mels": 128},
        "vggish": {"alignment": "paper", "last_relu": False},
        "vgg16": {"hold_s": 1.0},
    }
    return manifest.rows_of(settings, network, torch.optim.Adam(network.parameters()), specs)


def test_the_manifest_has_the_network_the_features_and_every_field() -> None:
    rows = of_all_three()
    found = {(row.section, row.name): row.value for row in rows}
    assert {key: found.get(key) for key in ((one[0], one[1]) for one in MANIFEST)} == {
        (section, name): value for section, name, value in MANIFEST
    }
    assert len(found) == len(rows)
    assert set(FitConfig.model_fields) <= {row.name for row in rows}


def test_dropout_is_after_each_relu_and_on_projections_and_nowhere_else() -> None:
    torch.manual_seed(0)
    network = three(profile()).train()
    assert network.convolutions is not None
    vectors = {"vggish": torch.randn(8, 500, 128), "vgg16": torch.randn(8, 500, 4096)}
    valid = torch.ones(8, 500, dtype=torch.bool)
    for name, values in vectors.items():
        module = network.embeddings[name]
        kept, dropped = module.eval()(values, valid), module.train()(values, valid)
        share = (dropped[kept > 0] == 0).float().mean().item()
        assert share == pytest.approx(1 / 3, abs=0.02)
        there = dropped > 0
        assert torch.allclose(dropped[there], kept[there] / (1 - 85 / 256))  # drawn in 256ths
    layers = list(network.convolutions)
    after_relu = [layers[index + 1] for index, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    assert len(after_relu) == 7
    for module in after_relu:
        share = (module(torch.ones(4, 16, 50, 64)) == 0).float().mean().item()
        assert share == pytest.approx(1 / 3, abs=0.01)
    context = torch.rand(2, 5, 256)
    assert torch.equal(network.dropout(context), context)
    assert FitConfig().dropouts == Dropout(0.5, 0.0, 0.5)  # without the profile nothing has changed


def test_epochs_decide_the_steps_and_contradict_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert FitConfig(epochs=3, epoch_steps=5).steps == 15
    assert FitConfig.model_validate(FitConfig(epochs=3).model_dump(mode="json")).steps == 750
    path = tmp_path / "x.yaml"
    path.write_text("epochs: 3\nsteps: 7\n")
    assert cli.main(["fit", "corpus", "features", "run", "--config", str(path)]) == 2
    assert "steps is not epochs x epoch_steps (750)" in capsys.readouterr().err
    path.write_text("median_cells: 4\n")
    assert cli.main(["fit", "corpus", "features", "run", "--config", str(path)]) == 2
    assert "median_cells must be odd" in capsys.readouterr().err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("paper")
    source = make_corpus(folder, events={1: 1.0})
    assert features(source, folder / "features", "--config", str(PATH)) == 0
    return source, folder / "features"


SMALL: dict[str, Any] = {
    "batch": {"weak": 2, "unlabeled": 2},  # all clips of both parts, so every batch is the same
    "ramp_steps": 3,
    "validate_every": 1,
    "checkpoint_every": 1,
    "threads": 1,
    "epochs": 0,
}


def test_losses_rates_adam_and_teacher_of_a_real_run_follow_the_formulas(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each step of a run is computed again here, by the paper's formulas, from the checkpoint before it."""
    source, stored = data
    settings = profile(**SMALL)
    corpus, out = Corpus.read(source), tmp_path / "run"
    states: dict[int, dict[str, Any]] = {}
    for step in range(1, 7):
        loop.fit(corpus, stored, out, settings.model_copy(update={"steps": step}))
        states[step] = torch.load(out / "checkpoint.pt", weights_only=True)
    rows = {row["step"]: row for row in log(out)}
    values, weak = clips_and_labels(corpus, source, stored)
    valid = torch.ones(values.shape[:2], dtype=torch.bool)
    for step in range(1, 6):
        before, after = states[step], states[step + 1]
        student = Crnn({"spectral": (4, 128)}, len(CLASSES), {}, Dropout(1 / 3, 1 / 3, 0.0))
        teacher = Crnn({"spectral": (4, 128)}, len(CLASSES)).eval()
        student.to(memory_format=torch.channels_last).load_state_dict(before["student"])
        teacher.to(memory_format=torch.channels_last).load_state_dict(before["teacher"])
        torch.set_rng_state(before["torch_rng"])
        ours = student.train()({"spectral": values}, {"spectral": valid})
        with torch.no_grad():
            theirs = teacher({"spectral": values}, {"spectral": valid})
        p = ours.clip[:2]
        classification = -(weak * p.log() + (1 - weak) * (1 - p).log()).mean()
        clips, cells = ((ours.clip - theirs.clip) ** 2).mean(), ((ours.cells - theirs.cells) ** 2).mean()
        cost = 1 * classification + 2 * clips + 2 * cells
        row = rows[step + 1]
        assert row["cost"] == pytest.approx(cost.item(), rel=1e-5)
        assert row["costs"] == pytest.approx(
            {
                "frames": 0.0,
                "clips": classification.item(),
                "consistency_frames": cells.item(),
                "consistency_clips": clips.item(),
            },
            rel=1e-4,
        )
        # `step` steps are done, so this one is number `step`, from 0: two of the ramp, then the decay.
        rate = 0.001 * (math.exp(-5 * (1 - step / 3) ** 2) if step < 3 else 0.99995 ** (step - 3))
        assert row["learning_rate"] == pytest.approx(rate, rel=1e-9)
        cost.backward()
        moments = before["optimiser"]["state"]
        convolved = {name for name, value in student.named_parameters() if value.ndim == 4}
        for index, (name, parameter) in enumerate(student.named_parameters()):
            assert parameter.grad is not None
            if name.startswith("convolutions.") and parameter.ndim == 1 and f"{name[:-4]}weight" in convolved:
                continue  # batch norm takes this bias away again: its gradient is rounding alone
            expected = adam(parameter, parameter.grad, moments[index], step + 1, rate)
            moved = (expected - parameter).norm()
            assert moved > 0
            assert (after["student"][name] - expected).norm() < 0.005 * moved, (step, name)
        for name, value in after["teacher"].items():
            if value.is_floating_point():
                average = 0.999 * before["teacher"][name] + 0.001 * after["student"][name]
                assert torch.allclose(value, average, rtol=1e-6, atol=1e-7), (step, name)
    assert [row["step"] for row in log(out)] == [1, 2, 3, 4, 5, 6]
    check_manifest(out)

    best = torch.load(out / "best.pt", weights_only=True)
    assert best["step"] == 6
    assert all(torch.equal(best["student"][name], value) for name, value in states[6]["student"].items())
    export = ["export", str(source), str(stored), str(out)]
    assert cli.main([*export, str(tmp_path / "student")]) == 0  # as the profile says: student, untuned
    bundle = Bundle.load(tmp_path / "student")
    assert all(torch.equal(bundle.tensors[name], value) for name, value in states[6]["student"].items())
    assert {(one.onset_threshold, one.offset_threshold, one.tag_threshold) for one in bundle.decoding.per_class} == {
        (0.5, 0.5, 0.5)
    }
    assert {one.median_cells for one in bundle.decoding.per_class} == {7}
    assert (bundle.provenance.network, bundle.provenance.decoding) == ("student", "untuned")
    assert set(bundle.scores) == {"test_clip"}
    assert cli.main([*export, str(tmp_path / "teacher"), "--network", "teacher", "--tune"]) == 0
    bundle = Bundle.load(tmp_path / "teacher")
    assert all(torch.equal(bundle.tensors[name], value) for name, value in states[6]["teacher"].items())
    assert (bundle.provenance.network, bundle.provenance.decoding) == ("teacher", "tuned")
    assert "validation_clip" in bundle.scores
    assert cli.main(["card", str(tmp_path / "student")]) == 0
    card = (tmp_path / "student" / "MODEL_CARD.md").read_text()
    assert "the weights are the student's" in card
    assert "were not tuned" in card

    torch.save({name: best[name] for name in ("teacher", "step", "validation")}, out / "best.pt")  # of version 0.2
    capsys.readouterr()
    assert cli.main([*export, str(tmp_path / "older")]) == 1
    assert "kept the teacher alone: export that one, with --network teacher" in capsys.readouterr().err


def clips_and_labels(corpus: Corpus, source: Path, stored: Path) -> tuple[Tensor, Tensor]:
    """The cells of the weak and then the unlabelled clips, and the weak clips' labels, read from the table."""
    parts = [corpus.part(name, stored, ["spectral"]) for name in ("weak", "unlabeled")]
    values, valid = zip(*(part.features.batch([0, 1], int(part.features.cells.max())) for part in parts), strict=True)
    assert all(one["spectral"].all() for one in valid)
    with (source / "metadata" / "weak.tsv").open(newline="") as file:
        labels = {row["filename"]: row["event_labels"].split(",") for row in csv.DictReader(file, delimiter="\t")}
    weak = [[float(label in labels[clip.name]) for label in CLASSES] for clip in parts[0].clips]
    return torch.cat([one["spectral"] for one in values]), torch.tensor(weak)


def adam(parameter: Tensor, gradient: Tensor, moments: dict[str, Tensor], step: int, rate: float) -> Tensor:
    """Algorithm 1 of Kingma & Ba, with its default settings; `step` counts from 1."""
    first = 0.9 * moments["exp_avg"] + 0.1 * gradient
    second = 0.999 * moments["exp_avg_sq"] + 0.001 * gradient**2
    return parameter.detach() - rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)


def check_manifest(out: Path) -> None:
    """The run's own manifest has the profile's values, except for what was made small."""
    with (out / "manifest.tsv").open(newline="") as file:
        rows = {row["hyperparameter"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    for section, name, value in FIELDS:
        if name not in {*SMALL, "steps"}:
            assert rows[name]["section"] == section
            assert yaml.safe_load(rows[name]["value"]) == (list(value) if isinstance(value, tuple) else value)
    for section, name, text in MANIFEST:
        if name.startswith("spectral") or not name.startswith(("vgg", "classifier")):
            assert (rows[name]["section"], rows[name]["value"]) == (section, text)


def test_without_the_profile_the_gradient_is_clipped_and_the_bias_begins_with_the_priors(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    source, stored = data
    runs: dict[str, dict[str, Any]] = {}
    for name, fields in {
        "paper": {},
        "clipped": {"clip_gradient": 1e-9},
        "priors": {"bias_priors": True, "learning_rate": 1e-9},
    }.items():
        loop.fit(Corpus.read(source), stored, tmp_path / name, profile(**SMALL, steps=1, **fields))
        runs[name] = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
    moments = {name: run["optimiser"]["state"][0]["exp_avg"] for name, run in runs.items()}
    assert moments["clipped"].abs().max() < 1e-9 < moments["paper"].abs().max()
    weak = clips_and_labels(Corpus.read(source), source, stored)[1].mean(dim=0).clamp(1e-3, 0.5)
    assert torch.allclose(runs["priors"]["student"]["classify.bias"], torch.logit(weak), atol=1e-6)
    assert runs["paper"]["student"]["classify.bias"].abs().max() < 0.1  # torch's own


def test_features_of_another_spec_than_the_configurations_are_refused(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump({**profile(**SMALL).model_dump(), "features": {"spectral": {"window": 1024}}}))
    assert cli.main(["fit", *map(str, data), str(tmp_path / "run"), "--config", str(path)]) == 1
    assert "the configuration needs spectral features with window=1024, these were made with window=2048" in (
        capsys.readouterr().err
    )
