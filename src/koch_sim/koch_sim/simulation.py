# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a world as hardware would run: ptys, camera streams and time that passes by itself."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from koch_core.closing import Closing
from koch_sim.arm_body import CONTROL_PERIOD_S
from koch_sim.camera_renderer import CameraRenderer
from koch_sim.camera_server import CameraServer
from koch_sim.errors import SimulationError
from koch_sim.expert import ExpertPhase
from koch_sim.servo_process import ServoProcess
from koch_sim.shared_state import SharedArm
from koch_sim.tasks import BLOCK_IN_CUP, Task
from koch_sim.world import World

if TYPE_CHECKING:
    from koch_rig.rig import Rig
    from koch_sim.expert import Style
    from koch_sim.randomisation import Randomisation

#: With the expert in charge, so long between a demonstration's end and the next, [s].
EXPERT_REST_S = 1.5
#: A world that fell behind by more lets go of the lost time instead of racing after it, [s].
MAX_LAG_S = 0.05


class WorldClock:
    """Says how far physics should have come, and what time it is in the world.

    At speed 1 the world's time is the machine's: stamps are ``time.time_ns()``, as hardware's
    are. At any other speed stamps are simulated nanoseconds, which go out on /clock.
    """

    def __init__(self, speed: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start at simulated time zero.

        Args:
            speed: Simulated seconds per second, > 0.
            monotonic: Clock to pace against, [s].
        """
        self.speed = speed
        self.lost_s = 0.0
        self._monotonic = monotonic
        self._start = monotonic()

    @property
    def is_simulated(self) -> bool:
        """Whether nodes must follow /clock."""
        return self.speed != 1.0

    def due_s(self, simulated_s: float) -> float:
        """Return how much physics is due, [s]; negative while physics is ahead."""
        lag = (self._monotonic() - self._start) * self.speed - simulated_s
        if lag > MAX_LAG_S * max(1.0, self.speed):
            self.lost_s += lag
            self._start += lag / self.speed
            lag = 0.0
        return lag

    def stamp_ns(self, simulated_s: float) -> int:
        """Return the time in the world, [ns]."""
        return round(simulated_s * 1e9) if self.is_simulated else time.time_ns()


class Simulation(Closing):
    """A world with its servo chains, cameras and clock."""

    def __init__(
        self,
        rig: Rig,
        *,
        seed: int,
        speed: float = 1.0,
        expert: bool = False,
        randomisation: Randomisation | None = None,
        task: Task = BLOCK_IN_CUP,
        style: Style | None = None,
    ) -> None:
        """Build everything; nothing runs before `start`.

        Args:
            rig: The simulated rig.
            seed: Of the first set-up.
            speed: Simulated seconds per second, > 0.
            expert: Demonstrate again and again, each time on the next seed's set-up.
            randomisation: What varies between set-ups.
            task: What is on the table, and what is to be done with it.
            style: How the expert's hand moves.

        Raises:
            SimulationError: The cameras' URLs name several ports or hosts, or the port is taken.
        """
        self.world = World(rig, seed=seed, randomisation=randomisation, style=style, task=task)
        self.clock = WorldClock(speed)
        self._memory = Path(tempfile.mkdtemp(prefix="koch_sim_"))
        self.servos: dict[str, ServoProcess] = {}
        for name, body in self.world.arms.items():
            memory = self._memory / name
            body.link = SharedArm(memory, body.arm, create=True)
            body.sense(self.world.data)
            self.servos[name] = ServoProcess(
                rig, body.arm, memory, simulated_time=self.clock.is_simulated
            )
        self.server = CameraServer(rig.cameras, camera_port(rig))
        self._renderer = CameraRenderer(self.world.model, rig.cameras, self.server)
        self._frame_period_s = 1.0 / max((c.fps for c in rig.cameras.values()), default=30.0)
        self._next_frame_s = 0.0
        self._expert = expert
        self._rest_until_s = EXPERT_REST_S
        self._seed = seed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> Simulation:
        self.start()
        return self

    def start(self) -> None:
        """Plug the arms in, open the camera streams and let time pass."""
        for servos in self.servos.values():
            servos.wait_ready()
        self.server.start()
        self._renderer.start()
        self._thread.start()

    def close(self) -> None:
        """Stop everything; may be called twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._renderer.close()
        self.server.close()
        for servos in self.servos.values():
            servos.close()
        shutil.rmtree(self._memory, ignore_errors=True)

    def stamp_ns(self) -> int:
        """Return the time in the world, [ns]."""
        return self.clock.stamp_ns(self.world.time_s)

    def reset(self, seed: int) -> int:
        """Lay out the table again; -1 takes the seed after the last. Returns the seed."""
        self._seed = self._seed + 1 if seed < 0 else seed
        self.world.reset(self._seed)
        return self._seed

    def check(self) -> None:
        """Raise what killed one of the simulation's threads, if anything did.

        Raises:
            SimulationError: Physics, renderer or a servo process died.
        """
        for servos in self.servos.values():
            servos.check()
        for what, error in (("physics", self.error), ("camera renderer", self._renderer.error)):
            if error is not None:
                raise SimulationError(
                    f"The simulation's {what} died: {error}. Restart the world; if it is the "
                    f"renderer, 'koch doctor' checks EGL."
                ) from error

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                due = self.clock.due_s(self.world.time_s)
                if due < CONTROL_PERIOD_S:
                    time.sleep(max(0.0, (CONTROL_PERIOD_S - due) / self.clock.speed))
                    continue
                self.world.advance()
                self._after_step()
        except Exception as exc:  # the node's timer calls check() and ends the process
            self.error = exc

    def _after_step(self) -> None:
        now = self.world.time_s
        if now >= self._next_frame_s:
            # From the schedule, not from now: the camera's rate must not drift.
            self._next_frame_s = max(self._next_frame_s + self._frame_period_s, now)
            self._renderer.snap(self.world.qpos(), self.stamp_ns())
        if self._expert and now >= self._rest_until_s:
            self._next_demonstration(now)

    def _next_demonstration(self, now_s: float) -> None:
        if self.world.demonstration_phase() is ExpertPhase.MOVING:
            self._rest_until_s = now_s + EXPERT_REST_S
            return
        self.reset(-1)
        self._rest_until_s = now_s + 2.0 * EXPERT_REST_S
        threading.Thread(target=self._demonstrate, name="planner", daemon=True).start()

    def _demonstrate(self) -> None:
        with contextlib.suppress(SimulationError):  # out of reach: the next seed comes soon
            self.world.demonstrate()


def camera_port(rig: Rig) -> int:
    """Return the loopback port that the rig's camera URLs name; 0 without cameras.

    Raises:
        SimulationError: A camera's source is no loopback URL, or the ports differ.
    """
    ports = set()
    for name, camera in rig.cameras.items():
        url = urlsplit(str(camera.source))
        if url.scheme != "http" or url.hostname not in ("127.0.0.1", "localhost"):
            raise SimulationError(
                f"{rig.path}: cameras.{name}.source is {camera.source!r}; a simulated camera "
                f"is served at http://127.0.0.1:PORT/{name}.mjpeg."
            )
        ports.add(url.port or 80)
    if len(ports) > 1:
        raise SimulationError(
            f"{rig.path}: the cameras name the ports {sorted(ports)}; one server has one port."
        )
    return ports.pop() if ports else 0
