# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The lockstep simulation: the rig in one process and in the world's own time, for experiments.

World, servo chains, teleop map, guard and cameras are those of the graph; what is between them
there (ptys, DDS, the wall clock) is left out. A run is a function of its seed: no thread, no
sleep, no clock but the world's. Processes share nothing, so N of them run N times as many.

    arms:     leader -> PoseMap -> guard -> follower, at the follower's bus rate
    cameras:  an image of every frame time, drawn only when someone asks for its bytes
    streams:  the rig's names, handed to listeners: ObservationBuilder.push, a bag's writer
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import mujoco
import numpy as np

from koch_core.image import encode_jpeg
from koch_driver.arm.follower_controller import GRIP_CURRENT_A
from koch_driver.arm.teleop_map import PoseMap
from koch_driver.bus.control_table import VELOCITY_UNIT_RPM, Area
from koch_driver.bus.motors import motors_for
from koch_driver.emulator import build_chain
from koch_driver.guard import Guard, GuardLimits, GuardResult, workspace_from_rig
from koch_episodes.decode import NamedValues
from koch_rig.stream import camera_stream
from koch_sim.camera_renderer import JPEG_QUALITY, let_no_thread_starve
from koch_sim.expert import STYLES, ExpertPhase
from koch_sim.randomisation import Randomisation
from koch_sim.settings import LockstepSettings
from koch_sim.tasks import BLOCK_IN_CUP, Task, Wording, find_task
from koch_sim.truth import ENVIRONMENT_NAMES
from koch_sim.world import World

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from numpy.typing import NDArray

    from koch_driver.emulator import EmulatedChain, EmulatedServo
    from koch_rig.rig import Arm, Rig
    from koch_sim.arm_body import ArmBody
    from koch_sim.expert import Style

Job = TypeVar("Job")
Result = TypeVar("Result")

_NS = 1_000_000_000
#: Stamps begin here: zero would mean "no stamp" to anyone who reads a bag, [s].
START_S = 1000.0
#: The arm comes to rest at home before anything begins, [s].
SETTLE_S = 0.6
#: Ground truth goes out as the world node sends it, [s].
TRUTH_PERIOD_S = 0.02
_SPEED_PER_UNIT = VELOCITY_UNIT_RPM * 2.0 * np.pi / 60.0
_SLACK_S = 1e-6  # sums of control periods are not exact

TRUTH = "sim/environment_state"
Listener = Callable[[str, int, Any], None]
"""Takes stream name, stamp [ns] and value: a `NamedValues` or a `CameraImage`."""


class Cameras:
    """Draws the rig's cameras of remembered instants."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._data = mujoco.MjData(world.model)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}

    def close(self) -> None:
        """Let the graphics memory go; may be called twice."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def draw(
        self, camera: str, qpos: NDArray[np.float64], height: int, width: int
    ) -> NDArray[np.uint8]:
        """Draw one camera, RGB (height, width, 3); sizes as the rig's cameras are cheapest."""
        model, data = self._world.model, self._data
        data.qpos[:] = qpos
        # Only what an image needs: poses of bodies, cameras and lights.
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        size = (height, width)
        if size not in self._renderers:
            self._renderers[size] = mujoco.Renderer(model, *size)
            let_no_thread_starve()  # at the process's end it would be waited for
        renderer = self._renderers[size]
        renderer.update_scene(data, camera)
        image: NDArray[np.uint8] = renderer.render()
        return image


class CameraImage:
    """One camera at one instant; drawn and compressed, as the graph's, when asked for its bytes.

    Most images are never looked at: a policy that plans two seconds ahead asks twice a second.
    """

    def __init__(self, cameras: Cameras, rig: Rig, name: str, qpos: NDArray[np.float64]) -> None:
        self._cameras, self._camera, self._qpos = cameras, rig.cameras[name], qpos
        self._jpeg = b""

    def rgb(self, height: int = 0, width: int = 0) -> NDArray[np.uint8]:
        """Draw it, RGB (H, W, 3), in the camera's size unless told otherwise."""
        camera = self._camera
        return self._cameras.draw(
            camera.name, self._qpos, height or camera.height, width or camera.width
        )

    def __bytes__(self) -> bytes:
        """Return the JPEG that the camera server would send."""
        if not self._jpeg:
            self._jpeg = encode_jpeg(self.rgb(), JPEG_QUALITY, fast=True)
        return self._jpeg


class Lockstep:
    """The simulated rig in lockstep. One thread.

    A person's (or the expert's) hand drives while `teleop` is set; otherwise `command` does.
    """

    def __init__(
        self,
        rig: Rig,
        *,
        seed: int = 0,
        randomisation: Randomisation | None = None,
        style: Style | None = None,
        task: Task = BLOCK_IN_CUP,
        wording: Wording = Wording.FIRST,
    ) -> None:
        """Build the world and switch the arms on.

        Args:
            rig: A rig with a simulated table.
            seed: Of the first set-up.
            randomisation: What varies between set-ups.
            style: How the expert's hand moves.
            task: What is on the table, and what is to be done with it.
            wording: In which words.

        Raises:
            SimulationError: The rig has no follower or no leader.
        """
        self.rig = rig
        self.world = World(
            rig, seed=seed, randomisation=randomisation, style=style, task=task, wording=wording
        )
        self.cameras = Cameras(self.world)
        self._listeners: dict[str, list[Listener]] = {}
        self.teleop = False
        follower, leader = rig.follower, rig.leader_of(rig.follower.name)
        assert leader is not None  # the world has checked
        self._body, self._leader_body = (
            self.world.arms[follower.name],
            self.world.arms[leader.name],
        )
        self._names = follower.name, leader.name
        self._joints = follower.model.joints
        self._map = PoseMap(self._leader_body.units, self._body.units)
        self._limits = _limits(rig, self._body)
        self._workspace = workspace_from_rig(rig.limits, follower)
        self._period_s = 1.0 / follower.rate_hz
        self._frame_s = {name: 1.0 / camera.fps for name, camera in rig.cameras.items()}
        self.restart(seed)

    @classmethod
    def of(cls, settings: LockstepSettings) -> Lockstep:
        """The simulation of a command line.

        Raises:
            RigError: The rig cannot be read.
            SimulationError: The settings mean nothing, see `LockstepSettings.check`.
        """
        return cls(
            settings.check(),
            randomisation=settings.randomisation(),
            style=STYLES[settings.style],
            task=find_task(settings.task),
            wording=settings.wording,
        )

    def close(self) -> None:
        """Let the graphics memory go; may be called twice."""
        self.cameras.close()

    def restart(self, seed: int) -> None:
        """Begin again on a seed's set-up: the arm at home and at rest, no one drives."""
        self.world.restart(seed)
        self.guard = Guard(self._limits, period_s=self._period_s, workspace=self._workspace)
        self.result: GuardResult | None = None
        self._chains = {
            name: build_chain(self.rig, name, physics=body.in_process, clock=self._clock)
            for name, body in self.world.arms.items()
        }
        switch_on(self._chains[self._names[0]], self._body.arm)
        self._cycle_s = self._truth_s = 0.0
        self._next_frame_s = dict.fromkeys(self._frame_s, 0.0)
        self.teleop = False
        self._cycle()
        with self.unheard():
            self.run(SETTLE_S)

    # -- listeners ----------------------------------------------------------------------------

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of everything that can be heard."""
        arms = [f"{arm}/joint_states" for arm in self._names]
        cameras = [camera_stream(name) for name in self.rig.cameras]
        return (*arms, f"{self._names[0]}/joint_command", *cameras, TRUTH)

    def listen(self, listener: Listener, streams: Iterable[str] | None = None) -> None:
        """Hand some streams (all where absent) to a listener; what no one hears costs nothing."""
        for stream in self.streams if streams is None else streams:
            self._listeners.setdefault(stream, []).append(listener)

    def hush(self) -> None:
        """Forget all listeners."""
        self._listeners = {}

    @contextlib.contextmanager
    def unheard(self) -> Iterator[None]:
        """Let time pass that no listener hears of."""
        listeners, self._listeners = self._listeners, {}
        try:
            yield
        finally:
            self._listeners = listeners

    def _tell(self, stream: str, value: Any) -> None:
        stamp_ns = self.time_ns
        for listener in self._listeners.get(stream, ()):
            listener(stream, stamp_ns, value)

    # -- time ---------------------------------------------------------------------------------

    def _clock(self) -> float:
        return self.world.time_s

    @property
    def time_ns(self) -> int:
        """The time in the world as stamps tell it, [ns]."""
        return round((START_S + self.world.time_s) * _NS)

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        self.run_until(self.time_ns + round(duration_s * _NS))

    def run_until(self, time_ns: int) -> None:
        """Let time pass until a stamp."""
        while self.time_ns < time_ns:
            self.world.advance()
            now_s = self.world.time_s + _SLACK_S
            if now_s >= self._cycle_s + self._period_s:
                self._cycle_s += self._period_s
                self._cycle()
            for name, due_s in self._next_frame_s.items():
                if now_s >= due_s:
                    self._next_frame_s[name] = due_s + self._frame_s[name]
                    if camera_stream(name) in self._listeners:
                        self._tell(camera_stream(name), self.image(name))
            if now_s >= self._truth_s:
                self._truth_s += TRUTH_PERIOD_S
                if TRUTH in self._listeners:
                    values = self.world.environment_state().tolist()
                    self._tell(TRUTH, NamedValues(ENVIRONMENT_NAMES, values))

    # -- the arms -----------------------------------------------------------------------------

    def command(self, source: str, positions: Sequence[float], stamp_ns: int) -> None:
        """Hand a command to the guard, one joint angle per joint, [rad]."""
        age_s = (self.time_ns - stamp_ns) / _NS
        self.guard.submit(source, self._joints, positions, age_s=age_s, now_s=self.world.time_s)

    def joints(self) -> NDArray[np.float64]:
        """Return the follower's angles as its servos measure them, (J,), [rad]."""
        ticks = self._chains[self._names[0]].positions_ticks()
        return np.asarray(self._body.units.ticks_to_rad(ticks))

    def _cycle(self) -> None:
        """One bus cycle: read both arms, ask the guard, write the goal, tell the listeners."""
        follower, leader = self._names
        if self.teleop or f"{leader}/joint_states" in self._listeners:
            lead = self._measured(leader, self._leader_body)
            self._tell(f"{leader}/joint_states", lead)
            if self.teleop:
                self.command("teleop", self._map.map(lead.values), self.time_ns)
        state = self._measured(follower, self._body)
        self._tell(f"{follower}/joint_states", state)
        self.result = self.guard.step(self.world.time_s, state.values)
        goal = self.result.goal
        if goal is None:
            return
        chain = self._chains[follower]
        for joint, ticks in zip(self._joints, self._body.units.rad_to_ticks(goal), strict=True):
            write_register(chain.servo(joint), "Goal_Position", int(ticks))
        # At once, as the chain does behind a packet that changes goals.
        self._body.in_process.advance(0.0, [s.drive(0.0) for s in chain.servos])
        self._tell(f"{follower}/joint_command", NamedValues(self._joints, goal))

    def _measured(self, arm: str, body: ArmBody) -> NamedValues:
        chain = self._chains[arm]
        positions = body.units.ticks_to_rad(chain.positions_ticks())
        if f"{arm}/joint_states" not in self._listeners:
            return NamedValues(self._joints, positions.tolist())
        units = np.array([servo.get("Present_Velocity") for servo in chain.servos])
        speeds = body.units.sign * units * _SPEED_PER_UNIT
        return NamedValues(self._joints, positions.tolist(), speeds.tolist())

    # -- what is seen -------------------------------------------------------------------------

    def image(self, name: str) -> CameraImage:
        """Return what a camera sees now."""
        return CameraImage(self.cameras, self.rig, name, self.world.qpos())

    # -- the expert ---------------------------------------------------------------------------

    def take_over(self) -> None:
        """Let the leader take the follower over: it is brought to the follower's pose."""
        self.world.take_hold()
        self.teleop = True

    def demonstrate(
        self, timeout_s: float = 40.0, rest_s: float = 0.5, *, at_once: bool = False
    ) -> bool:
        """Let the expert show the task once, from where the hand is; the block comes to rest.

        Listeners hear the motion alone, not the rest before and behind it.

        Args:
            timeout_s: Longest demonstration, [s] of the world.
            rest_s: For the block, [s].
            at_once: The hand does not rest until the guard has let it take over. In an episode
                that goes on, a rest would show a policy that has erred how to stay there.

        Returns:
            Whether the block rests in the cup.

        Raises:
            UnreachableError: Block or cup lie out of reach.
        """
        self.teleop = True
        if not at_once:
            with self.unheard():
                self.run(2.0 * self.guard.limits.blend_min_s)  # the guard takes over softly
        self.world.demonstrate()
        end_s = self.world.time_s + timeout_s
        moving = ExpertPhase.MOVING
        while self.world.demonstration_phase() is moving and self.world.time_s < end_s:
            self.run(self._period_s)
        with self.unheard():
            self.run(rest_s)
        self.teleop = False
        return self.world.succeeded()


def switch_on(chain: EmulatedChain, arm: Arm) -> None:
    """Give the servos of a follower their registers and torque, as its driver does."""
    for joint in arm.model.joints:
        write_register(chain.servo(joint), "Torque_Enable", 1)
    for spec in motors_for(arm.role, arm.model):
        for register, value in spec.registers.items():
            if spec.model.register(register).area is Area.RAM:  # EEPROM holds them already
                write_register(chain.servo(spec.joint), register, value)
    gripper = chain.servo(arm.model.joints[-1])
    write_register(gripper, "Goal_Current", round(GRIP_CURRENT_A * 1e3))


def write_register(servo: EmulatedServo, register: str, value: int) -> None:
    """Write a register of a servo as a packet would, with all its effects."""
    entry = servo.model.register(register)
    servo.write(entry.address, entry.encode(value))


def _limits(rig: Rig, body: ArmBody) -> GuardLimits:
    """The rig's limits, narrowed by the calibrated ranges, as the driver's."""
    lower, upper = body.units.range_rad()
    model = body.arm.model
    ranges = zip(model.joints, lower.tolist(), upper.tolist(), strict=True)
    calibrated = {joint: (low, high) for joint, low, high in ranges}
    return GuardLimits.from_rig(rig.limits, calibrated=calibrated, model=model)


def over_processes(
    make: Callable[[], Callable[[Job], Result]], jobs: Sequence[Job], processes: int
) -> Iterator[Result]:
    """Do jobs in several processes; results come in the order of the jobs.

    Args:
        make: Makes what does a job, once in each process; picklable.
        jobs: Picklable.
        processes: How many; 1 works in this process.

    Raises:
        Exception: What a job raised; the other processes are ended.
    """
    processes = max(1, min(processes, len(jobs)))
    if processes == 1:
        yield from map(make(), jobs)
        return
    context = multiprocessing.get_context("spawn")  # EGL and torch do not survive a fork
    asked: Queue[tuple[int, Job] | None] = context.Queue()
    answered: Queue[tuple[int, Any]] = context.Queue()
    for item in (*enumerate(jobs), *[None] * processes):
        asked.put(item)
    workers = [
        context.Process(target=_work, args=(make, asked, answered), daemon=True)
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    try:
        early: dict[int, Any] = {}
        for number in range(len(jobs)):
            while number not in early:
                place, result = answered.get()
                early[place] = result
                if isinstance(result, BaseException):
                    raise result
            yield early.pop(number)
    finally:
        for worker in workers:
            worker.terminate()


def _work(
    make: Callable[[], Callable[[Job], Result]],
    asked: Queue[tuple[int, Job] | None],
    answered: Queue[tuple[int, Any]],
) -> None:
    place = -1
    try:
        work = make()
        while (item := asked.get()) is not None:
            place, job = item
            answered.put((place, work(job)))
    except Exception as exc:  # handed on to the process that asked
        answered.put((place, exc))
