# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One emulated servo chain in a process of its own, moved by physics in another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.command_line import from_command_line
from koch_core.options import OptionModel, option
from koch_core.realtime import request_realtime, spare_from_collection
from koch_driver.emulator import build_chain
from koch_rig.load import load_rig
from koch_sim.errors import SimulationError
from koch_sim.shared_state import SharedArm

if TYPE_CHECKING:
    from koch_rig.rig import Arm, Rig

READY = "ready"
#: The process must have its pty open by then, [s]; a loaded machine imports slowly.
START_TIMEOUT_S = 30.0
#: Fault switches that the world passes on; the chain's `Faults` has a method of each name.
COMMANDS = ("unplug", "replug", "power_cut", "power_return")


class ServoProcess:
    """The world's handle on a chain: starts it, passes faults on, ends it."""

    def __init__(self, rig: Rig, arm: Arm, memory: Path, *, simulated_time: bool) -> None:
        """Start the process; the memory must exist.

        Args:
            rig: The rig, whose file the process reads again.
            arm: Which of its arms.
            memory: File of the SharedArm.
            simulated_time: The servos' controllers follow simulated, not wall time.
        """
        command = [
            sys.executable, "-m", "koch_sim.servo_process",
            "--rig", str(rig.path), "--arm", arm.name, "--memory", str(memory),
        ]  # fmt: skip
        if simulated_time:
            command.append("--simulated-time")
        self._name = arm.name
        # Its own process group: Ctrl-C ends the world, and the world ends the servos.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until the pty is open.

        Raises:
            SimulationError: The process ended before.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if line != READY:
            raise SimulationError(
                f"The emulated servos of {self._name} did not start (exit code "
                f"{self._process.wait(START_TIMEOUT_S)}); their own message stands above."
            )

    def check(self) -> None:
        """Raise if the process died.

        Raises:
            SimulationError: It did.
        """
        code = self._process.poll()
        if code is not None:
            raise SimulationError(
                f"The emulated servos of {self._name} ended with exit code {code}; "
                f"restart the world."
            )

    def command(self, name: str) -> None:
        """Pass one of COMMANDS on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End the process; may be called twice."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(3.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True, kw_only=True)
class ServoOptions(OptionModel):
    """What the process is told by the world that starts it."""

    rig: str = option(..., "rig file")
    arm: str = option(..., "which of its arms")
    memory: Path = option(..., "what it shares with the world")
    simulated_time: bool = option(False, "live by the world's time")


def main(argv: list[str] | None = None) -> int:
    """Serve a chain until standard input ends, which it does when the world goes away."""
    options = from_command_line(
        ServoOptions, "servo_process", __doc__ or "", sys.argv[1:] if argv is None else argv
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scheduling = request_realtime()  # servos answer at once, whatever the computer does
    if scheduling.refused:
        sys.stderr.write(f"servos of {options.arm}: no real-time scheduling: {scheduling.text}\n")
    rig = load_rig(options.rig)
    physics = SharedArm(options.memory, rig.arms[options.arm], create=False)
    clock = physics.time_s if options.simulated_time else time.monotonic
    with build_chain(rig, options.arm, physics=physics, clock=clock) as chain:
        spare_from_collection()
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        for line in sys.stdin:
            if line.strip() in COMMANDS:
                getattr(chain.faults, line.strip())()
    return 0


if __name__ == "__main__":
    sys.exit(main())
