"""The times that a source states: where it starts, when it was recorded, and UTC by its own clock."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from streamer.address import Address
from streamer.timeline import PLAUSIBLE_S, how_far_off, recorded_plausibly


def start_of_packet(packet: Packet[Stream]) -> Fraction | None:
    """Media time of a packet's start; None if unknown."""
    if packet.pts is None or packet.time_base is None or not packet.size:
        return None
    return packet.pts * Fraction(packet.time_base)


def start_of(container: InputContainer) -> Fraction | None:
    """Media time at which the earliest track starts, whether it is used or not; None if unknown."""
    return None if container.start_time is None else Fraction(container.start_time, av.time_base)


def recorded_at(container: InputContainer, address: Address, now: Callable[[], float]) -> tuple[float | None, str]:
    """Unix seconds of a recording's start, and one line about an implausible clock ("" if none).

    From its creation_time tag, else the file's mtime, else, if there is no file, now. None if all are implausible.
    """
    fault = ""
    for tags in (container.metadata, *(s.metadata for s in container.streams)):
        try:
            made = datetime.fromisoformat(tags.get("creation_time", ""))
        except ValueError:
            continue
        utc_s = (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
        if recorded_plausibly(utc_s, now()):
            return utc_s, fault
        if utc_s > now():
            # A time in the past is not reported: muxers without a clock write 1904 or 1970.
            fault = f"its creation_time, {tags['creation_time']}, is in the future and is ignored"
    try:
        utc_s = os.stat(address.path if address.is_local else "").st_mtime
    except OSError:
        return now(), fault
    return (utc_s if recorded_plausibly(utc_s, now()) else None), fault


def sender_report_s(packet: Packet[Stream]) -> float | None:
    """Unix seconds of a packet's first sample by the source's own clock, from RTCP sender reports."""
    if not packet.has_sidedata("prft"):
        return None
    utc_us, _flags = struct.unpack_from("<qi", bytes(packet.get_sidedata("prft")))
    return float(utc_us / 1e6)


def clock_fault(utc_s: float, now_s: float) -> str:
    """One line about a live source's own clock if it is implausible; else empty."""
    if abs(utc_s - now_s) <= PLAUSIBLE_S:
        return ""
    return f"its clock {how_far_off(utc_s, now_s)}; it is ignored, and arrival times are used"
