# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Run the emulated arms of a rig: python -m koch_driver.emulator --rig FILE [--faults SCRIPT]."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from koch_core.command_line import from_command_line
from koch_core.errors import KochError
from koch_core.options import OptionModel, option
from koch_core.realtime import request_realtime, spare_from_collection
from koch_driver.emulator.build import build_chain
from koch_driver.emulator.chain import EmulatedChain, WireTiming
from koch_driver.emulator.script import FaultEvent, load_script, run_event
from koch_rig.load import load_rig

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG = logging.getLogger("koch_driver.emulator")


@dataclass(frozen=True, kw_only=True)
class EmulatorOptions(OptionModel):
    """What the emulator is asked for."""

    rig: str = option(..., "rig file whose arms are emulated", metavar="FILE")
    arm: tuple[str, ...] = option((), "only this arm (may be repeated)")
    faults: str | None = option(None, "YAML script of faults", metavar="SCRIPT")
    usb_latency_ms: float | None = option(
        None, "simulate wire time and an adapter with this latency timer; off by default"
    )


def parse(argv: Sequence[str]) -> EmulatorOptions:
    """Command line; also ROS's way of giving the rig (--ros-args -p rig:=FILE)."""
    plain, ros = list(argv), []
    if "--ros-args" in plain:
        at = plain.index("--ros-args")
        plain, ros = plain[:at], plain[at + 1 :]
    for token in ros:
        if token.startswith("rig:="):
            plain += ["--rig", token.removeprefix("rig:=")]
    return from_command_line(EmulatorOptions, "emulator", __doc__ or "", plain)


def run(chains: dict[str, EmulatedChain], events: list[FaultEvent], stop: threading.Event) -> None:
    """Serve until `stop`, doing the script's events on time."""
    for name, chain in chains.items():
        LOG.info("%s: %d servos on %s", name, len(chain.servos), chain.open())
    faults = {name: chain.faults for name, chain in chains.items()}
    start = time.monotonic()
    for event in events:
        if stop.wait(max(0.0, start + event.at_s - time.monotonic())):
            return
        LOG.info("%s: %s %s", event.arm, event.action, event.arguments)
        run_event(event, faults)
    stop.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; ends at SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="[emulator] %(message)s")
    options = parse(sys.argv[1:] if argv is None else argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    chains: dict[str, EmulatedChain] = {}
    try:
        rig = load_rig(options.rig)
        scheduling = request_realtime()  # servos answer at once, whatever the computer does
        if scheduling.refused:
            LOG.warning("no real-time scheduling: %s", scheduling.text)
        latency = options.usb_latency_ms
        wire = WireTiming.off() if latency is None else WireTiming.real(latency * 1e-3)
        names = options.arm or list(rig.arms)
        chains = {name: build_chain(rig, name, wire=wire) for name in names}
        events = []
        if options.faults:
            events = load_script(options.faults, {n: c.faults for n, c in chains.items()})
        spare_from_collection()
        run(chains, events, stop)
    except KochError as exc:
        LOG.error("%s", exc)
        return 2
    finally:
        for chain in chains.values():
            chain.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
