"""Log lines about outages, on a fake clock."""

from __future__ import annotations

import logging

import pytest

from streamer.runtime.outages import Outages


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outages(clock: Clock, caplog: pytest.LogCaptureFixture) -> Outages:
    caplog.set_level(logging.INFO, "streamer")
    return Outages(clock)


def test_an_outage_is_logged_once_and_its_end_with_the_lost_messages(
    outages: Outages, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(30):
        outages.failed("jsonl", "the disk is full")
        clock.now_s += 1.0
    outages.worked("zmq")
    outages.worked("jsonl")
    assert caplog.messages == ["jsonl: the disk is full", "jsonl: works again; 30 messages were lost in 29 s"]
    outages.worked("jsonl")
    assert len(caplog.messages) == 2


def test_each_further_outage_is_logged_too(outages: Outages, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        outages.failed("jsonl", "the disk is full")
        clock.now_s += 2.0
        outages.worked("jsonl")
        clock.now_s += 3600.0
    assert caplog.messages == ["jsonl: the disk is full", "jsonl: works again; 1 message was lost in 0 s"] * 3


def test_an_outage_that_lasts_is_logged_again(outages: Outages, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3600):
        outages.failed("jsonl", "the disk is full")
        clock.now_s += 1.0
    assert len(caplog.messages) == 6
    assert caplog.messages[1] == "jsonl: the disk is full; 601 messages were lost in 600 s"


def test_an_intermittent_outage_does_not_flood_the_log_and_loses_no_count(
    outages: Outages, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Like a pipe whose reader is slightly too slow, for an hour."""
    for _ in range(1800):
        outages.failed("jsonl", "its reader is too slow")
        clock.now_s += 0.5
        outages.worked("jsonl")
        clock.now_s += 1.5
        outages.worked("jsonl")
    outages.close()
    assert len(caplog.messages) < 20
    lost = [
        int(line.split("; ")[-1].split()[0]) for line in caplog.messages if "lost in" in line and "slow" not in line
    ]
    assert sum(lost) == 1800


def test_an_outage_that_lasts_until_shutdown_is_logged(
    outages: Outages, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outages.failed("jsonl", "the disk is full")
    clock.now_s += 7.0
    outages.failed("jsonl", "the disk is full", lost=4)
    outages.close()
    outages.close()
    assert caplog.messages[1:] == ["jsonl: still failing at shutdown; 5 messages were lost in 7 s"]
