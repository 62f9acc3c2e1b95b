"""What is cited from the paper stands in the section that is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTIONS = {
    "1": "introduction",
    "2": "baseline",
    "2.1": "architecture: convolutions, pooling, GRU, linear pooling",
    "2.2": "postprocessing: threshold 0.5, median filter of 7 frames",
    "2.3": "mean teacher: moving average, consistency costs and their weights",
    "3": "feature fusion: projections of pretrained vectors and their widths",
    "4": "experimental setup",
    "4.1": "data: parts and their sizes",
    "4.2": "feature extraction: rates, windows, hops, VGGish, VGG16, 151 frames",
    "4.3": "training and evaluation",
    "4.3.1": "training hyperparameters: epochs, batches, learning rate",
    "4.3.2": "evaluation metrics: micro and macro F1, collars",
    "5": "experimental results",
    "5.1": "audio tagging",
    "5.2": "sound event detection",
    "6": "conclusions",
}
"""Sections of Boes & Van hamme (2021), and what each is about."""
CITED = {
    "ARCHITECTURE.md": [("window of 2048 samples", "4.2")],
    "README.md": [("three of these figures", "4.3.2")],
    "configs/train/paper.yaml": [("widths", "3")],
    "streamer/bundles/spectral/MODEL_CARD.md": [("three figures", "4.3.2"), ("clip micro", "4.3.2")],
    "streamer/bundles/audio/MODEL_CARD.md": [("three figures", "4.3.2"), ("clip micro", "4.3.2")],
    "streamer/types.py": [("hop 366", "4.2")],
    "streamer/features/spectral.py": [("Slaney mel bins", "4.2")],
    "streamer/features/vggish.py": [("128 embedding values", "4.2")],
    "streamer/features/patches.py": [("an overlap of 900 ms", "4.2")],
    "streamer/features/vgg16.py": [("last feedforward layer", "4.2")],
    "streamer/networks/crnn.py": [
        ("weighted by themselves", "2.1"),
        ("widths of the vectors' projections", "3"),
        ("ReLU of each convolution", "2.1"),
        ("ReLU of each projected embedding", "3"),
        ("per direction", "2.1"),
    ],
    "streamer/networks/inputs.py": [("projection", "3")],
    "streamer/replay/scoring.py": [("Length of a segment", "4.3.2"), ("three figures", "4.3.2")],
    "train/card.py": [("three figures", "4.3.2")],
    "train/config.py": [
        ("projections", "3"),
        ("steps of an epoch", "4.3.1"),
        ("highest learning rate", "4.3.1"),
        ("steps of the ramp", "4.3.1"),
        ("each ReLU of the convolutions", "2.1"),
        ("projected embeddings", "3"),
        ("size of each GRU layer", "2.1"),
        ("0.46 s", "2.2"),
    ],
    "train/data/dcase.py": [("validates on DCASE's test set", "4.1")],
    "train/evaluation/stored.py": [("one median filter for every class", "2.2")],
    "train/learning/mean_teacher.py": [("mean teacher", "2.3")],
    "train/commands/bench.py": [("clips of a batch in the paper", "4.3.1")],
    "train/experiment/config.py": [("those with the best validation scores", "5")],
    "train/experiment/paper.py": [
        ("The columns of table 3", "4.3.2"),
        ("Systems trained for each row", "5"),
        ("whose test scores are averaged", "5"),
        ("200 epochs of 250 batches", "4.3.1"),
        ("Clips of a batch", "4.3.1"),
    ],
    "train/validation.py": [("one median filter for all classes", "2.2")],
}
"""Every citation: file -> what is said there, and where the paper says it. A new one is added here, read up before."""
CITATION = re.compile(r"section (\d+(?:\.\d+)*)")


def files() -> list[Path]:
    code = [path for name in ("streamer", "train", "configs", "docs") for path in (ROOT / name).rglob("*")]
    texts = [path for path in code if path.suffix in (".py", ".yaml", ".md")]
    return [*texts, ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]


def test_every_citation_is_known() -> None:
    found = {
        str(path.relative_to(ROOT)): sorted(CITATION.findall(path.read_text()))
        for path in files()
        if CITATION.search(path.read_text())
    }
    assert found == {name: sorted(section for _, section in cited) for name, cited in CITED.items()}
    assert {section for cited in CITED.values() for _, section in cited} <= set(SECTIONS)


@pytest.mark.parametrize(("name", "text", "section"), [(name, *one) for name, cited in CITED.items() for one in cited])
def test_each_citation_stands_by_what_it_is_for(name: str, text: str, section: str) -> None:
    flat = " ".join((ROOT / name).read_text().split())
    places = [match.start() for match in re.finditer(re.escape(text), flat)]
    assert places, f"{name} says no more {text!r}"
    near = [flat[max(place - 300, 0) : place + 400] for place in places]
    assert any(section in CITATION.findall(one) for one in near)
