# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The running graph of the simulated rig, with a hand on the switches that its world has."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from koch_vla.nodes.fault_bench import BenchOfFaults
from koch_vla.nodes.running_graph import RIG_FILE, RunningGraph, seconds_of

_CALM_S = 0.5


class SimulatedBench(BenchOfFaults):
    """`koch up --record` with a MuJoCo world whose scripted hand demonstrates all the time.

    What breaks is what the world can break: power and plug of an arm, a camera that stands still;
    and its processes. Servos and packets are the emulated rig's.
    """

    WELL_S = 90.0

    def __init__(self, folder: Path) -> None:
        """Prepare a folder; entering starts everything."""
        super().__init__(folder)
        self._broken: set[str] = set()
        self._seed = 0

    def _start(self) -> None:
        self.graph = self._stack.enter_context(RunningGraph(self.folder, RIG_FILE))
        self._listen()
        self.graph.wait_healthy(self.WELL_S)
        self._nodes = len(self.graph.pids())

    def switch_off(self, name: str) -> None:
        """Break something of the simulated hardware, such as "follower/plug"."""
        self.graph.switch(name, works=False)
        self._broken.add(name)

    def drive_by(self, who: str) -> None:
        """The hand of the expert always drives."""

    def lost(self) -> str:
        """What did not come: gaps in the states; all images (their rate is the machine's)."""
        watcher = self.graph.watcher
        stamps = [seconds_of(m) for m in watcher.states[self._first_state :]]
        gap_s = float(np.diff([*stamps, time.time()]).max())
        found = [f"{gap_s:.1f} s of states"] if gap_s > 0.15 else []
        found += [
            f"the images of {name}"
            for name, count in watcher.images.items()
            if count - self._images[name] < 3
        ]
        return ", ".join(found) or "nothing"

    def _repair(self) -> None:
        for name in tuple(self._broken):
            with suppress(AssertionError):  # a world that was started again works anyway
                self.graph.switch(name, works=True)
            self._broken.discard(name)

    def _take_up(self) -> None:
        """What a person does: torque, resume, enable switch; then the expert begins again."""
        self.graph.take_up()
        if self.graph.hand() != "moving":
            self._seed += 1
            self.graph.lay_out(self._seed)
            self.graph.begin_demonstration()

    def _well(self) -> bool:
        graph = self.graph
        before = dict(graph.watcher.images)
        if not (self._follows() and graph.states_flow() and len(graph.pids()) == self._nodes):
            return False
        threading.Event().wait(_CALM_S)
        return all(count > before[name] for name, count in graph.watcher.images.items())
