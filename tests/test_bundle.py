"""Bundles: what is saved is loaded, and what is wrong is said in one line."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from streamer.bundle import Bundle
from streamer.decoding import ClassDecoding, Decoding
from streamer.errors import BundleError, EarwitnessError
from streamer.models import bundle_path
from streamer.networks.stream_crnn import StreamCrnn, StreamForm
from streamer.networks.weights import WeightsStore
from streamer.provenance import Environment, Phase, Provenance, Source
from tests.models import initial_tensors, seeded_bundle

CLASSES = ("Cat", "Dog")
SPECS: dict[str, dict[str, Any]] = {"spectral": {"window": 2048, "mels": 128}}


def bundle() -> Bundle:
    decoding = Decoding(CLASSES, (ClassDecoding(0.6, 0.3, 5, 0.4), ClassDecoding(0.5, 0.5, 1)))
    return Bundle(
        "test",
        SPECS,
        decoding,
        initial_tensors({"spectral": (4, 128)}, 2, seed=3),
        provenance=Provenance(steps=3, more={"by": "test"}),
        scores={"n": 1},
    )


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_bundle_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    made = bundle()
    made.save(tmp_path / "b")
    read = Bundle.load(tmp_path / "b")
    assert (read.name, read.decoding, read.feature_specs) == (made.name, made.decoding, made.feature_specs)
    assert (read.window_cells, read.provenance, read.scores) == (151, made.provenance, {"n": 1})
    assert all(torch.equal(tensor, made.tensors[name]) for name, tensor in read.tensors.items())
    features = {"spectral": torch.rand(1, 30, 4, 128)}
    valid = {"spectral": torch.ones(1, 30, dtype=torch.bool)}
    assert torch.equal(read.network()(features, valid).cells, made.network()(features, valid).cells)
    assert list(read.factories(WeightsStore(tmp_path, {}))) == ["spectral"]


def test_a_bundle_of_the_stream_form_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    made = seeded_bundle(stream=StreamForm(ahead_cells=3, release_db_s=4.5))
    made.save(tmp_path)
    assert json.loads((tmp_path / "bundle.json").read_text())["schema"] == 2
    read = Bundle.load(tmp_path)
    assert (read.stream, read.carried, read.least_lookahead_cells) == (StreamForm(3, 4.5), True, 3)
    assert read.fingerprint() == made.fingerprint()
    assert read.fingerprint() != replace(made, stream=StreamForm(3, 3.0)).fingerprint()
    network = read.network()
    assert isinstance(network, StreamCrnn)
    assert (network.form, network.gru.hidden_size) == (StreamForm(3, 4.5), 24)


def test_older_versions_can_read_the_window_form(tmp_path: Path) -> None:
    bundle().save(tmp_path)
    document = json.loads((tmp_path / "bundle.json").read_text())
    assert document["schema"] == 1
    assert not {"form", "stream"} & set(document)


@pytest.mark.parametrize("stream", [None, StreamForm()])
def test_tensors_of_the_other_form_are_refused(tmp_path: Path, stream: StreamForm | None) -> None:
    other = seeded_bundle(stream=None if stream else StreamForm())
    with pytest.raises(BundleError, match="its tensors are not those of its network"):
        replace(other, stream=stream).network()


@pytest.mark.parametrize(("ahead", "said"), [(6, "0 to 5 cells ahead, not 6"), (-1, "not -1")])
def test_a_stream_form_that_makes_no_sense_is_refused(ahead: int, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        replace(seeded_bundle(stream=StreamForm()), stream=StreamForm(ahead)).network()


def test_saving_twice_leaves_no_other_files(tmp_path: Path) -> None:
    bundle().save(tmp_path)
    bundle().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"schema": 3}, "has schema 3, this version reads up to 2: update earwitness"),
        ({"classes": ["Cat", "Cow"]}, "Cow"),
        ({"surprise": 1}, "surprise"),
        ({"window_cells": "many"}, "window_cells"),
        ({"tensors_sha256": "00"}, "copy both again"),
        (
            {
                "decoding": {
                    "Cat": {"onset_threshold": 2, "offset_threshold": 1, "median_cells": 3, "tag_threshold": 0.5}
                }
            },
            "Dog",
        ),
        ({"features": {}}, "modality"),
        ({"form": "stream"}, "form 'stream' of schema 1 lacks `stream`"),
        ({"stream": {"ahead_cells": 2, "release_db_s": 3.0}}, "form 'window' of schema 1 has `stream`"),
        (
            {"form": "stream", "stream": {"ahead_cells": 2, "release_db_s": 3.0}},
            "form 'stream' of schema 1 has `stream`",
        ),
        ({"form": "river"}, "river"),
    ],
)
def test_a_document_that_is_wrong_says_what(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    bundle().save(tmp_path)
    edit(tmp_path, **fields)
    with pytest.raises(BundleError) as error:
        Bundle.load(tmp_path)
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_provenance_comes_back_as_json_has_it_with_fields_that_are_not_known() -> None:
    written = {
        "steps": 20,
        "fit": [{"corpus": {"seed": 1}, "from_step": 0, "learning_rate": 0.001, "data_sha256": "ab"}],
        "corpus": {"seed": 1},
        "recordings": {"train": {"Cat": 2}},
        "trained_on": [{"source": "s", "licence": "CC0", "use": "ship", "recordings": 2}],
        "split": {"train": ["a", "b"]},
        "of a later version": {"x": [1]},
    }
    read = Provenance.of_json(written)
    assert read == Provenance(
        steps=20,
        phases=(Phase(from_step=0, corpus={"seed": 1}, data_sha256="ab", settings={"learning_rate": 0.001}),),
        corpus={"seed": 1},
        recordings={"train": {"Cat": 2}},
        trained_on=(Source("s", "CC0", "ship", 2),),
        split={"train": ["a", "b"]},
        more={"of a later version": {"x": [1]}},
    )
    assert json.loads(json.dumps(read.json())) == written
    here = Environment(from_step=3, commit=None, packages={"torch": "2"}, python="3", machine="m")
    phase = Phase(from_step=3, environments=(here,), settings={"seed": 1})
    assert Phase.of_json(json.loads(json.dumps(phase.json()))) == phase


def test_the_shipped_bundles_provenance_loses_nothing() -> None:
    written = json.loads((bundle_path(None) / "bundle.json").read_text())["provenance"]
    assert json.loads(json.dumps(Bundle.load(bundle_path(None)).provenance.json())) == written


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"steps": "many"}, "Expected `int | null`, got `str` - at `$.steps`"),
        ({"fit": [{"seed": 1}]}, "missing required field `from_step` - at `$.fit[0]`"),
        ({"fit": 3}, "`$.fit`"),
        ({"fit": [3]}, "`$.fit[0]`"),
        ({"split": {"train": [1]}}, "`$.split[...][0]`"),
        ({"trained_on": [{}]}, "`$.trained_on[0]`"),
    ],
)
def test_damaged_provenance_is_one_line(tmp_path: Path, provenance: dict[str, Any], said: str) -> None:
    bundle().save(tmp_path)
    edit(tmp_path, provenance=provenance)
    with pytest.raises(BundleError) as error:
        Bundle.load(tmp_path)
    assert f"bundle {tmp_path}: bundle.json is damaged: provenance: " in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("break_it", ["missing", "file", "no json", "text", "no tensors", "damaged", "pickle"])
def test_a_folder_that_is_no_bundle_says_so(tmp_path: Path, break_it: str) -> None:
    folder = tmp_path / "b"
    bundle().save(folder)
    if break_it == "missing":
        folder = tmp_path / "nowhere"
    elif break_it == "file":
        folder = folder / "bundle.json"
    elif break_it == "no json":
        (folder / "bundle.json").unlink()
    elif break_it == "text":
        (folder / "bundle.json").write_text("hello")
    elif break_it == "no tensors":
        (folder / "model.safetensors").unlink()
    elif break_it == "damaged":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[:1000])
    elif break_it == "pickle":
        (folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BundleError) as error:
        Bundle.load(folder)
    assert "\n" not in str(error.value)


def test_a_spec_or_a_network_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    made = bundle()
    strange = Bundle("b", {"spectral": {"hop": 3}}, made.decoding, made.tensors)
    with pytest.raises(EarwitnessError, match="spectral"):
        strange.factories(WeightsStore(tmp_path, {}))
    with pytest.raises(BundleError, match="smell"):
        Bundle("b", {"smell": {}}, made.decoding, made.tensors).factories(WeightsStore(tmp_path, {}))
    with pytest.raises(BundleError, match="network"):
        Bundle("b", {"spectral": {}, "vggish": {}}, made.decoding, made.tensors).network()
