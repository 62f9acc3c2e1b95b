"""`earwitness weights`: gets the pretrained networks that some models need, and checks them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.errors import UsageError, WeightsError
from streamer.escapes import printable
from streamer.features import EXTRACTORS
from streamer.networks.published import KNOWN
from streamer.networks.weights import WeightsFile, WeightsStore, default_weights_folder, known_weights

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `weights list`, `weights fetch` and `weights verify`."""
    parser = subparsers.add_parser(
        "weights",
        help="get and check the weights of pretrained networks",
        description="Gets and checks the pretrained networks that models with more than spectral input need. The model "
        "that is shipped needs none.",
        epilog="example: earwitness weights fetch vggish",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    named = f"of {', '.join(KNOWN)}"

    listing = _action(actions, "list", "list published and installed weights", "earwitness weights list")
    listing.set_defaults(main=_list)

    fetching = _action(actions, "fetch", "download weights, or install a file", "earwitness weights fetch vggish vgg16")
    fetching.add_argument("names", nargs="+", metavar="NAME", help=f"one or more {named}")
    fetching.add_argument("--url", help="download from this URL: a mirror or, with --sha256, your own weights")
    fetching.add_argument("--sha256", metavar="HEX", help="expected SHA-256 (default: that of the published weights)")
    fetching.add_argument(
        "--file", type=Path, metavar="FILE", help="install this .pth or .safetensors file instead of a download"
    )
    fetching.set_defaults(main=_fetch)

    verifying = _action(
        actions,
        "verify",
        "check that installed weights are undamaged and fit their networks",
        "earwitness weights verify",
    )
    verifying.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one or more {named} (default: all that are installed)"
    )
    verifying.set_defaults(main=_verify)


def _action(
    actions: _SubParsersAction[argparse.ArgumentParser], name: str, help: str, example: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=help, description=help, epilog=f"example: {example}")
    parser.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="folder of pretrained weights (default: the user's cache)"
    )
    return parser


def _list(args: argparse.Namespace) -> int:
    """Print the known weights and the installed files, without reading the files."""
    store = _store(args)
    _say(f"weights in {store.folder}")
    for known in KNOWN.values():
        _say(f"{known.name}: {known.what}, {known.licence}")
        _say(f"  published  {known.url or known.package} ({_size(known.about_bytes)}, SHA-256 {known.sha256})")
        for path in store.here(known.name):
            _say(f"  installed  {path} ({_size(path.stat().st_size)})")
        if not store.here(known.name):
            _say(f"  missing    get it with: {known.command}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    """Download or install weights, check that they fit their network, and print where they are."""
    names = _checked(args.names)
    if len(names) > 1 and (args.url or args.sha256 or args.file):
        raise UsageError("--url, --sha256 and --file apply to a single NAME")
    if args.url and args.file:
        raise UsageError("give --url or --file, not both")
    store = _store(args)
    for name in names:
        if args.file is not None:
            _fits(WeightsStore(store.folder, {name: args.file}), name, None)
            found = store.install(name, args.file, args.sha256)
        else:
            found = store.fetch(name, url=args.url, sha256=args.sha256, progress=sys.stderr.isatty())
            _fits(store, name, found.sha256)
        _say_good(found)
    return 0


def _verify(args: argparse.Namespace) -> int:
    """Check the SHA-256 of the installed weights, and that they fit their networks."""
    store = _store(args)
    names = _checked(args.names) or [name for name in KNOWN if store.here(name)]
    if not names:
        raise WeightsError(f"there are no weights in {store.folder}; get some with: earwitness weights fetch NAME")
    for name in names:
        found = store.find(name)
        _fits(store, name, found.sha256)
        _say_good(found)
    return 0


def _checked(names: Sequence[str]) -> list[str]:
    return [known_weights(name).name for name in names]


def _store(args: argparse.Namespace) -> WeightsStore:
    return WeightsStore(args.weights or default_weights_folder(os.environ))


def _fits(store: WeightsStore, name: str, sha256: str | None) -> None:
    """Load the weights into their network. Raises `WeightsError` if they don't fit it."""
    EXTRACTORS[name]({"weights_sha256": sha256}, store)


def _say_good(found: WeightsFile) -> None:
    which = "as published" if found.sha256 == KNOWN[found.name].sha256 else "not the published ones"
    _say(f"{found.name}: good, {which}: {found.path} (SHA-256 {found.sha256})")


def _say(line: str) -> None:
    print(printable(line))  # noqa: T201


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
