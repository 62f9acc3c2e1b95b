"""Distillation: further teachers, of labelled and unlabelled clips alike.

Bundles may be larger than the student, several, and of other modalities: a student that only hears can learn from
teachers that also see. Or posteriors are stored, of teachers that are no bundles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.models import bundle_path
from streamer.networks.crnn import linear_pooling
from streamer.networks.forms import FusionNetwork
from train.config import FitConfig
from train.data import cache
from train.data.summary import Summary
from train.learning.augment import Batch
from train.learning.mean_teacher import Guidance
from train.provenance import known_of
from train.split import Known, Pin, check_split


@dataclass(frozen=True, slots=True)
class Guides:
    """The bundles of a run's `distil_from`."""

    bundles: tuple[Bundle, ...]
    networks: tuple[FusionNetwork, ...]
    columns: tuple[Tensor, ...]  # of each: the outputs for the student's classes, (classes,) int64
    certain: tuple[bool, ...]  # of each: as `check_split` says

    @classmethod
    def read(cls, config: FitConfig, corpus: Summary, device: torch.device) -> Guides | None:
        """The run's bundles on `device`; None if it has none.

        Raises:
            BundleError: one can't be read.
            EarwitnessError: one lacks a class, or was trained on recordings that this corpus tests or validates on.

        """
        bundles = tuple(Bundle.load(bundle_path(path)) for path in config.distil_from)
        columns: list[Tensor] = []
        certain: list[bool] = []
        for bundle in bundles:
            certain.append(check_split(known_of(bundle), corpus))
            lacking = [label for label in corpus.classes if label not in bundle.classes]
            if lacking:
                raise EarwitnessError(f"distil_from: {bundle.name} has no class {', '.join(lacking)}: choose another")
            columns.append(torch.tensor([bundle.classes.index(label) for label in corpus.classes], device=device))
        networks = [bundle.network().to(device).eval().requires_grad_(False) for bundle in bundles]
        for network in networks:
            network.reduced_precision = config.reduced_precision
        return cls(bundles, tuple(networks), tuple(columns), tuple(certain)) if bundles else None

    @property
    def teachers(self) -> list[tuple[Known, bool]]:
        """What each was trained on, and whether that is certain."""
        return [(known_of(one), certain) for one, certain in zip(self.bundles, self.certain, strict=True)]

    @property
    def sha256(self) -> str:
        """Of all that their posteriors depend on."""
        return hashlib.sha256("".join(one.fingerprint() for one in self.bundles).encode()).hexdigest()

    def check(self, features: cache.Features) -> None:
        """Check that stored features are those that the bundles need. Raises `EarwitnessError`."""
        for bundle in self.bundles:
            cache.check_specs(features, bundle.feature_specs, f"distil_from: {bundle.name}")

    def of(self, batch: Batch) -> Guidance:
        """Targets for all clips of a batch: the mean over the bundles that have any of their modalities there."""
        shape = next(iter(batch.valid.values())).shape
        cells = batch.weak.new_zeros(*shape, batch.classes)
        clips = batch.weak.new_zeros(shape[0], batch.classes)
        cell_count, clip_count = batch.weak.new_zeros(*shape, 1), batch.weak.new_zeros(shape[0], 1)
        for network, columns in zip(self.networks, self.columns, strict=True):
            out = network(batch.features, batch.valid)
            covered = torch.stack([batch.valid[name] for name in network.modalities]).any(dim=0)[:, :, None]
            cells += out.cells[..., columns]  # zero where the bundle has no modality
            clips += out.clip[:, columns]
            cell_count += covered
            clip_count += covered.any(dim=1)
        return Guidance(
            cells / cell_count.clamp_min(1.0),
            (cell_count > 0).float().expand_as(cells),
            clips / clip_count.clamp_min(1.0),
            (clip_count > 0).float().expand_as(clips),
        )


@dataclass(frozen=True, slots=True)
class StoredGuide:
    """Posteriors that were computed before: those of a clip move with it when it is shifted or cropped."""

    columns: tuple[int, ...]  # the stored posteriors of the student's classes
    known: Known  # what the networks were trained on
    certain: bool

    @classmethod
    def of_run(cls, corpus: Summary, features: cache.Features) -> StoredGuide:
        """That of a run on `corpus`.

        Raises:
            EarwitnessError: a class is not among the stored, or the networks were trained on recordings that this
                corpus tests or validates on.

        """
        spec = features.specs[cache.GUIDE]
        stored = list(spec["classes"])
        lacking = [label for label in corpus.classes if label not in stored]
        if lacking:
            raise EarwitnessError(f"distil_stored: there are no posteriors of {', '.join(lacking)}: compute them anew")
        known = Known("the stored guide", Pin.of_json(spec["trained_on"]), ())
        check_split(known, corpus)
        return cls(tuple(stored.index(label) for label in corpus.classes), known, spec["certain"])

    @property
    def teachers(self) -> list[tuple[Known, bool]]:
        """What the networks were trained on, and whether that is certain."""
        return [(self.known, self.certain)]

    def of(self, batch: Batch) -> Guidance:
        """Targets for all clips of a batch."""
        valid = batch.valid[cache.GUIDE]
        cells = batch.features[cache.GUIDE][:, :, self.columns] * valid[:, :, None]
        clips = linear_pooling(cells)
        heard = valid.any(dim=1)[:, None].float().expand_as(clips)
        return Guidance(cells, valid[:, :, None].float().expand_as(cells), clips, heard)


def modalities_of(config: FitConfig) -> Sequence[str]:
    """What training with `config` reads: the student's modalities, the bundles', those of pseudo-labels, a guide.

    Raises:
        BundleError: a bundle can't be read.

    """
    others = [name for path in config.distil_from for name in Bundle.load(bundle_path(path)).modalities]
    needed = cache.in_order([*config.modalities, *others, *(("mn04_scores",) if config.pseudo else ())])
    return [*needed, *([cache.GUIDE] if config.distil_stored else [])]
