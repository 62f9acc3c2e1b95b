"""Makes photos for corpora: each class has its own colour, and no two photos are alike."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"Cat": (200, 30, 30), "Dog": (30, 170, 30), "other": (40, 40, 190)}


def make_photo(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (96, 72)) -> Path:
    """A photo of one colour with a coarse grain."""
    rng = np.random.default_rng(seed)
    grain = np.repeat(np.repeat(rng.integers(-15, 16, (9, 12, 1)), 8, axis=0), 8, axis=1)
    pixels = np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize(size).save(path, quality=95)
    return path


def make_photos(folder: Path, groups: int = 5, labels: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """`folder/<label>/<number>.png`."""
    for label in labels:
        for group in range(groups):
            seed = 1000 * list(COLOURS).index(label) + group
            make_photo(folder / label / f"{group}.png", COLOURS[label], seed)
    return folder


def add_photos_to_manifest(source: Path, groups: int = 5, labels: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """Add photos to a folder of recordings, as rows of its manifest."""
    make_photos(source / "images", groups, labels)
    with (source / "manifest.tsv").open("a", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        for label in labels:
            for group in range(groups):
                path = f"images/{label}/{group}.png"
                row = [path, label, "image", "r", f"photo of {label}:{group}", "ship", "CC BY", "a camera"]
                writer.writerow([*row, "p", "", "", ""])
    return source
