"""What holds for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from streamer.networks.backends import use_threads
from tests.models import seeded_bundle
from tests.weights import vgg16_tensors, vggish_tensors

# Two threads a network beside a busy core are many times slower than one, and no test is about that but test_threads.
use_threads(1)

# A shell ignores Ctrl-C for what it starts in the background, and every process of a test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No example fails because it was slow: that says how busy the machine is. In CI the same examples are tried each time,
# because what a change breaks must not depend on luck; elsewhere new ones are.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


_LONGEST = (
    *("e2e/test_daemon.py", "replay/test_report.py", "train/test_resume.py", "train/test_loop.py"),
    *("train/test_kept.py", "train/learning/test_distributed.py"),
)
"""The files that take longest. They begin first, because the last one would run while the other processes wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; within a file the order stays."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(_LONGEST))


@pytest.fixture(autouse=True, scope="session")
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Daemons of tests must not write to the event store of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Commands that run inside the test process must not leave their signal handlers behind: Ctrl-C is for pytest."""
    numbers = [one for one in signal.valid_signals() if one not in (signal.SIGKILL, signal.SIGSTOP)]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Training in the test process must not leave denormal floats switched off: Hypothesis generates them."""
    yield
    torch.set_flush_denormal(False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that lacks its real part fails: `make test` installs them, and a skip would hide that it did not."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model, for what runs as a command."""
    folder = tmp_path_factory.mktemp("bundle")
    seeded_bundle().save(folder)
    return folder


# Full-size weights, made once a session.


@pytest.fixture(scope="session")
def vggish_weights() -> dict[str, Tensor]:
    return vggish_tensors(1)


@pytest.fixture(scope="session")
def vgg16_weights() -> dict[str, Tensor]:
    return vgg16_tensors(2)


@pytest.fixture(scope="session")
def vggish_file(vggish_weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    torch.save(vggish_weights, path)
    return path


@pytest.fixture(scope="session")
def vgg16_file(vgg16_weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.pth"
    torch.save(vgg16_weights, path, _use_new_zipfile_serialization=False)  # as torchvision's published file is
    return path
