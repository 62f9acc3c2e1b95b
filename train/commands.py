"""The commands of `earwitness-train`: corpus, features, fit, evaluate, export, card."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from streamer.arguments import number_from_1
from streamer.bundle import Bundle
from streamer.errors import EarwitnessError
from streamer.features import EXTRACTORS
from streamer.networks.backends import use_threads
from streamer.networks.weights import default_weights_folder
from streamer.replay.scoring import Report
from streamer.starting import not_loaded
from train import config
from train.data import cache
from train.data.dataset import Corpus

_log = logging.getLogger(__name__)
_EXTRA = ("soundfile", "tensorboard")
"""Packages of the extra `train`. Each is imported only by the commands that need it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 on success."""
    logging.basicConfig(format="earwitness-train: %(message)s", level=logging.INFO)
    args = _parser().parse_args(argv)
    try:
        if args.run is not _fit:  # `fit` has its own setting
            use_threads(1)
        return args.run(args) or 0
    except EarwitnessError as error:
        return _failed(" ".join(str(error).split()), error.exit_code)
    except ImportError as error:
        if error.name not in _EXTRA:
            return not_loaded("earwitness-train", error)
        return _failed(f"{error.name} is not installed: pip install 'earwitness[train]'", 1)
    except OSError as error:
        return _failed(f"{error.filename or 'a file'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _failed("interrupted; finished work is kept", 130)


def _failed(text: str, code: int) -> int:
    print(f"earwitness-train: error: {text}", file=sys.stderr)  # noqa: T201
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="earwitness-train", description="Trains models for earwitness.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    mix = _command(
        commands, "corpus", "mix recordings into clips", "earwitness-train corpus recordings data/corpus --seed 1"
    )
    mix.add_argument("source", type=Path, help="folder with manifest.tsv and the recordings")
    mix.add_argument("out", type=Path, help="folder to create")
    mix.add_argument("--config", type=Path, help="YAML; see configs/train/corpus.yaml")
    mix.add_argument("--seed", type=int, help="overrides the configuration's seed")
    mix.add_argument(
        "--split",
        type=Path,
        metavar="FROM",
        help="a corpus or a bundle: groups of recordings that it knows keep their part; only new groups are assigned",
    )
    _add_workers(mix)
    mix.set_defaults(run=_corpus)

    features = _command(
        commands, "features", "compute a corpus's features once", "earwitness-train features data/corpus data/features"
    )
    features.add_argument("corpus", type=Path, help="folder of the corpus")
    features.add_argument("out", type=Path, help="folder for features; missing ones are added")
    features.add_argument("--config", type=Path, help="YAML of `fit`: its modalities, and how they are computed")
    _add_modalities(features)
    _add_weights(features)
    _add_workers(features)
    features.set_defaults(run=_features)

    data = _command(
        commands, "data", "look after real data", "earwitness-train data check DCASE --report findings.tsv"
    ).add_subparsers(required=True, metavar="COMMAND")
    look = _command(
        data,
        "check",
        "check the annotations and media of DCASE 2018 task 4 or DESED",
        "earwitness-train data check DCASE --report findings.tsv",
    )
    look.add_argument("root", type=Path, help="folder with `metadata` and, in any folders, the clips")
    look.add_argument("--rows-only", action="store_true", help="only look whether media are there; do not open them")
    look.add_argument("--report", type=Path, metavar="FILE", help="write all findings into this file, tab-separated")
    _add_workers(look)
    look.set_defaults(run=_check)

    fit = _command(
        commands,
        "fit",
        "train",
        "earwitness-train fit data/corpus data/features runs/one --config configs/train/fit-spectral-1.yaml",
    )
    _add_data(fit)
    fit.add_argument("out", type=Path, help="folder for checkpoints and logs; an existing run is resumed")
    fit.add_argument("--config", type=Path, help="YAML; its fields are in train/config.py")
    fit.add_argument(
        "--from",
        type=Path,
        dest="begin",
        metavar="BUNDLE",
        help="start a new run from this bundle's network and step count; no group of recordings may have changed parts",
    )
    _add_modalities(fit)
    fit.add_argument("--threads", type=number_from_1, metavar="N", help="torch threads; overrides the configuration's")
    fit.set_defaults(run=_fit)

    judge = _command(
        commands,
        "evaluate",
        "score a bundle on a part of a corpus",
        "earwitness-train evaluate data/corpus data/features --part test",
    )
    _add_data(judge)
    judge.add_argument("--model", type=Path, required=True, help="folder of the bundle")
    judge.add_argument("--part", default="test", choices=["validation", "test"])
    judge.set_defaults(run=_evaluate)

    pack = _command(
        commands,
        "export",
        "tune thresholds on validation, measure on test, write a bundle",
        "earwitness-train export data/corpus data/features runs/one model",
    )
    _add_data(pack)
    pack.add_argument("fit", type=Path, help="folder of `fit`")
    pack.add_argument("out", type=Path, help="folder of the bundle to write")
    pack.add_argument("--name", default="earwitness")
    thresholds = pack.add_mutually_exclusive_group()
    thresholds.add_argument(
        "--decoding", type=Path, metavar="BUNDLE", help="use this bundle's thresholds instead of tuning them"
    )
    thresholds.add_argument(
        "--tune",
        action=argparse.BooleanOptionalAction,
        help="tune thresholds, or keep one threshold and one median filter for all classes; default: as the run's "
        "settings say",
    )
    pack.add_argument(
        "--network",
        choices=get_args(config.NetworkName),
        help="whose weights to export; default: as the run's settings say",
    )
    _add_weights(pack)
    _add_workers(pack)
    pack.set_defaults(run=_export)

    describe = _command(
        commands,
        "card",
        "add the scores that replay measured to a bundle, and write its model card",
        "earwitness-train card model results-clip results-stream",
    )
    describe.add_argument("bundle", type=Path, help="folder of the bundle")
    describe.add_argument(
        "reports", type=Path, nargs="*", help="folders of `earwitness replay --truth TSV --report FOLDER`"
    )
    describe.set_defaults(run=_card)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, help: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=help, description=help, epilog=f"example: {example}")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", type=Path, help="folder of the corpus")
    parser.add_argument("features", type=Path, help="folder of its features")


def _add_modalities(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--modalities", nargs="+", choices=list(EXTRACTORS), help="overrides the configuration's")


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FOLDER",
        default=default_weights_folder(os.environ),
        help="folder of pretrained weights (default: the user's cache)",
    )


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=number_from_1,
        metavar="N",
        default=os.cpu_count() or 1,
        help="worker processes (default: %(default)s)",
    )


def _corpus(args: argparse.Namespace) -> None:
    from train.data import corpus
    from train.split import read_pin

    settings = config.load(args.config, config.CorpusConfig)
    if args.seed is not None:
        settings = settings.model_copy(update={"seed": args.seed})
    pin = None if args.split is None else read_pin(args.split)
    corpus.make(args.source, args.out, settings, args.workers, pin, None if args.split is None else args.split.name)


def _features(args: argparse.Namespace) -> None:
    corpus = Corpus.read(args.corpus)
    media = corpus.media()
    settings = config.load(args.config, config.FitConfig)
    modalities = args.modalities or settings.modalities
    computed = cache.add(
        args.out, media, modalities, args.weights, args.workers, settings.features, tolerant=corpus.partial
    )
    _log.info("%s: computed %d of %d clips; the others were already stored", args.out, computed, len(media))


def _check(args: argparse.Namespace) -> int:
    from train.data import check, check_report

    found = check.check(args.root, args.workers, rows_only=args.rows_only)
    if args.report is not None:
        check_report.write(args.report, found)
    print(check_report.text(args.root, found, args.report))  # noqa: T201
    return 0 if found.well else 1


def _fit(args: argparse.Namespace) -> None:
    from train import loop

    settings = config.load(args.config, config.FitConfig)
    if args.threads is not None:
        settings = settings.model_copy(update={"threads": args.threads})
    if args.modalities is not None:
        settings = settings.model_copy(update={"modalities": tuple(args.modalities)})
    begin = None if args.begin is None else Bundle.load(args.begin)
    loop.fit(Corpus.read(args.corpus), args.features, args.out, settings, begin)


def _evaluate(args: argparse.Namespace) -> None:
    from train import evaluate
    from train.provenance import known_of
    from train.split import check_split

    bundle, corpus = Bundle.load(args.model), Corpus.read(args.corpus)
    check_split(known_of(bundle), corpus.summary)
    part = corpus.part(args.part, args.features, bundle.modalities)
    cache.check_specs(part.features, bundle.feature_specs, f"bundle {bundle.name}")
    clips = evaluate.posteriors(bundle.network(), part, progress=True)
    assert part.truth is not None
    _print(evaluate.score(clips, part.truth, bundle.decoding))


def _export(args: argparse.Namespace) -> None:
    from train import export

    tuned = None if args.decoding is None else Bundle.load(args.decoding)
    corpus = Corpus.read(args.corpus)
    made = export.make(
        corpus, args.features, args.fit, args.out, args.name, args.weights, args.workers, tuned, args.network, args.tune
    )
    _print(made)


def _card(args: argparse.Namespace) -> None:
    from train import card

    bundle = Bundle.load(args.bundle)
    bundle = card.with_scores(bundle, dict(card.measured(report, bundle) for report in args.reports))
    bundle.save(args.bundle)
    (args.bundle / card.CARD).write_text(card.card(bundle))


def _print(report: Report) -> None:
    print(f"{report.table()}\n{report.subset()}")  # noqa: T201
