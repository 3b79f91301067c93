# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The world node: ROS's view of the simulated table."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from koch_interfaces.msg import NamedVector, TaskState
from koch_interfaces.srv import ResetWorld
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from koch_core.options import same_as
from koch_rig.load import load_rig
from koch_ros.node import run_node
from koch_ros.parameters import declare, parameter
from koch_ros.qos import SERVICES
from koch_ros.shared_options import EXPERT, RIG, SPEED
from koch_ros.stamps import ros_time
from koch_sim.errors import SimulationError
from koch_sim.expert import STYLES
from koch_sim.randomisation import FULL, Randomisation
from koch_sim.simulation import Simulation
from koch_sim.tasks import BLOCK_IN_CUP, TASKS, find_task
from koch_sim.truth import ENVIRONMENT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

#: State streams: reliable, so that a recorder gets all; readers may relax.
STATE = QoSProfile(depth=10)
TRUTH_PERIOD_S = 0.02
CLOCK_PERIOD_S = 0.01  # each tick wakes every node


@dataclass(frozen=True)
class WorldParameters:
    """Parameters of the node, all read-only."""

    rig: str = same_as(RIG, "")
    seed: int = parameter(0, "seed of the first set-up")
    speed: float = same_as(SPEED, 1.0)
    expert: bool = same_as(EXPERT, False)
    randomise: bool = parameter(False, "vary looks, friction and servos too, not only poses")
    task: str = parameter(
        BLOCK_IN_CUP.name, "what is on the table, and what to do", choices=tuple(TASKS)
    )
    style: str = parameter("smooth", "how the expert's hand moves", choices=tuple(STYLES))


class WorldNode(Node):
    """Publishes ground truth, answers reset and demonstrate, and breaks things on request."""

    def __init__(self) -> None:
        """Declare parameters, build the world and let it run.

        Raises:
            KochError: The rig cannot be simulated.
        """
        super().__init__("world")
        parameters = declare(self, WorldParameters)
        self.simulation = Simulation(
            load_rig(parameters.rig),
            seed=parameters.seed,
            speed=parameters.speed,
            expert=parameters.expert,
            randomisation=FULL if parameters.randomise else Randomisation(),
            task=find_task(parameters.task),
            style=STYLES[parameters.style],
        )
        self._block = self.create_publisher(PoseStamped, "sim/block_pose", STATE)
        self._cup = self.create_publisher(PoseStamped, "sim/cup_pose", STATE)
        self._environment = self.create_publisher(NamedVector, "sim/environment_state", STATE)
        self._task = self.create_publisher(TaskState, "sim/task_state", STATE)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", STATE)
        self.create_service(ResetWorld, "sim/reset", self._on_reset, qos_profile=SERVICES)
        # A group of its own: the timers go on while a demonstration is planned.
        self.create_service(
            Trigger,
            "sim/demonstrate",
            self._on_demonstrate,
            qos_profile=SERVICES,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self._create_fault_services()
        self._reset_s = 0.0
        self._ticks = 0
        self.simulation.start()
        # Timers run on the wall clock: this node is the source of simulated time.
        self.create_timer(TRUTH_PERIOD_S, self._publish_truth)
        self.create_timer(1.0, self._publish_diagnostics)
        if self.simulation.clock.is_simulated:
            self._clock_publisher = self.create_publisher(Clock, "/clock", STATE)
            self.create_timer(CLOCK_PERIOD_S, self._publish_clock)

    def close(self) -> None:
        """Stop the simulation; may be called twice."""
        self.simulation.close()

    def _create_fault_services(self) -> None:
        """Offer the switches that a test or a curious user pulls: true = works, false = broken."""
        for name, servos in self.simulation.servos.items():
            for switch, on, off in (
                ("power", "power_return", "power_cut"),
                ("plug", "replug", "unplug"),
            ):
                self._create_switch(
                    f"sim/{name}/{switch}",
                    partial(servos.command, on),
                    partial(servos.command, off),
                )
        stalled = self.simulation.server.stalled
        for camera in self.simulation.server.slots:
            self._create_switch(
                f"sim/cameras/{camera}/run",
                partial(stalled.discard, camera),
                partial(stalled.add, camera),
            )

    def _create_switch(
        self, service: str, on: Callable[[], object], off: Callable[[], object]
    ) -> None:
        def handle(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
            (on if request.data else off)()
            response.success = True
            response.message = f"{service}: {'works' if request.data else 'broken on request'}"
            self.get_logger().info(response.message)
            return response

        self.create_service(SetBool, service, handle, qos_profile=SERVICES)

    def _on_reset(
        self, request: ResetWorld.Request, response: ResetWorld.Response
    ) -> ResetWorld.Response:
        seed = self.simulation.reset(request.seed)
        self._reset_s = self.simulation.world.time_s
        response.success, response.message = True, f"seed {seed}"
        return response

    async def _on_demonstrate(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Plan beside the executor, whose timers publish the truth meanwhile."""
        planned: Future[str] = Future(executor=self.executor)

        def plan() -> None:
            try:
                self.simulation.world.demonstrate()
            except Exception as exc:  # anyone who asked hears it, planner's bugs included
                planned.set_result(str(exc) or repr(exc))
            else:
                planned.set_result("")

        threading.Thread(target=plan, name="planner", daemon=True).start()
        problem = await planned
        response.success, response.message = not problem, problem or "the hand moves"
        return response

    def _publish_truth(self) -> None:
        try:
            self.simulation.check()
        except SimulationError as exc:
            self.get_logger().fatal(str(exc))
            raise
        world = self.simulation.world
        goal, things = world.setup.goal, world.truth().things
        moved, place = things[goal.thing], things[goal.place]
        header = Header(stamp=ros_time(self.simulation.stamp_ns()), frame_id="world")
        self._environment.publish(
            NamedVector(
                header=header, name=list(ENVIRONMENT_NAMES), value=world.environment_state()
            )
        )
        self._block.publish(_pose(header, moved.xyz_m, moved.yaw_rad))
        self._cup.publish(_pose(header, place.xyz_m, 0.0))
        self._ticks += 1
        if self._ticks % 5 == 0:
            self._publish_task(header)

    def _publish_task(self, header: Header) -> None:
        world = self.simulation.world
        self._task.publish(
            TaskState(
                header=header,
                success=world.succeeded(),
                detail=world.demonstration_phase().value,
                sim_time_s=float(world.time_s - self._reset_s),
            )
        )

    def _publish_clock(self) -> None:
        self._clock_publisher.publish(Clock(clock=ros_time(self.simulation.stamp_ns())))

    def _publish_diagnostics(self) -> None:
        simulation = self.simulation
        values = {
            "simulated time [s]": f"{simulation.world.time_s:.1f}",
            "time lost to a slow machine [s]": f"{simulation.clock.lost_s:.3f}",
            "hand": f"{simulation.world.demonstration_phase().value}"
            f" ({simulation.world.expert.step})",
            "seed": str(simulation.world.setup.seed),
        }
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK,
            name="sim: world",
            hardware_id="mujoco",
            message="running",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        header = Header(stamp=ros_time(simulation.stamp_ns()))
        self._diagnostics.publish(DiagnosticArray(header=header, status=[status]))


def _pose(header: Header, xyz: np.ndarray, yaw_rad: float) -> PoseStamped:
    message = PoseStamped(header=header)
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = map(float, xyz)
    orientation.z, orientation.w = float(np.sin(yaw_rad / 2.0)), float(np.cos(yaw_rad / 2.0))
    return message


def main() -> int:
    """Run the node until SIGINT or SIGTERM.

    Returns:
        0 after a requested stop, 2 for a rig that cannot be simulated.

    Raises:
        SimulationError: A part of the simulation died.
    """
    # Physics, images and ROS share the interpreter; by default a thread may hold it for 5 ms.
    sys.setswitchinterval(0.0001)
    return run_node(WorldNode, realtime=False)


if __name__ == "__main__":
    sys.exit(main())
